// Choices of a figure: its axes, smoothing, and the hyperparameters of the plane. Each changes a copy of the figure.

"use strict";
const views = (() => {
  const { element } = parts;
  const SCORE = "(score)";
  const axes = (layout, side) => Object.keys(layout).filter((key) => new RegExp(`^${side}axis\\d*$`).test(key));
  const escaped = (text) => text.replace(/[&<>]/g, (found) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[found]);

  // Make an axis linear or logarithmic.
  function rescale(axis, kind) {
    const isLog = axis.type === "log";
    // Options of a choice and categories have no scale.
    if (axis.type === "category" || (axis.tickvals && !isLog) || isLog === (kind === "log")) return;
    axis.type = kind === "log" ? "log" : "linear";
    axis.minorloglabels = "none";
    for (const key of ["tickvals", "ticktext", "dtick", "rangemode"]) delete axis[key];
    const ends = axis.range?.map(kind === "log" ? Math.log10 : (end) => 10 ** end);
    if (ends?.every(Number.isFinite)) axis.range = ends;
    else delete axis.range;
  }

  // Rounds of the member in place of steps: every point names its state.
  function byRound(data, layout) {
    for (const trace of data) {
      const { customdata, x, meta, line } = trace;
      if (meta?.rounds) Object.assign(trace, meta.rounds);
      else if (customdata) {
        const steps = line?.shape === "hv";
        // In a step curve, a point is where its round begins, and the last of a piece where it ends.
        trace.x = x.map((_, i) => {
          const ref = customdata[i];
          if (!Array.isArray(ref)) return null;
          return steps && Array.isArray(customdata[i + 1]) ? ref[1] - 1 : ref[1];
        });
        if (trace.name === "handed over") trace.x = trace.x.map((round) => round === null ? null : round - 1);
      }
    }
    for (const key of axes(layout, "x")) {
      delete layout[key].range;
      if (layout[key].title) layout[key].title.text = "round of the member";
    }
  }

  // Exponential moving averages along each piece of a line.
  function smooth(data, weight) {
    for (const trace of data) {
      if (!trace.meta?.smooth) continue;
      let mean = null;
      trace.y = trace.y.map((y) => {
        mean = y === null ? null : mean === null ? y : weight * mean + (1 - weight) * y;
        return mean;
      });
    }
  }

  // A hyperparameter, or the score, of the plane.
  function coordinate(name) {
    const { table } = states, at = table.hparams.findIndex((one) => one.name === name);
    if (at < 0) return { title: escaped(table.score), column: table.score_of, place: (found) => (typeof found === "number" ? found : null) };
    const { title, log, flipped, options } = table.hparams[at];
    const place = options.length
      ? (found) => { const i = options.indexOf(found); return i < 0 ? null : i; }
      : (found) => (typeof found !== "number" ? null : flipped ? 1 - found : found);
    return { title: escaped(title), log, flipped, options, column: table.values[at], place };
  }

  function planeAxis(made, frames, side, name) {
    states.load();
    const { title, log, flipped, options = [], column, place } = coordinate(name);
    let low = Infinity, high = -Infinity;
    for (const { data } of frames) {
      for (const part of data) {
        part[side] = (part.customdata ?? []).map(([member, round]) => {
          const row = states.row(member, round), found = row === undefined ? null : place(column[row]);
          if (found !== null && (!log || found > 0)) [low, high] = [Math.min(low, log ? Math.log10(found) : found), Math.max(high, log ? Math.log10(found) : found)];
          return found;
        });
      }
    }
    const room = 0.06 * (high - low) || 0.5;
    const axis = { title: { text: title, standoff: 8 }, zeroline: false, automargin: true, type: log ? "log" : "linear" };
    if (low <= high) axis.range = flipped ? [high + room, low - room] : [low - room, high + room];
    if (options.length) Object.assign(axis, { tickvals: options.map((_, i) => i), ticktext: options.map((one) => escaped(String(one)).slice(0, 40)) });
    return axis;
  }

  // Apply the choices to a copy of a figure. `frames` are replaced, never changed.
  function apply(figure, data, layout, frames) {
    const asked = (name) => choices.get(figure.name, name);
    let shown = frames;
    if (figure.controls.includes("plane") && (asked("x") || asked("y"))) {
      shown = frames.map((frame) => ({ ...frame, data: frame.data.map((part) => ({ ...part })) }));
      const all = shown.length ? shown : [{ data }];
      for (const side of ["x", "y"]) {
        if (asked(side)) layout[`${side}axis`] = planeAxis(figure, all, side, asked(side));
      }
    }
    if (figure.controls.includes("rounds") && asked("along") === "rounds") byRound(data, layout);
    for (const side of ["x", "y"]) {
      const kind = asked(`scale-${side}`);
      if (kind && figure.controls.includes(`scale-${side}`)) for (const key of axes(layout, side)) rescale(layout[key], kind);
    }
    const weight = Number(asked("smooth"));
    if (weight > 0 && weight < 1 && figure.controls.includes("smooth")) smooth(data, weight);
    return shown;
  }

  // A drop-down list with a label.
  function list(figure, name, title, options) {
    const id = `${figure.name}-${name}`;
    const select = element("select", { id, children: options.map(([value, text]) => element("option", { value, text })) });
    select.value = choices.get(figure.name, name) ?? "";
    if (select.selectedIndex < 0) select.selectedIndex = 0;
    select.addEventListener("change", () => figure.choose(name, select.value));
    return element("span", { children: [element("label", { for: id, text: title }), select] });
  }

  const SCALES = [["", "as given"], ["linear", "linear"], ["log", "logarithmic"]];

  function smoother(figure) {
    const id = `${figure.name}-smooth`;
    const input = element("input", { id, type: "range", min: 0, max: 0.95, step: 0.05, value: choices.get(figure.name, "smooth") ?? 0 });
    input.addEventListener("input", () => figure.choose("smooth", Number(input.value) ? input.value : ""));
    return element("span", { children: [element("label", { for: id, text: "smoothing" }), input] });
  }

  function plane(figure, side) {
    states.load();
    const first = figure.axisTitle(side);
    const names = states.table?.hparams.map(({ name }) => [name, name]) ?? [];
    return list(figure, side, side === "x" ? "x" : "y", [["", first], ...names, [SCORE, "score"]]);
  }

  // The controls of a figure, and its downloads.
  function controls(figure) {
    const has = (name) => figure.controls.includes(name);
    const saved = (format) => {
      const button = element("button", { type: "button", text: format.toUpperCase(), "aria-label": `Save ${figure.title} as ${format.toUpperCase()}` });
      button.addEventListener("click", () => figure.save(format));
      return button;
    };
    return [
      has("plane") && plane(figure, "x"), has("plane") && plane(figure, "y"),
      has("rounds") && list(figure, "along", "along", [["", "lineage steps"], ["rounds", "rounds"]]),
      has("scale-x") && list(figure, "scale-x", "x axis", SCALES),
      has("scale-y") && list(figure, "scale-y", "y axis", SCALES),
      has("smooth") && smoother(figure),
      element("span", { class: "saves", children: [saved("png"), saved("svg")] }),
    ].filter(Boolean);
  }

  return { apply, controls };
})();
