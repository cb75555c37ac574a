// The graph of a workflow's steps, drawn: one tab stop, arrow keys from step to step.

import { h, show } from "./dom.js";
import { layout, NODE } from "./graph.js";
import { sign } from "./ui.js";

const NARROW = 640; // pixels: below it the layers are drawn under each other
const [NAME_ROOM, NOTE_ROOM] = [18, 24]; // characters that fit into a step
const MARGIN = 12; // pixels around the graph, for the outline of the focus

/** Return `{ box, draw(steps, chosen) }`: a graph in its own scrolling box. `choose(name)` hears which step a person picks. */
export function graphView(page, choose) {
  const box = h("div", { class: "graph", own: true });
  let [steps, chosen, down, plan] = [[], null, false, null];
  const observer = new ResizeObserver(() => {
    if (box.clientWidth < NARROW === down) return;
    down = !down;
    plan = null;
    paint();
  });
  observer.observe(box);
  page.signal.addEventListener("abort", () => observer.disconnect());

  function paint() {
    if (!steps.length) return;
    const shape = JSON.stringify(steps.map((step) => [step.name, step.depends_on]));
    const anew = plan?.shape !== shape;
    if (anew) plan = { shape, down, ...layout(steps, { down }) };
    show(box, drawing(plan, steps, chosen, { pick, onKey }));
    if (anew) centre(chosen);
  }

  function pick(name) {
    choose(name);
    node(name)?.focus({ preventScroll: true });
  }

  function onKey(event, name) {
    const next = ["Enter", " "].includes(event.key) ? name : neighbour(plan, name, event.key);
    if (!next) return;
    event.preventDefault();
    pick(next);
    node(next)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  const node = (name) => [...box.querySelectorAll(".node")].find((each) => each.dataset.key === name);

  /** Scroll the box, and only the box, so that a step is in its middle. */
  function centre(name) {
    const at = plan.nodes.find((each) => each.name === name);
    if (!at) return;
    box.scrollLeft = at.x - (box.clientWidth - at.width) / 2;
    box.scrollTop = at.y - (box.clientHeight - at.height) / 2;
  }

  return { box, draw(now, which) { [steps, chosen] = [now, which]; paint(); } };
}

/** The name of the step that an arrow key leads to, null where it leads nowhere. */
function neighbour({ nodes, edges, down }, name, key) {
  const here = nodes.find((each) => each.name === name);
  const turned = down ? { ArrowUp: "ArrowLeft", ArrowDown: "ArrowRight", ArrowLeft: "ArrowUp", ArrowRight: "ArrowDown" }[key] ?? key : key;
  const beside = (by) => nodes.find((each) => each.layer === here.layer && each.row === here.row + by)?.name;
  switch (turned) {
    case "ArrowRight": return edges.find((edge) => edge.from === name)?.to;
    case "ArrowLeft": return edges.find((edge) => edge.to === name)?.from;
    case "ArrowUp": return beside(-1);
    case "ArrowDown": return beside(1);
    case "Home": return nodes[0].name;
    case "End": return nodes.at(-1).name;
    default: return null;
  }
}

function drawing({ nodes, edges, width, height, down }, steps, chosen, { pick, onKey }) {
  const byName = new Map(steps.map((step) => [step.name, step]));
  const [wide, high] = [width + 2 * MARGIN, height + 2 * MARGIN];
  return h("svg", { width: wide, height: high, viewBox: `${-MARGIN} ${-MARGIN} ${wide} ${high}`, role: "group", "aria-label": `Graph of ${steps.length} steps; arrow keys go from step to step` },
    edges.map((edge) => h("g", { class: ["edge", byName.get(edge.from).status === "completed" && "is-passed", [edge.from, edge.to].includes(chosen) && "is-chosen"] },
      h("path", { d: edge.path }), h("path", { class: "arrow", d: arrow(edge.points.at(-1), down) }))),
    nodes.map((spot) => stepNode(spot, byName.get(spot.name), { chosen: spot.name === chosen, pick, onKey })));
}

function stepNode(spot, step, { chosen, pick, onKey }) {
  const share = Math.round(step.progress * 100);
  const moving = step.status === "running";
  const label = `${step.name}, ${step.type}, ${stateOf(step)}${moving ? `, ${share} %` : ""}${step.depends_on.length ? `, after ${step.depends_on.join(" and ")}` : ""}`;
  return h("g", {
    class: ["node", `is-${step.status}`, chosen && "is-chosen"], key: step.name, transform: `translate(${Math.round(spot.x)} ${Math.round(spot.y)})`,
    role: "button", tabindex: chosen ? 0 : -1, "aria-pressed": String(chosen), "aria-label": label,
    onclick: () => pick(step.name), onkeydown: (event) => onKey(event, step.name),
  },
    h("title", { svg: true }, step.name),
    h("rect", { class: "node-box", width: NODE.width, height: NODE.height, rx: 10 }),
    h("circle", { class: "node-sign", cx: 22, cy: 28, r: 12 }),
    h("text", { class: "node-mark", x: 22, y: 33, "text-anchor": "middle" }, sign(step.status)),
    h("text", { class: "node-name", x: 42, y: 26 }, fitted(step.name, NAME_ROOM)),
    h("text", { class: "node-note", x: 42, y: 44 }, fitted(moving ? `${step.type} · ${share} %` : `${step.type} · ${stateOf(step)}`, NOTE_ROOM)),
    h("rect", { class: "node-track", x: 12, y: 54, width: NODE.width - 24, height: 3, rx: 1.5 }),
    h("rect", { class: "node-done", x: 12, y: 54, width: ((NODE.width - 24) * share) / 100, height: 3, rx: 1.5 }));
}

/** How a step stands in words: an approval that is paused waits for a person. */
export function stateOf(step) {
  if (step.status === "paused") return "waits for you";
  return step.status === "completed" && step.cache === "hit" ? "from cache" : step.status;
}

/** The beginning of a text that is too long for its place. Signs of East Asian width count twice. */
function fitted(text, room) {
  let used = 0;
  let kept = "";
  for (const each of text) {
    used += each.codePointAt(0) > 0x2e80 ? 2 : 1;
    if (used > room) return `${kept.trimEnd()}…`;
    kept += each;
  }
  return kept;
}

const arrow = ({ x, y }, down) => (down ? `M${x} ${y}l-4 -8h8z` : `M${x} ${y}l-8 -4v8z`);
