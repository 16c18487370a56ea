// Elements with texts in them. Names of runs and of everything in them are texts, never HTML.

export function element(tag, { text, children = [], ...attributes } = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  if (text !== undefined) made.textContent = text;
  made.append(...children.filter(Boolean));
  return made;
}

// Say something in an element; nothing is touched where it says so already, so that nobody is told twice.
export function say(there, text) {
  if (there.textContent !== text) there.textContent = text;
}

export function facts(pairs) {
  const items = pairs.map(([name, value]) =>
    element("div", { children: [element("dt", { text: name }), element("dd", { text: value })] }));
  return element("dl", { children: items });
}

// Exchange the contents of an element, if they are others.
export function fill(there, ...children) {
  const before = there.innerHTML, made = element("div", { children });
  if (before !== made.innerHTML) there.replaceChildren(...made.childNodes);
}

export function ago(seconds) {
  const past = Math.max(0, Date.now() / 1000 - seconds);
  if (past < 60) return "just now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return new Date(seconds * 1000).toLocaleDateString(undefined, { dateStyle: "medium" });
}
