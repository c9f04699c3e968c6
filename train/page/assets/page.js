
"use strict";
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const label = () => { button.textContent = theme() === "dark" ? "light" : "dark"; };
  const wanted = new URLSearchParams(location.hash.slice(1)).get("theme");
  if (wanted === "dark" || wanted === "light") root.dataset.theme = wanted;
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = theme() === "dark" ? "light" : "dark"; label(); });
  dark.addEventListener("change", label);
  label();

  const number = (value) => Number(value.toPrecision(4)).toLocaleString("en-US", { maximumSignificantDigits: 4 });
  function nearest(points, step) {
    return points.reduce((best, each) => (Math.abs(each[0] - step) < Math.abs(best[0] - step) ? each : best));
  }
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const chart = JSON.parse(figure.dataset.chart), output = figure.querySelector("output");
    const plot = figure.querySelector(".plot"), svg = plot.querySelector("svg"), ruler = document.createElement("i");
    ruler.hidden = true;
    plot.append(ruler);
    plot.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width;
      const step = Math.max(0, Math.min(1, (at - chart.left) / (chart.right - chart.left))) * chart.last;
      const first = nearest(chart.lines[0].points, step);
      const named = chart.lines.map((line) => {
        const point = nearest(line.points, first[0]), away = point[0] === first[0] ? "" : ` (${point[0].toLocaleString("en-US")})`;
        return (chart.lines.length > 1 ? line.name + " " : "") + number(point[1]) + chart.unit + away;
      });
      output.textContent = `step ${first[0].toLocaleString("en-US")}: ${named.join(", ")}`;
      const place = chart.left + (chart.right - chart.left) * first[0] / chart.last;
      ruler.style.left = `${box.left - plot.getBoundingClientRect().left + plot.scrollLeft + place * box.width}px`;
      ruler.hidden = false;
    });
    plot.addEventListener("pointerleave", () => { ruler.hidden = true; output.textContent = ""; });
  }
})();
