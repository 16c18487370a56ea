// The figures: drawn when they become visible, redrawn after changes, with the user's zoom and choices kept.

/* global Plotly, look */

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const figures = new Map();
const PAPER = { autosize: false, width: 700 }; // A4 or letter paper within its margins
const SCREEN = { autosize: true, width: null };

// Layout keys that zooming and panning change: the range of an axis, or one end of it.
const RANGE = /^([xy]axis\d*)\.range(?:\[[01]\])?$/;
const ALL = "all";

const axes = (layout) => Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));

class Figure {
  constructor(name, place, made) {
    this.name = name;
    this.place = place;
    this.div = place.querySelector(".figure");
    this.made = made;
    // The ranges chosen by the user. plotly.js would discard them when the figure's own range changes in the next
    // round, and a double-click would restore the range of the first round.
    this.zoomed = new Map();
    this.resets = 0;
    this.round = null;
    this.seen = false;
    this.fresh = false;
    this.drawing = Promise.resolve();
    this.slider = made.frames?.length ? this.#slider() : null;
  }

  // Replace the figure; it is drawn now only if it is visible.
  set(made) {
    // The server sends a figure again only if it has changed.
    if (made === this.made) return;
    this.made = made;
    this.fresh = false;
    if (this.seen) this.draw();
  }

  // Draw after the previous drawing has finished: plotly.js must not draw a figure twice at the same time.
  draw() {
    this.fresh = true;
    this.drawing = this.drawing.then(() => this.#draw()).catch((error) => console.error(error));
    return this.drawing;
  }

  async #draw() {
    if (!this.div.isConnected) return;
    const { data, layout, frames } = structuredClone(this.made);
    const begun = this.div.classList.contains("js-plotly-plot");
    // Name each trace, so that its visibility set by the legend is kept when other traces come before it.
    const names = new Map();
    for (const trace of data) {
      // Letters and digits only: the name becomes part of a CSS selector.
      const name = `${trace.yaxis ?? "y"}-${trace.name ?? ""}`.replace(/[^A-Za-z0-9]+/g, "-"), count = names.get(name) ?? 0;
      names.set(name, count + 1);
      trace.uid = `${name}-${count}`;
    }
    if (frames?.length) {
      delete layout.sliders;
      this.#frame(data, frames);
    }
    look.fit(data, layout, this.div.clientWidth);
    for (const axis of axes(layout)) layout[axis].uirevision = this.resets;
    for (const [axis, range] of this.zoomed) {
      if (range === ALL) delete layout[axis].range;
      else Object.assign(layout[axis], { range, autorange: false });
    }
    await Plotly.react(this.div, data, { ...layout, template: look.template(dark.matches), uirevision: this.name },
      { ...look.config(this.name), displayModeBar: false, doubleClick: false });
    if (begun) return;
    // An invisible element in which plotly.js measures texts, hidden from screen readers.
    document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
    this.div.on("plotly_relayout", (changes) => this.#zoom(changes));
    this.div.on("plotly_doubleclick", () => this.#back());
  }

  resize(size, isDark) {
    this.drawing = this.drawing.then(() => Plotly.relayout(this.div, { template: look.template(isDark), ...size }))
      .catch((error) => console.error(error));
  }

  #zoom(changes) {
    for (const key of Object.keys(changes)) {
      const axis = RANGE.exec(key)?.[1];
      const now = axis && this.div.layout[axis];
      if (now?.range) this.zoomed.set(axis, [...now.range]);
    }
  }

  // Reset a zoomed figure to its own ranges, and a figure that is not zoomed to all of its data.
  #back() {
    const { layout } = this.made;
    if (this.zoomed.size) this.zoomed.clear();
    else for (const axis of axes(layout)) if (layout[axis].range && !layout[axis].fixedrange) this.zoomed.set(axis, ALL);
    this.resets += 1;
    setTimeout(() => this.draw(), 0);
  }

  #frame(data, frames) {
    const last = frames.length - 1, { input, output } = this.slider;
    let at = last;
    if (this.round !== null) {
      // In a long run not every round has a frame; the nearest one is shown.
      const gap = (frame) => Math.abs(Number(frame.name) - this.round);
      at = frames.reduce((best, frame, i) => (gap(frame) < gap(frames[best]) ? i : best), 0);
    }
    input.max = last;
    input.value = at;
    const label = `after round ${frames[at].name}` + (at === last ? ", the last" : "");
    input.setAttribute("aria-valuetext", label);
    output.textContent = label;
    frames[at].data.forEach((part, i) => {
      data[i] = { ...data[i], ...part, marker: { ...data[i].marker, ...part.marker } };
    });
  }

  #slider() {
    const id = `slider-${this.name}`, place = this.place.querySelector(".slider");
    const label = document.createElement("label"), input = document.createElement("input");
    const output = document.createElement("output");
    label.textContent = "Round";
    label.htmlFor = output.htmlFor = id;
    Object.assign(input, { type: "range", id, min: 0, max: this.made.frames.length - 1, step: 1 });
    input.addEventListener("input", () => {
      const at = Number(input.value), frames = this.made.frames;
      this.round = at === frames.length - 1 ? null : Number(frames[at].name);
      this.draw();
    });
    place.replaceChildren(label, input, output);
    return { input, output };
  }
}

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const figure = figures.get(target.dataset.figure);
    if (figure === undefined || figure.place !== target) continue;
    figure.seen = isIntersecting;
    if (isIntersecting && !figure.fresh) figure.draw();
  }
}, { rootMargin: "400px" });

// Show a figure in its section, which has a .figure element, and a .slider element if there are frames.
export function show(name, place, made) {
  const known = figures.get(name);
  if (known?.place === place && Boolean(known.slider) === Boolean(made.frames?.length)) return known.set(made);
  if (known) forget(name);
  figures.set(name, new Figure(name, place, made));
  place.dataset.figure = name;
  watcher.observe(place);
}

export function forget(name) {
  const known = figures.get(name);
  if (known === undefined) return;
  watcher.unobserve(known.place);
  figures.delete(name);
  known.drawing.then(() => Plotly.purge(known.div));
}

export function forgetAll() {
  for (const name of [...figures.keys()]) forget(name);
}

dark.addEventListener("change", () => {
  for (const figure of figures.values()) {
    figure.fresh = false;
    if (figure.seen) figure.draw();
  }
});
// Paper shows all figures, also those that were never visible.
window.addEventListener("beforeprint", () => {
  for (const figure of figures.values()) {
    if (!figure.fresh) figure.draw();
    figure.resize(PAPER, false);
  }
});
window.addEventListener("afterprint", () => {
  for (const figure of figures.values()) figure.resize(SCREEN, dark.matches);
});
