// Elements with text content, shared by the report and the dashboard. Names of runs and all their values are inserted
// as text, never as HTML.

"use strict";
const parts = {
  element(tag, { text, children = [], ...attributes } = {}) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    if (text !== undefined) made.textContent = text;
    made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return made;
  },

  // Set the text of an element; an equal text is left untouched, so that screen readers do not repeat it.
  setText(target, text) {
    if (target.textContent !== text) target.textContent = text;
  },

  facts(pairs) {
    const { element } = parts;
    const items = pairs.map(([name, value]) =>
      element("div", { children: [element("dt", { text: name }), element("dd", { text: value })] }));
    return element("dl", { children: items });
  },

  // Replace the content of an element if it differs.
  fill(target, ...children) {
    const before = target.innerHTML, made = parts.element("div", { children });
    if (before !== made.innerHTML) target.replaceChildren(...made.childNodes);
  },

  // A value as text; numbers with at most six significant digits.
  value(found) {
    if (found === null || found === undefined) return "–";
    if (typeof found !== "number" || Number.isInteger(found)) return String(found);
    const size = Math.abs(found);
    return size >= 1e6 || (size > 0 && size < 1e-4) ? found.toExponential(3).replace("e+", "e") : String(Number(found.toPrecision(6)));
  },

  ago(seconds) {
    const past = Math.max(0, Date.now() / 1000 - seconds);
    if (past < 60) return "just now";
    if (past < 3600) return `${Math.floor(past / 60)} min ago`;
    if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
    return new Date(seconds * 1000).toLocaleDateString(undefined, { dateStyle: "medium" });
  },

  // A table; `head` and the cells of `rows` are texts or elements.
  table(head, rows, label) {
    const { element } = parts;
    const isText = (cell) => cell instanceof Node || !/^[-–+\d]|^$/.test(cell);
    const kinds = head.map((_, i) => (rows.some((cells) => isText(cells[i])) ? "text" : null));
    const line = (tag, cells, more) => element("tr", {
      children: cells.map((cell, i) => element(tag, { class: kinds[i], ...(cell instanceof Node ? { children: [cell] } : { text: cell }), ...more })),
    });
    const made = element("table", {
      children: [
        element("thead", { children: [line("th", head, { scope: "col" })] }),
        element("tbody", { children: rows.map((cells) => line("td", cells)) }),
      ],
    });
    return element("div", { class: "table", tabindex: 0, role: "region", "aria-label": label, children: [made] });
  },

  // Offer a text as a file.
  save(name, type, text) {
    const link = parts.element("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  },
};
