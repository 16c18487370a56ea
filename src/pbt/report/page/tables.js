// Tables that can be sorted, searched, filtered by status, and saved as CSV.

/* global parts, choices, member */

"use strict";
const tables = (() => {
  const { element, value } = parts;
  const STEP = 200; // rows at a time

  // A text that a spreadsheet takes for a formula gets an apostrophe in front.
  const FORMULA = /^[=+\-@\t\r]/;
  function csvCell(found) {
    if (found === null || found === undefined) return "";
    if (typeof found === "number") return String(found);
    const text = FORMULA.test(found) ? `'${found}` : String(found);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }
  const csv = (head, rows) => [head, ...rows].map((cells) => cells.map(csvCell).join(",")).join("\r\n") + "\r\n";

  const empty = (found) => found === null || found === undefined || found === "";
  function compare(a, b) {
    if (empty(a) || empty(b)) return null;
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  class Table {
    // A table in a place.
    //   scope: its name in the address. label: for screen readers. file: the name of its CSV file.
    //   status: the column to filter by. cell: an element for a cell, or undefined for its text.
    //   hidden: columns that are not saved.
    //   sorted: [column, descending] at first.
    constructor(place, { scope, label, file, status, cell, sorted, extra = [], hidden = [] }) {
      Object.assign(this, { place, scope, label, file, status, cell, sorted, hidden });
      this.head = [];
      this.rows = [];
      this.shown = STEP;
      this.found = [];
      const id = (part) => `${scope}-${part}`;
      this.search = element("input", { id: id("search"), type: "search", value: choices.get(scope, "search") ?? "" });
      this.filter = element("select", { id: id("status") });
      this.count = element("output", { for: `${id("search")} ${id("status")}` });
      const save = element("button", { type: "button", text: "CSV", "aria-label": `Save the shown rows of ${label} as CSV` });
      this.body = element("tbody");
      this.header = element("tr");
      this.more = element("button", { type: "button", text: "Show more", hidden: true });
      this.search.addEventListener("input", () => this.#asked("search", this.search.value));
      this.filter.addEventListener("change", () => this.#asked("status", this.filter.value));
      save.addEventListener("click", () => parts.save(`${file()}.csv`, "text/csv", this.#csv()));
      this.more.addEventListener("click", () => {
        this.shown += STEP;
        this.#draw();
      });
      place.replaceChildren(
        element("div", { class: "controls", children: [
          element("span", { children: [element("label", { for: this.search.id, text: "search" }), this.search] }),
          element("span", { children: [element("label", { for: this.filter.id, text: "status" }), this.filter] }),
          this.count, ...extra, element("span", { class: "saves", children: [save] })] }),
        element("div", { class: "table", tabindex: 0, role: "region", "aria-label": label, children: [
          element("table", { children: [element("thead", { children: [this.header] }), this.body] })] }),
        this.more,
      );
    }

    // The rows that are found, without columns that are only controls.
    #csv() {
      const kept = (cells) => cells.filter((_, i) => !this.hidden.includes(i));
      return csv(kept(this.head), this.found.map(kept));
    }

    #asked(name, text) {
      choices.set(this.scope, name, text);
      this.shown = STEP;
      this.#draw();
    }

    // Replace the rows; the reader's order, search and filter stay.
    set({ head, rows }) {
      const isNew = head.join("\n") !== this.head.join("\n");
      this.head = head;
      this.rows = rows;
      const known = [...new Set(rows.map((row) => row[this.status]))].sort();
      const asked = choices.get(this.scope, "status") ?? "";
      this.filter.replaceChildren(element("option", { value: "", text: "all" }), ...known.map((text) => element("option", { value: text, text })));
      this.filter.value = known.includes(asked) ? asked : "";
      if (isNew) this.#head();
      this.#draw();
    }

    get #order() {
      const asked = /^(-?)(\d+)$/.exec(choices.get(this.scope, "sort") ?? "");
      return asked && Number(asked[2]) < this.head.length ? [Number(asked[2]), asked[1] === "-"] : this.sorted;
    }

    #head() {
      this.header.replaceChildren(...this.head.map((text, i) => {
        const button = element("button", { type: "button", class: "link", text });
        button.addEventListener("click", () => {
          const [column, down] = this.#order;
          this.#asked("sort", column === i && !down ? `-${i}` : String(i));
        });
        return element("th", { scope: "col", children: [button] });
      }));
    }

    #draw() {
      const [column, down] = this.#order, words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.found = this.rows.filter((row) => {
        if (this.filter.value && row[this.status] !== this.filter.value) return false;
        const text = row.map((found) => value(found)).join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      });
      // Rows without a value are last in both directions.
      this.found.sort((a, b) => {
        const order = compare(a[column], b[column]);
        return order === null ? empty(a[column]) - empty(b[column]) : down ? -order : order;
      });
      const kinds = this.head.map((_, i) => (this.rows.some((row) => typeof row[i] === "string") ? "text" : null));
      [...this.header.children].forEach((cell, i) => {
        cell.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending");
        cell.className = kinds[i] ?? "";
      });
      parts.setText(this.count, `${this.found.length.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")}`);
      this.body.replaceChildren(...this.found.slice(0, this.shown).map((row) => element("tr", {
        children: row.map((found, i) => {
          const made = this.cell?.(i, found, row);
          return element("td", { class: kinds[i], ...(made ? { children: [made] } : { text: value(found) }) });
        }),
      })));
      this.more.hidden = this.found.length <= this.shown;
    }
  }

  // The members of a run: a click on one opens its panel.
  function members(place, { head, rows }) {
    place.members ??= new Table(place, {
      scope: "members", label: "members", status: 1, sorted: [0, false],
      file: () => `${look.fileName(document.querySelector("h1")?.textContent)}-members`,
      cell: (i, found) => {
        if (i !== 0) return undefined;
        const link = element("button", { type: "button", class: "link", text: String(found), "aria-label": `Open member ${found}` });
        link.addEventListener("click", () => member.open(found));
        return link;
      },
    });
    place.members.set({ head, rows });
  }

  return { Table, members, csv };
})();
