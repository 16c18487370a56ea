
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = [];

  function template(isDark) {
    const [ink, grid, ground] = isDark ? ["#d5d9de", "#343a42", "#15181c"] : ["#1d2126", "#e3e6ea", "#ffffff"];
    const axis = { gridcolor: grid, linecolor: grid, tickcolor: grid };
    const font = { color: ink, family: "system-ui, sans-serif", size: 13 };
    const slider = { bgcolor: "#8a9099", bordercolor: grid, activebgcolor: "#d55e00", font: { color: ink } };
    return {
      layout: {
        font, xaxis: axis, yaxis: axis, sliderdefaults: slider,
        hoverlabel: { bgcolor: ground, bordercolor: grid, font: { color: ink } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: "#8a9099", activecolor: ink },
      },
    };
  }

  function paint(isDark, size) {
    for (const div of drawn) Plotly.relayout(div, { template: template(isDark), ...size });
  }

  const config = {
    // Nothing is sent anywhere, and no button offers it.
    showSendToCloud: false, plotlyServerURL: "", displaylogo: false,
    responsive: true, displayModeBar: window.innerWidth > 640 ? "hover" : false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"],
  };
  const waiting = Object.entries(figures);
  function next() {
    const one = waiting.shift();
    if (one === undefined) return;
    const [name, figure] = one;
    const div = document.getElementById("figure-" + name);
    figure.layout.template = template(dark.matches);
    figure.config = { ...config, toImageButtonOptions: { format: "svg", filename: name } };
    // Between two figures the page can be scrolled and read.
    Plotly.newPlot(div, figure).then(() => { drawn.push(div); setTimeout(next, 0); });
  }
  next();

  dark.addEventListener("change", () => paint(dark.matches));
  // A sheet of A4 or letter paper is so wide within its margins.
  window.addEventListener("beforeprint", () => paint(false, { autosize: false, width: 700 }));
  window.addEventListener("afterprint", () => paint(dark.matches, { autosize: true, width: null }));
})();
