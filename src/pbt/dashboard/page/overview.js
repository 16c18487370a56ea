// All runs of the folder: what they compare, a table, and the chosen runs laid over each other.

/* global parts, choices, figures, tables */

import * as overlay from "./overlay.js";
import { clear } from "./run.js";

const { ago, element, fill, setText } = parts;
const main = document.getElementById("run");
const MOST = 24; // runs in one figure
const CHANGED = 7;
const HEAD = ["overlay", "run", "state", "round", "of", "members", "best", "changed", "tags", "note"];

const series = new Map(); // by key: the version and the lines of a run
let table = null;
let listed = null;
let asked = 0;

const chosen = () => (choices.get("runs", "overlay") ?? "").split(".").filter(Boolean);

function defaults({ runs, comparison }) {
  if (!comparison) return [];
  // One seed of each plan.
  const first = new Map();
  for (const run of [...runs].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }))) {
    const plan = comparison.runs[run.name]?.[0] ?? run.name;
    if (!first.has(plan)) first.set(plan, run.key);
  }
  return [...first.values()].slice(0, MOST);
}

function keys() {
  return choices.get("runs", "overlay") === null ? defaults(listed) : chosen();
}

function choose(key, isChosen) {
  const others = keys().filter((one) => one !== key);
  const next = isChosen ? [...others, key].slice(-MOST) : others;
  choices.set("runs", "overlay", next.join(".") || "none");
  rows();
  draw();
}

function frame() {
  clear(
    element("header", { children: [element("h1", { id: "title" }), element("p", { id: "lead" })] }),
    element("section", { id: "comparison", "aria-label": "Results of the comparison", hidden: true }),
    element("section", { id: "all", "aria-labelledby": "all-title", children: [
      element("h2", { id: "all-title", text: "Runs" }), element("div", { id: "runs-table" })] }),
    element("div", { id: "overlays" }),
    element("section", { id: "comparisons", "aria-labelledby": "comparisons-title", hidden: true }),
  );
  const place = main.querySelector("#runs-table");
  const none = element("button", { type: "button", text: "Clear overlay" });
  none.addEventListener("click", () => {
    choices.set("runs", "overlay", "none");
    rows();
    draw();
  });
  table = new tables.Table(place, {
    scope: "runs", label: "runs", status: 2, sorted: [1, false], file: () => "runs", extra: [none], hidden: [0],
    cell: (i, found, row) => {
      if (i === 0) {
        const box = element("input", { type: "checkbox", "aria-label": `Overlay ${row[1]}` });
        box.checked = found === "yes";
        box.addEventListener("change", () => choose(row.key, box.checked));
        return box;
      }
      if (i === 1) return element("a", { href: `/run/${row.key}`, text: found });
      if (i === CHANGED && found) return element("time", { datetime: found, text: ago(Date.parse(found) / 1000) });
      return undefined;
    },
  });
}

function rows() {
  const now = new Set(keys());
  table.set({
    head: HEAD,
    rows: listed.runs.map((run) => Object.assign([
      now.has(run.key) ? "yes" : "no", run.name, run.state, run.rounds, run.asked, run.members, run.best_score,
      run.changed ? new Date(run.changed * 1000).toISOString() : null, run.tags.map((tag) => `#${tag}`).join(" "), run.note || run.problem], { key: run.key })),
  });
}

function outcome({ sentences, head, rows }, label) {
  const texts = sentences ?? ["The comparison is not finished; its results appear when all runs have ended."];
  return [...texts.map((text) => element("p", { class: "shows", text })), rows ? parts.table(head, rows, label) : ""];
}

function results({ comparison }) {
  const place = main.querySelector("#comparison");
  place.hidden = !comparison;
  if (comparison) fill(place, element("h2", { text: "Results" }), ...outcome(comparison, "Results by plan"));
}

// The comparisons in the folder, whose runs a dashboard of their own shows.
function others({ comparisons, name: folder }) {
  const place = main.querySelector("#comparisons");
  place.hidden = !comparisons.length;
  fill(place, element("h2", { id: "comparisons-title", text: "Comparisons in this folder" }), ...comparisons.flatMap((one) => [
    element("h3", { text: one.task ? `${one.name}: ${one.task}` : one.name }), ...outcome(one, `Results of ${one.name}`),
    element("p", { children: [`${one.runs} runs, shown by `, element("code", { text: `pbt dashboard ${folder}/${one.name}` })] }),
  ]));
}

// Read the lines of the chosen runs that have changed, then draw them all.
async function draw() {
  const mine = ++asked, wanted = listed.runs.filter(({ key }) => keys().includes(key));
  await Promise.all(wanted.map(async ({ key, version }) => {
    if (series.get(key)?.version === version) return;
    const answer = await fetch(`/api/run/${key}/series`, { cache: "no-store" });
    if (answer.ok) series.set(key, { version, lines: await answer.json() });
  }));
  const place = main.querySelector("#overlays");
  if (mine !== asked || place === null) return;
  const plan = (name) => listed.comparison?.runs[name]?.[0];
  overlay.show(place, wanted.filter(({ key }) => series.has(key)).map(({ key, name }) => ({ name, group: plan(name) ?? name, ...series.get(key).lines })));
}

export function show(found) {
  listed = found;
  if (main.querySelector("#runs-table") === null) frame();
  const { comparison, name, runs } = found;
  setText(main.querySelector("#title"), comparison ? `Comparison ${name}` : `Runs in ${name}`);
  const amount = runs.length === 1 ? "1 run" : `${runs.length} runs`;
  const plans = comparison && new Set(Object.values(comparison.runs).map(([plan]) => plan)).size;
  setText(main.querySelector("#lead"), comparison
    ? `${comparison.task ? `${comparison.task}: ` : ""}${plans} plans, ${amount}. Choose runs in the table to lay them over each other.`
    : `${amount}. Choose two or more in the table to lay them over each other.`);
  results(found);
  others(found);
  rows();
  draw().catch((error) => console.info("the lines of a run could not be read:", error.message));
}
