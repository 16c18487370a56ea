// Several runs in one figure: the best score so far, the median of the population, and the schedules of the best states.

/* global parts, figures */

const { element } = parts;
const COLORS = ["#2f86c5", "#d55e00", "#1a9850", "#a05195", "#b8860b", "#17a2a2", "#e0569b", "#6b7280"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const PANEL = 170, GAP = 46;
const escaped = (text) => text.replace(/[&<>]/g, (found) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[found]);

// A color per group: a run, or all runs of a plan; further groups differ in their dashes.
function styles(runs) {
  const groups = [...new Set(runs.map(({ group }) => group))];
  return new Map(groups.map((group, i) => [group, { color: COLORS[i % COLORS.length], dash: DASHES[Math.floor(i / COLORS.length) % DASHES.length] }]));
}

function line(run, { steps, rounds }, style, seen, more) {
  const first = !seen.has(run.group);
  seen.add(run.group);
  return {
    type: "scatter", mode: steps[0].length === 1 ? "markers" : "lines", name: escaped(run.group), legendgroup: run.group, showlegend: first,
    x: steps[0], y: steps[1], text: steps[0].map((x, i) => `${run.name}\n${parts.value(steps[1][i])} at step ${parts.value(x)}`),
    line: { width: 1.8, ...style, ...more.line }, meta: { rounds: { x: rounds[0], y: rounds[1] }, ...more.meta }, ...more.trace,
  };
}

const axis = (title) => ({ title: { text: title, standoff: 8 }, zeroline: false, automargin: true });
const STEPS = "training steps in the state (lineage steps)";

function heading(title, runs) {
  return { text: `<b>${title}</b>`, subtitle: { text: escaped(runs.map(({ name }) => name).join(" · ")).slice(0, 140), font: { size: 12 } },
    x: 0.01, xanchor: "left", y: 0.99, yref: "container", yanchor: "top", font: { size: 15 } };
}

const base = (height) => ({
  height, margin: { l: 60, r: 20, t: 96, b: 52 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  hovermode: "closest", hoverdistance: 60, legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom" },
});

// The figure of one kind of score.
function scores(runs, which, title, controls) {
  const look = styles(runs), seen = new Set();
  const more = { line: which === 0 ? { shape: "hv" } : {}, meta: { smooth: which === 1 }, trace: {} };
  const data = runs.filter((run) => run.scores[which]).map((run) => line(run, run.scores[which], look.get(run.group), seen, more));
  const names = [...new Set(runs.map(({ score }) => score))];
  const y = axis(escaped(names.join(", ")));
  if (runs.every(({ log }) => log)) y.type = "log";
  return { data, layout: { ...base(488), title: heading(title, runs), xaxis: axis(STEPS), yaxis: y, meta: { head: 48, controls } } };
}

function schedules(runs) {
  const look = styles(runs), seen = new Set(), data = [], layout = {};
  const names = [...new Set(runs.flatMap((run) => run.schedules.map(({ name }) => name)))].slice(0, 12);
  const inner = names.length * PANEL + (names.length - 1) * GAP;
  const notes = [];
  names.forEach((name, i) => {
    const key = i === 0 ? "" : String(i + 1), top = 1 - i * (PANEL + GAP) / inner;
    const found = runs.map((run) => [run, run.schedules.find((one) => one.name === name)]).filter(([, one]) => one);
    const [, { title, log, flipped, options }] = found[0];
    const y = { ...axis(""), domain: [Math.max(0, top - PANEL / inner), top] };
    if (log) y.type = "log";
    if (flipped) y.autorange = "reversed";
    if (options.length) Object.assign(y, { tickvals: options.map((_, j) => j), ticktext: options.map((one) => escaped(String(one)).slice(0, 14)) });
    layout[`yaxis${key}`] = y;
    notes.push({ text: `<b>${escaped(title)}</b>`, showarrow: false, xref: "paper", x: 0, xanchor: "left", yref: "paper", y: top, yanchor: "bottom" });
    for (const [run, one] of found) {
      data.push(line(run, { steps: [one.x, one.y], rounds: [one.rounds, one.y] }, look.get(run.group), seen,
        { line: { shape: "hv" }, meta: {}, trace: { yaxis: `y${key}` } }));
    }
  });
  if (!names.length) return null;
  return { data, layout: { ...base(inner + 164), ...layout, title: heading("Schedules of the best states", runs), annotations: notes,
    xaxis: { ...axis(STEPS), anchor: names.length === 1 ? "y" : `y${names.length}` },
    legend: { orientation: "h", x: 1, xanchor: "right", y: 1 + 18 / inner, yanchor: "bottom" },
    meta: { head: 48, controls: ["rounds", "scale-x", "scale-y"] } } };
}

const KINDS = [
  ["overlay-best", "Best score so far", (runs) => scores(runs, 0, "Best score so far", ["rounds", "scale-x", "scale-y"])],
  ["overlay-median", "Median of the population", (runs) => scores(runs, 1, "Median of the population", ["rounds", "scale-x", "scale-y", "smooth"])],
  ["overlay-schedules", "Schedules of the best states", schedules],
];

// Show the runs in a place; `runs` have name, group, score, log, scores and schedules.
export function show(place, runs) {
  const drawn = runs.filter((run) => run.scores.length);
  for (const [name, title, make] of KINDS) {
    const made = drawn.length ? make(drawn) : null;
    let section = place.querySelector(`#${name}`);
    if (made === null) {
      figures.forget(name);
      section?.remove();
      continue;
    }
    const shows = `${drawn.length === 1 ? "1 run" : `${drawn.length} runs`}: ${drawn.map((run) => run.name).join(", ")}.`;
    if (section === null) {
      section = element("section", { id: name, "aria-labelledby": `${name}-title`, children: [
        element("h2", { id: `${name}-title`, text: title }), element("p", { class: "shows", id: `${name}-shows` }),
        element("div", { class: "figure", role: "img", "aria-labelledby": `${name}-title ${name}-shows` }),
        element("div", { class: "slider" }), element("div", { class: "controls" })] });
      place.append(section);
    }
    parts.setText(section.querySelector(".shows"), shows);
    figures.show(name, section, made);
  }
}
