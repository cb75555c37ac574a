// Stacked bars over time: drawn without text, so that they stretch to any width; what they say
// stands beside them, and in a table.

import { h } from "./dom.js";
import { number } from "./format.js";

const HIGH = 100; // units of the drawing, whatever its size on the screen
const WIDE = 10; // units of a column

/**
 * Return bars with their scale and a table of the same numbers.
 *
 * `rows` are `{ name, title, values }`, `series` are `{ name, tone }` in the order of the values,
 * the first at the bottom.
 */
export function bars(label, rows, series) {
  const sums = series.map((_, index) => rows.reduce((sum, row) => sum + row.values[index], 0));
  const most = ceiling(Math.max(...rows.map((row) => row.values.reduce((sum, value) => sum + value, 0))));
  const said = `${label}: ${series.map(({ name }, index) => `${number(sums[index])} ${name}`).join(", ")}`;
  return h("div", { class: "bars" },
    h("ul", { class: "legend" }, series.map(({ name, tone }, index) =>
      h("li", {}, h("span", { class: ["swatch", tone], "aria-hidden": "true" }), h("strong", { class: "num" }, number(sums[index])), ` ${name}`))),
    h("div", { class: "bars-plot" },
      h("div", { class: "bars-scale num", "aria-hidden": "true" }, h("span", {}, number(most)), h("span", {}, most % 2 ? "" : number(most / 2)), h("span", {}, "0")),
      h("svg", { viewBox: `0 0 ${rows.length * WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": said },
        [0, 0.5].map((share) => h("line", { class: "grid", x1: 0, x2: rows.length * WIDE, y1: share * HIGH, y2: share * HIGH, "vector-effect": "non-scaling-stroke" })),
        rows.map((row, index) => column(row, index * WIDE, series, most)),
        h("line", { class: "axis", x1: 0, x2: rows.length * WIDE, y1: HIGH, y2: HIGH, "vector-effect": "non-scaling-stroke" }))),
    h("div", { class: "bars-names num", "aria-hidden": "true" }, ticks(rows).map((row) => h("span", {}, row.name))),
    h("details", {}, h("summary", {}, "As a table"),
      h("div", { class: "scroll bars-table", tabindex: "0", role: "group", "aria-label": `${label}, as a table` },
        h("table", {}, h("caption", { class: "unseen" }, label),
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"), series.map(({ name }) => h("th", { scope: "col", class: "num" }, name)))),
          h("tbody", {}, rows.map((row) => h("tr", { key: row.title }, h("td", { "data-name": "Time" }, row.title),
            row.values.map((value, index) => h("td", { class: "num", "data-name": series[index].name }, number(value))))))))));
}

function column({ title, values }, x, series, most) {
  let top = HIGH;
  const parts = values.map((value, index) => {
    const high = (value / most) * HIGH;
    top -= high;
    return h("rect", { class: series[index].tone, x: x + 1, y: top, width: WIDE - 2, height: high });
  });
  const said = `${title}: ${values.map((value, index) => `${number(value)} ${series[index].name}`).join(", ")}`;
  return h("g", { class: "column" }, h("title", { svg: true }, said), h("rect", { class: "hit", x, y: 0, width: WIDE, height: HIGH }), parts);
}

/** The names below the bars: first, last and some between. */
const ticks = (rows) => [0, 0.25, 0.5, 0.75, 1].map((share) => rows[Math.round(share * (rows.length - 1))]);

/** A round number that is at least this and at least 1. */
function ceiling(value) {
  if (value <= 2) return Math.max(1, value);
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((factor) => factor * size).find((each) => each >= value);
}
