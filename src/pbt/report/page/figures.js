// The figures of the report and of the dashboard: drawn when they become visible, redrawn after changes and choices, with
// the reader's zoom kept, and all of them on paper.

/* global Plotly, look, parts, choices, hover, views, member */

"use strict";
const figures = (() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const known = new Map();
  const PAPER = { autosize: false, width: 700 }; // A4 or letter paper within its margins
  const SCREEN = { autosize: true, width: null };
  const SAVED = { width: 900, scale: 2 };

  // Layout keys that zooming and panning change: the range of an axis, or one end of it.
  const RANGE = /^([xy]axis\d*)\.range(?:\[[01]\])?$/;
  const ALL = "all";
  const HIDDEN = "legendonly"; // of plotly.js: listed in the legend alone

  const axes = (layout) => Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
  const short = (end) => (typeof end === "number" ? Number(end.toPrecision(7)) : end);

  // One figure after the other, with a pause between two of them, which keeps the page responsive.
  let turn = Promise.resolve();
  const waiting = new Set();
  function soon(figure) {
    if (waiting.has(figure)) return;
    waiting.add(figure);
    turn = turn.then(() => new Promise((next) => setTimeout(next, 0))).then(() => {
      waiting.delete(figure);
      if (figure.seen && !figure.fresh) return figure.draw();
    });
  }

  class Figure {
    constructor(name, place, source) {
      this.name = name;
      this.place = place;
      this.div = place.querySelector(".figure");
      this.source = source;
      // The ranges chosen by the user. plotly.js would discard them when the figure's own range changes in the next
      // round, and a double-click would restore the range of the first round.
      this.zoomed = this.#kept();
      this.resets = 0;
      // The traces that the reader shows or hides, unlike the figure itself.
      this.toggled = new Set((choices.get(name, "legend") ?? "").split("~").filter(Boolean));
      this.round = choices.get(name, "round");
      this.seen = false;
      this.fresh = false;
      this.begun = false;
      this.slider = null;
      this.controls = [];
      this.own = new Map();
      this.drawing = Promise.resolve();
    }

    get title() {
      return this.place.querySelector("h2")?.textContent ?? this.name;
    }

    // The title of an axis before any choice.
    axisTitle(side) {
      const text = new DOMParser().parseFromString(this.#made().layout[`${side}axis`].title.text, "text/html");
      return text.body.textContent;
    }

    // The figure as plain values; a source that is a function is called once, when the figure is drawn.
    #made() {
      if (typeof this.source === "function") this.source = this.source();
      return this.source;
    }

    // Replace the figure; it is drawn now only if it is visible.
    set(source) {
      // The server sends a figure again only if it has changed.
      if (source === this.source) return;
      this.source = source;
      this.fresh = false;
      // One that is near but out of view is drawn when the reader goes there.
      if (this.inView) soon(this);
    }

    get inView() {
      const { top, bottom } = this.div.getBoundingClientRect();
      return top < window.innerHeight && bottom > 0;
    }

    // Draw after the previous drawing has finished: plotly.js must not draw a figure twice at the same time.
    draw() {
      this.fresh = true;
      this.drawing = this.drawing.then(() => this.#draw()).catch((error) => console.error(error));
      return this.drawing;
    }

    // Keep a choice in the address, and draw the figure with it.
    choose(name, value) {
      choices.set(this.name, name, value);
      if (name === "along" || name === "x" || name === "y" || name.startsWith("scale")) {
        this.zoomed.clear();
        this.#keep();
        this.resets += 1;
      }
      this.draw();
    }

    // A copy of the figure with the reader's choices; its arrays are shared, since nothing changes them.
    #shown() {
      const made = this.#made(), layout = structuredClone(made.layout);
      const data = made.data.map((trace) => ({ ...trace, ...(trace.marker && { marker: structuredClone(trace.marker) }) }));
      this.controls = layout.meta?.controls ?? [];
      const frames = views.apply(this, data, layout, made.frames ?? []);
      return { data, layout, frames };
    }

    async #draw() {
      if (!this.div.isConnected) return;
      const { data, layout, frames } = this.#shown();
      // The title names the run; on the page, headings do.
      const head = layout.meta?.head ?? 0;
      layout.height -= head;
      if (layout.margin) layout.margin.t -= head;
      delete layout.title;
      // Name each trace, so that its visibility set by the legend is kept when other traces come before it.
      const names = new Map();
      for (const trace of data) {
        // Letters and digits only: the name becomes part of a CSS selector.
        const name = `${trace.yaxis ?? "y"}-${trace.name ?? ""}`.replace(/[^A-Za-z0-9]+/g, "-"), count = names.get(name) ?? 0;
        names.set(name, count + 1);
        trace.uid = `${name}-${count}`;
        this.own.set(trace.uid, trace.visible);
        if (this.toggled.has(trace.uid)) trace.visible = trace.visible === HIDDEN ? true : HIDDEN;
        // The page draws the label itself.
        if (trace.hoverinfo !== "skip") Object.assign(trace, { hoverinfo: "none", hovertemplate: "" });
      }
      delete layout.sliders;
      if (frames.length) this.#frame(data, frames);
      for (const trace of data) if (trace.meta?.ties) look.ties(trace);
      look.fit(data, layout, this.div.clientWidth);
      for (const axis of axes(layout)) layout[axis].uirevision = this.resets;
      for (const [axis, range] of this.zoomed) {
        if (layout[axis] === undefined) continue;
        if (range === ALL) delete layout[axis].range;
        else Object.assign(layout[axis], { range, autorange: false });
      }
      const shown = { ...layout, template: look.template(dark.matches), uirevision: this.name };
      await Plotly.react(this.div, data, shown, look.config);
      if (this.begun) return;
      this.begun = true;
      const bar = this.place.querySelector(".controls");
      if (bar && !bar.childElementCount) bar.replaceChildren(...views.controls(this));
      // An invisible element in which plotly.js measures texts, hidden from screen readers.
      document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
      this.div.on("plotly_relayout", (changes) => this.#zoom(changes));
      this.div.on("plotly_restyle", ([changes]) => "visible" in changes && this.#toggle());
      this.div.on("plotly_doubleclick", () => this.#back());
      this.div.on("plotly_hover", hover.show);
      this.div.on("plotly_unhover", hover.hide);
      this.div.on("plotly_click", (event) => {
        const found = hover.memberAt(event);
        if (found !== undefined) member.open(found);
      });
    }

    // Save the figure as it is shown, with its title.
    async save(format) {
      await this.draw();
      const { data, layout } = this.div, { title, head } = this.#title();
      const shown = { ...structuredClone(layout), template: look.template(false), paper_bgcolor: "#ffffff", title };
      shown.height = layout.height + head;
      shown.margin = { ...layout.margin, t: (layout.margin?.t ?? 24) + head };
      await Plotly.downloadImage({ data, layout: shown, config: look.config }, {
        format, filename: `${look.fileName(document.querySelector("h1")?.textContent)}-${this.name}`,
        width: SAVED.width, height: shown.height, scale: format === "png" ? SAVED.scale : 1,
      });
    }

    #title() {
      const { layout } = this.#made();
      return { title: layout.title, head: layout.meta?.head ?? 0 };
    }

    resize(size, isDark) {
      this.drawing = this.drawing.then(() => Plotly.relayout(this.div, { template: look.template(isDark), ...size }))
        .catch((error) => console.error(error));
    }

    // Remove the drawing, as of a figure that only paper has shown.
    erase() {
      this.fresh = this.begun = false;
      this.drawing = this.drawing.then(() => Plotly.purge(this.div));
    }

    #zoom(changes) {
      for (const key of Object.keys(changes)) {
        const axis = RANGE.exec(key)?.[1];
        const now = axis && this.div.layout[axis];
        if (now?.range) this.zoomed.set(axis, [...now.range]);
      }
      this.#keep();
    }

    #keep() {
      const ranges = [...this.zoomed].filter(([, range]) => range !== ALL);
      choices.set(this.name, "zoom", ranges.map(([axis, ends]) => [axis, ...ends.map(short)].join("~")).join("~~"));
    }

    #kept() {
      const found = (choices.get(this.name, "zoom") ?? "").split("~~").map((one) => one.split("~"));
      return new Map(found.filter(([axis, ...ends]) => /^[xy]axis\d*$/.test(axis) && ends.length === 2 && ends.every((end) => end !== "" && Number.isFinite(Number(end))))
        .map(([axis, ...ends]) => [axis, ends.map(Number)]));
    }

    #toggle() {
      const isHidden = (visible) => visible === HIDDEN;
      const found = this.div.data.filter(({ uid, visible }) => isHidden(visible) !== isHidden(this.own.get(uid)));
      this.toggled = new Set(found.map(({ uid }) => uid));
      choices.set(this.name, "legend", [...this.toggled].join("~"));
    }

    // Reset a zoomed figure to its own ranges, and a figure that is not zoomed to all of its data.
    #back() {
      const { layout } = this.#made();
      if (this.zoomed.size) this.zoomed.clear();
      else for (const axis of axes(layout)) if (layout[axis].range && !layout[axis].fixedrange) this.zoomed.set(axis, ALL);
      this.#keep();
      this.resets += 1;
      setTimeout(() => this.draw(), 0);
    }

    #frame(data, frames) {
      this.slider ??= this.#slider();
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
      const { element } = parts;
      const id = `slider-${this.name}`, place = this.place.querySelector(".slider");
      const label = element("label", { for: id, text: "Round" });
      const input = element("input", { type: "range", id, min: 0, max: this.#made().frames.length - 1, step: 1 });
      const output = element("output", { for: id });
      input.addEventListener("input", () => {
        const at = Number(input.value), { frames } = this.#made();
        this.round = at === frames.length - 1 ? null : Number(frames[at].name);
        choices.set(this.name, "round", this.round);
        this.draw();
      });
      place.replaceChildren(label, input, output);
      return { input, output };
    }
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const figure = known.get(target.dataset.figure);
      if (figure === undefined || figure.place !== target) continue;
      figure.seen = isIntersecting;
      if (isIntersecting && !figure.fresh) soon(figure);
    }
  }, { rootMargin: "400px" });

  // A figure that changed while it was near is drawn once it is in view.
  const entering = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const figure = known.get(target.dataset.figure);
      if (isIntersecting && figure?.place === target && figure.seen && !figure.fresh) soon(figure);
    }
  });

  // Show a figure in its section, which has elements .figure, .controls and .slider. A source that is a function returns
  // the figure.
  function show(name, place, source) {
    const old = known.get(name);
    if (old?.place === place) return old.set(source);
    if (old) forget(name);
    known.set(name, new Figure(name, place, source));
    place.dataset.figure = name;
    watcher.observe(place);
    entering.observe(place);
  }

  function forget(name) {
    const old = known.get(name);
    if (old === undefined) return;
    watcher.unobserve(old.place);
    entering.unobserve(old.place);
    known.delete(name);
    old.seen = false;
    if (old.begun) old.drawing.then(() => Plotly.purge(old.div));
  }

  function forgetAll() {
    for (const name of [...known.keys()]) forget(name);
    hover.hide();
  }

  dark.addEventListener("change", () => {
    for (const figure of known.values()) {
      figure.fresh = false;
      if (figure.seen) soon(figure);
    }
  });
  // Paper shows all figures. Those that were never visible are drawn for it alone.
  window.addEventListener("beforeprint", () => {
    for (const figure of known.values()) {
      if (!figure.fresh) figure.draw();
      figure.resize(PAPER, false);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const figure of known.values()) {
      if (figure.seen) figure.resize(SCREEN, dark.matches);
      else figure.erase();
    }
  });
  return { show, forget, forgetAll };
})();
