// The label at the mouse: the state, the line or the cell below it. Also the table of states behind it.

"use strict";
const states = {
  table: null,
  rows: null,
  failed: null,
  // The table, or a function that returns it.
  use(table) {
    if (table === states.source) return;
    states.source = table;
    states.table = states.rows = null;
  },
  load() {
    if (states.rows || !states.source) return;
    const table = states.table = typeof states.source === "function" ? states.source() : states.source;
    states.rows = new Map(table.member.map((member, i) => [states.key(member, table.round[i]), i]));
    states.failed = new Map(table.failures.map(([member, round, message]) => [states.key(member, round), message]));
  },
  key: (member, round) => member * 0x4000000 + round,
  row(member, round) {
    states.load();
    return states.rows?.get(states.key(member, round));
  },
};

const hover = (() => {
  const { element, value } = parts;
  const KINDS = { explore: ", hyperparameters changed", replace: ", replaced after a failure", exploit: ", copied" };
  let label = null;
  let top = 0;

  // Where a state came from.
  function origin(table, row) {
    const start = table.start[row], kind = table.kinds[table.kind[row]], member = table.member[row];
    if (start === null) return kind === "born" ? "from birth" : "freshly built";
    const from = start === 0 ? `from its own round ${table.round[row] - 1}` : `from member ${start[0]}, round ${start[1]}`;
    return from + (start !== 0 && start[0] !== member && kind === "continue" ? ", copied" : KINDS[kind] ?? "");
  }

  // The lines about a state.
  function about(member, round, point) {
    if (round === 0) return [`member ${member}`, "birth, before any training"];
    const row = states.row(member, round), table = states.table;
    const head = `member ${member}, round ${round}`;
    if (row === undefined) {
      const failure = states.failed?.get(states.key(member, round));
      if (failure) return [head, `failed: ${failure}`];
      return [head, `${value(point.y)} at step ${value(point.x)}`];
    }
    const lines = [head, `step ${table.step[row].toLocaleString("en")} · ${table.score} ${value(table.score_of[row])}`];
    table.hparams.slice(0, 14).forEach(({ name }, i) => {
      const found = table.values[i][row];
      if (found !== null) lines.push(`${name} ${value(found)}`);
    });
    lines.push(origin(table, row));
    return lines;
  }

  function lines(point, at) {
    const { customdata, data } = point;
    // Inside an area the mouse is between its points.
    if (point.y === undefined && at !== undefined) return lines(nearest(data, at));
    if (Array.isArray(customdata)) {
      const found = about(customdata[0], customdata[1], point);
      return data.meta?.ties ? [...found, ...ties(data, point)] : found;
    }
    if (typeof customdata === "number") return [`member ${customdata}`, `round in progress: ${value(point.y)} at step ${value(point.x)}`];
    if (data.type === "heatmap") return [`donor ${point.y}, copied by ${point.x}`, String(point.text ?? point.z)];
    if (point.text) return String(point.text).split("\n");
    const along = point.xaxis?.title?.text?.includes("round") ? "round" : "step";
    return [data.name, `${value(point.y)} at ${along} ${value(point.x)}`];
  }

  function nearest(data, at) {
    const i = data.x.reduce((best, x, j) => (Math.abs(x - at) < Math.abs(data.x[best] - at) ? j : best), 0);
    return { data, x: data.x[i], y: data.y[i], customdata: data.customdata?.[i] };
  }

  // The other members at the same place.
  function ties(data, { pointNumber, x, y, customdata }) {
    const others = data.x.flatMap((one, i) => (i !== pointNumber && one === x && data.y[i] === y ? [data.customdata[i][0]] : []))
      .filter((member) => member !== customdata[0]);
    return others.length ? [`same values: member ${others.slice(0, 8).join(", ")}${others.length > 8 ? ", …" : ""}`] : [];
  }

  function show({ points: [point], event, xvals }) {
    if (!point) return;
    label ??= document.body.appendChild(element("div", { id: "label", "aria-hidden": "true" }));
    label.replaceChildren(...lines(point, xvals?.[0]).map((text, i) => element(i ? "span" : "b", { text })));
    label.hidden = false;
    top = window.scrollY;
    const { width, height } = label.getBoundingClientRect();
    const left = event.clientX + 16 + width > window.innerWidth ? event.clientX - 16 - width : event.clientX + 16;
    const down = Math.min(event.clientY + 12, window.innerHeight - height - 8);
    label.style.left = `${Math.max(4, left)}px`;
    label.style.top = `${Math.max(4, down)}px`;
  }

  function hide() {
    if (label) label.hidden = true;
  }

  // The member below the mouse; undefined where there is none.
  function memberAt({ points: [point] }) {
    const found = Array.isArray(point?.customdata) ? point.customdata[0] : point?.customdata;
    if (typeof found === "number") return found;
    return point?.data.type === "heatmap" && /^\d+$/.test(point.x) ? Number(point.x) : undefined;
  }

  // The event of a scroll that has ended may come after the label.
  window.addEventListener("scroll", () => { if (Math.abs(window.scrollY - top) > 2) hide(); }, { passive: true });
  return { show, hide, lines, about, memberAt };
})();
