// Elements with text content. Names of runs and all their values are inserted as text, never as HTML.

export function element(tag, { text, children = [], ...attributes } = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  if (text !== undefined) made.textContent = text;
  made.append(...children.filter(Boolean));
  return made;
}

// Set the text of an element; an equal text is left untouched, so that screen readers do not repeat it.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function facts(pairs) {
  const items = pairs.map(([name, value]) =>
    element("div", { children: [element("dt", { text: name }), element("dd", { text: value })] }));
  return element("dl", { children: items });
}

// Replace the content of an element if it differs.
export function fill(target, ...children) {
  const before = target.innerHTML, made = element("div", { children });
  if (before !== made.innerHTML) target.replaceChildren(...made.childNodes);
}

export function ago(seconds) {
  const past = Math.max(0, Date.now() / 1000 - seconds);
  if (past < 60) return "just now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return new Date(seconds * 1000).toLocaleDateString(undefined, { dateStyle: "medium" });
}
