// Draws the figures in the reader's colours, again when those change, and plays the rollouts.
(() => {
  "use strict";
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { scale: 2 },
  };

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return { ink: read("--ink"), muted: read("--muted"), grid: read("--grid"), surface: read("--surface") };
  }

  function inColour(figure, { ink, muted, grid, surface }) {
    const layout = figure.layout;
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink };
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: surface, bordercolor: grid, font: { color: ink } };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: ink };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      Object.assign(layout[name], { gridcolor: grid, linecolor: grid, zerolinecolor: grid });
    }
    for (const trace of figure.data) {
      if (trace.error_y) trace.error_y.color = ink;
    }
    return figure;
  }

  function draw() {
    const palette = colours();
    for (const source of document.querySelectorAll("script[data-plot]")) {
      // Parsed each time, because plotly keeps and changes what it is given.
      const figure = inColour(JSON.parse(source.textContent), palette);
      Plotly.react(source.dataset.plot, figure.data, figure.layout, config);
    }
  }

  draw();
  // What was drawn while it was folded away has no width.
  for (const folded of document.querySelectorAll("details")) {
    folded.addEventListener("toggle", () => {
      for (const canvas of folded.querySelectorAll(".canvas")) Plotly.Plots.resize(canvas);
    });
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  const button = document.getElementById("play-all");
  if (button) {
    const films = [...document.querySelectorAll("video")];
    button.hidden = false;
    button.addEventListener("click", () => {
      const start = films.every((film) => film.paused);
      for (const film of films) {
        film.currentTime = 0;
        if (start) film.play();
        else film.pause();
      }
      button.textContent = start ? "Stop all" : "Play all";
    });
  }
})();
