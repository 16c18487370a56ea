// The look of figures in the report and the dashboard, on light and on dark backgrounds.

"use strict";
const look = {
  template(isDark) {
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
  },

  // Fit a figure to a width in pixels. On a narrow screen the text is smaller, the color scale lies above the figure,
  // and dragging a finger scrolls the page.
  fit(data, layout, width) {
    if (width >= 560) return;
    layout.dragmode = false;
    layout.font = { size: 11 };
    layout.margin = { ...layout.margin, l: 44, r: Math.min(layout.margin.r, 64) };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      layout[axis].title = { ...layout[axis].title, font: { size: 11 } };
    }
    const above = { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", len: 1, thickness: 10 };
    for (const { colorbar } of data.flatMap((trace) => [trace, trace.marker ?? {}])) {
      if (colorbar === undefined) continue;
      Object.assign(colorbar, above);
      colorbar.title = { ...colorbar.title, side: "top" };
      layout.margin.t = 64;
    }
  },

  // Larger dots, with their number above, where several members are at the same place.
  ties(trace) {
    const amounts = new Map(), place = (i) => `${trace.x[i]} ${trace.y[i]}`;
    trace.x.forEach((_, i) => amounts.set(place(i), (amounts.get(place(i)) ?? 0) + 1));
    const named = new Set();
    trace.text = trace.x.map((_, i) => {
      const amount = amounts.get(place(i));
      if (amount < 2 || named.has(place(i))) return "";
      named.add(place(i));
      return `×${amount}`;
    });
    trace.marker = { ...trace.marker, size: trace.x.map((_, i) => Math.min(22, 9 + Math.sqrt(amounts.get(place(i))))) };
    Object.assign(trace, { mode: "markers+text", textposition: "top center", textfont: { size: 10 } });
  },

  // Never send data anywhere, and offer no button for it.
  config: { showSendToCloud: false, plotlyServerURL: "", displaylogo: false, responsive: true, displayModeBar: false, doubleClick: false },

  // A name as part of the name of a file.
  fileName: (name) => (name ?? "run").replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 60) || "run",
};
