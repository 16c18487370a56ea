
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = [];

  function paint(isDark, size) {
    for (const div of drawn) Plotly.relayout(div, { template: look.template(isDark), ...size });
  }

  const waiting = Object.entries(figures);
  function next() {
    const one = waiting.shift();
    if (one === undefined) return;
    const [name, figure] = one;
    const div = document.getElementById("figure-" + name);
    figure.layout.template = look.template(dark.matches);
    look.fit(figure.data, figure.layout, div.clientWidth);
    figure.config = look.config(name);
    // A pause between figures keeps the page responsive.
    Plotly.newPlot(div, figure).then(() => { drawn.push(div); setTimeout(next, 0); });
  }
  next();

  dark.addEventListener("change", () => paint(dark.matches));
  // The width of A4 or letter paper within its margins.
  window.addEventListener("beforeprint", () => paint(false, { autosize: false, width: 700 }));
  window.addEventListener("afterprint", () => paint(dark.matches, { autosize: true, width: null }));
})();
