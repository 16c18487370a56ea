
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PAPER = { autosize: false, width: 700 }; // A4 or letter paper within its margins
  const SCREEN = { autosize: true, width: null };
  const places = [...document.querySelectorAll(".figure")];
  const drawn = new Set(), waiting = new Set();
  let busy = false;

  // Draw a figure. Its data is parsed only now: in a large run, parsing and drawing all figures takes seconds.
  function draw(div, isDark, size) {
    drawn.add(div);
    waiting.delete(div);
    watcher.unobserve(div);
    const name = div.id.replace("figure-", "");
    const figure = JSON.parse(document.getElementById("data-" + name).textContent);
    Object.assign(figure.layout, { template: look.template(isDark) }, size);
    look.fit(figure.data, figure.layout, size?.width ?? div.clientWidth);
    figure.config = look.config(name);
    return Plotly.newPlot(div, figure);
  }

  function paint(isDark, size) {
    for (const div of drawn) Plotly.relayout(div, { template: look.template(isDark), ...size });
  }

  // Draw the figures in view, with a pause between two of them, which keeps the page responsive.
  function next() {
    if (busy || waiting.size === 0) return;
    busy = true;
    setTimeout(() => {
      const [div] = waiting;
      const drawing = div ? draw(div, dark.matches) : Promise.resolve();
      drawing.catch((error) => console.error(error)).then(() => { busy = false; next(); });
    }, 0);
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) waiting.add(target);
      else waiting.delete(target);
    }
    next();
  }, { rootMargin: "400px" });
  for (const div of places) watcher.observe(div);

  dark.addEventListener("change", () => paint(dark.matches));
  // Paper shows all figures. Those that were never in view are drawn for it alone, and again when they are seen.
  let unseen = [];
  window.addEventListener("beforeprint", () => {
    paint(false, PAPER);
    unseen = places.filter((div) => !drawn.has(div));
    for (const div of unseen) draw(div, false, PAPER);
  });
  window.addEventListener("afterprint", () => {
    for (const div of unseen) {
      Plotly.purge(div);
      drawn.delete(div);
      watcher.observe(div);
    }
    unseen = [];
    paint(dark.matches, SCREEN);
  });
})();
