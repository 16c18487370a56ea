// One run: the texts, figures and tables of its report, updated in place so that nothing jumps.

/* global parts, figures, states, tables */

const { element, facts, fill, setText } = parts;
const main = document.getElementById("run");
let shownKey = null;

export function clear(...children) {
  figures.forgetAll();
  shownKey = null;
  main.replaceChildren(...children);
}

export function problem(title, text) {
  clear(
    element("header", { children: [element("h1", { text: title })] }),
    element("p", { class: "problem", role: "alert", text }),
  );
}

// The note and the tags, which are no part of the run's version.
export function note({ note = "", tags = [] }) {
  const place = main.querySelector("#note");
  if (place === null) return;
  place.hidden = !note && !tags.length;
  fill(place, ...tags.map((tag) => element("span", { class: "tag", text: `#${tag}` })), element("span", { text: note }));
}

export function show(key, run) {
  if (run.problem) return problem(run.title, run.problem);
  if (shownKey !== key) {
    clear(...frame());
    shownKey = key;
  }
  const at = (id) => main.querySelector(`#${id}`);
  setText(at("title"), run.title);
  setText(at("lead"), run.lead);
  fill(at("results"), facts(run.results));
  at("advice").hidden = !(run.warnings.length || run.praise);
  fill(at("advice-text"), run.warnings.length ? warnings(run.warnings) : element("p", { text: run.praise }));
  const links = [...run.sections, ...(run.members ? [{ name: "members", title: "Members" }] : [])];
  fill(at("contents"), element("ol", { children: links.map(link) }));
  at("contents").hidden = links.length === 0;
  states.use(run.parts.states);
  sections(at("sections"), run);
  at("members").hidden = !run.members;
  setText(at("members-shows"), run.members);
  if (run.members && at("members").numbers !== run.parts.members) {
    at("members").numbers = run.parts.members;
    tables.members(at("members-table"), run.parts.members);
  }
  fill(at("setting-facts"), facts(run.setting));
  fill(at("environment-facts"), run.environment.length ? facts(run.environment) : element("p", { text: "Not recorded." }));
}

function frame() {
  const titled = (id, text, inner) => element("section", {
    id, "aria-labelledby": `${id}-title`,
    children: [element("h2", { id: `${id}-title`, text }), element("div", { id: inner })],
  });
  const advice = titled("advice", "Warnings", "advice-text");
  return [
    element("header", { children: [element("h1", { id: "title" }), element("p", { id: "lead" }), element("p", { id: "note", hidden: true })] }),
    element("section", { id: "results", "aria-label": "Results" }),
    advice,
    element("nav", { id: "contents", "aria-label": "Figures" }),
    element("div", { id: "sections" }),
    element("section", { id: "members", "aria-labelledby": "members-title", children: [
      element("h2", { id: "members-title", text: "Members" }), element("p", { class: "shows", id: "members-shows" }),
      element("div", { id: "members-table" })] }),
    titled("setting", "Settings", "setting-facts"),
    titled("environment", "Environment", "environment-facts"),
  ];
}

function link({ name, title }) {
  return element("li", { children: [element("a", { href: `#${name}`, text: title })] });
}

function warnings(found) {
  const items = found.map(({ figure, title, text }) =>
    element("li", { children: [`${text} `, element("a", { href: `#${figure}`, text: title })] }));
  return element("ul", { children: items });
}

function sections(place, run) {
  const wanted = run.sections.map(({ name }) => name);
  for (const old of [...place.children]) {
    if (wanted.includes(old.id)) continue;
    figures.forget(old.id);
    old.remove();
  }
  run.sections.forEach((one, i) => {
    let target = place.querySelector(`:scope > #${one.name}`);
    // The section of a figure that could not be drawn before has no element for it yet.
    if (target === null || Boolean(target.querySelector(".figure")) !== one.drawn) {
      figures.forget(one.name);
      target?.remove();
      target = section(one);
      place.insertBefore(target, place.children[i] ?? null);
    }
    update(target, one);
    if (one.drawn) figures.show(one.name, target, run.figures[one.name]);
  });
}

function section({ name, title, drawn }) {
  const children = [element("h2", { id: `${name}-title`, text: title }), element("p", { class: "shows", id: `${name}-shows` })];
  if (drawn) {
    const table = element("details", { children: [element("summary"), element("div", { class: "table", tabindex: 0, role: "region" })] });
    table.addEventListener("toggle", () => rows(table));
    children.push(
      element("div", { class: "figure", role: "img", "aria-labelledby": `${name}-title ${name}-shows` }),
      element("div", { class: "slider" }), element("div", { class: "controls" }),
      element("p", { class: "how" }), element("p", { class: "note", hidden: true }), table,
    );
  }
  return element("section", { id: name, "aria-labelledby": `${name}-title`, children });
}

function update(target, one) {
  setText(target.querySelector(".shows"), one.shows);
  if (!one.drawn) return;
  setText(target.querySelector(".how"), one.how);
  const note = target.querySelector(".note"), table = target.querySelector("details");
  note.hidden = !one.note;
  setText(note, one.note);
  table.hidden = !one.table;
  if (!one.table) return;
  table.numbers = one.table;
  setText(table.querySelector("summary"), one.table.summary);
  table.querySelector(".table").setAttribute("aria-label", `Data: ${one.title}`);
  rows(table);
}

// The rows are created only while the table is open.
function rows(table) {
  if (!table.open || table.made === table.numbers) return;
  table.made = table.numbers;
  const { head, rows } = table.numbers;
  const line = (tag, cells, more) => element("tr", { children: cells.map((text) => element(tag, { text, ...more })) });
  const made = element("table", {
    children: [
      element("thead", { children: [line("th", head, { scope: "col" })] }),
      element("tbody", { children: rows.map((cells) => line("td", cells)) }),
    ],
  });
  table.querySelector(".table").replaceChildren(made);
}
