// What a data set holds, as `POST /training/preflight` tells it.

import { h } from "./dom.js";
import { bytes, duration, number } from "./format.js";
import { facts, table } from "./ui.js";

export function preflightReport(report) {
  const { estimate } = report;
  return h("div", { class: "stacked-parts" },
    facts({
      "Usable pictures": number(report.usable),
      "Left out": number(report.problems.length),
      Sizes: Object.entries(report.buckets).map(([size, count]) => `${count} of ${size}`).join(", "),
      Steps: number(estimate.steps),
      "About": estimate.minutes === null ? "time unknown" : duration(estimate.minutes * 60),
      Memory: estimate.memory_bytes === null ? "unknown" : bytes(estimate.memory_bytes),
    }),
    h("p", { class: "hint" }, `Rests on: ${estimate.based_on}`),
    report.warnings.map((each) => h("div", { class: "notice is-paused" }, each)),
    report.problems.length ? table("Pictures that are left out", [
      { name: "File", cell: (each) => each.name }, { name: "Why", cell: (each) => each.message },
    ], report.problems, { key: (each) => each.name }) : null,
    h("details", { class: "as-list" }, h("summary", {}, `The ${report.pictures.length} pictures and their captions`), table("Pictures", [
      { name: "File", cell: (each) => each.name }, { name: "Caption", cell: (each) => each.caption }, { name: "Size", num: true, cell: (each) => `${each.width} × ${each.height}` },
    ], report.pictures.slice(0, 200), { key: (each) => each.name })));
}
