// A line through points: axes, the raw points faint, a smoothed line over them, and a readout by
// pointer or arrow keys. Works for ten points and for ten thousand.

import { h, show } from "./dom.js";

const HEIGHT = 300;
const EDGE = { left: 58, right: 26, top: 14, bottom: 40 };
const TARGET = { x: 90, y: 48 }; // pixels from tick to tick, about

/** Numbers that read well, from `low` to `high`, about `count` of them. */
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toFixed(digits)));
  return found;
}

/** The mean of each point's neighbourhood, a thirtieth of the whole on both sides. */
export function smoothed(points) {
  const reach = Math.max(1, Math.round(points.length / 30));
  const sums = [0];
  for (const { y } of points) sums.push(sums.at(-1) + y);
  return points.map(({ x }, index) => {
    const [start, end] = [Math.max(0, index - reach), Math.min(points.length, index + reach + 1)];
    return { x, y: (sums[end] - sums[start]) / (end - start) };
  });
}

/** At most about `most` points that look the same: the lowest and highest of each stretch. */
export function thinned(points, most) {
  if (points.length <= most) return points;
  const stretch = Math.ceil((2 * points.length) / most);
  const kept = [];
  for (let start = 0; start < points.length; start += stretch) {
    const some = points.slice(start, start + stretch);
    const low = some.reduce((one, each) => (each.y < one.y ? each : one));
    const high = some.reduce((one, each) => (each.y > one.y ? each : one));
    kept.push(...(low === high ? [low] : [low, high].sort((one, other) => one.x - other.x)));
  }
  return kept;
}

/**
 * Return `{ box, draw({ points, last, marks, level }) }`.
 *
 * `points` are `{ x, y }` by rising x; `last` is where the axis ends, `marks` are x to mark, `level`
 * is `{ y, label }`, a line across. `words` name the axes: `{ title, x, y }`; `say(number)` writes y.
 */
export function lines(page, { words, say }) {
  const box = h("div", { class: "lines", own: true });
  let [data, at, width] = [null, null, 0];
  const observer = new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    paint();
  });
  observer.observe(box);
  page.signal.addEventListener("abort", () => observer.disconnect());

  function paint() {
    if (!data?.points.length || !width) return;
    const { points, last, marks = [], level = null } = data;
    const smooth = smoothed(points);
    const scale = scales(points, { last, level, width });
    const here = at === null ? null : points.findIndex((point) => point.x >= at);
    const index = here === null || here < 0 ? points.length - 1 : here;
    const { x, y } = points[index];
    const path = (list) => list.map((each, number) => `${number ? "L" : "M"}${scale.x(each.x).toFixed(1)} ${scale.y(each.y).toFixed(1)}`).join("");
    const text = `${words.x} ${x}, ${words.y} ${say(y)}, smoothed ${say(smooth[index].y)}`;
    show(box,
      h("svg", {
        width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, tabindex: 0, role: "slider", "aria-label": words.title,
        "aria-valuemin": points[0].x, "aria-valuemax": points.at(-1).x, "aria-valuenow": x, "aria-valuetext": text,
        onkeydown: keyed, onpointermove: pointed, onpointerleave: () => { at = null; paint(); },
      },
        ticks(scale.low, scale.high, (HEIGHT - EDGE.top - EDGE.bottom) / TARGET.y).map((each) => h("g", { class: "tick" },
          h("line", { x1: EDGE.left, x2: width - EDGE.right, y1: scale.y(each), y2: scale.y(each) }),
          h("text", { x: EDGE.left - 8, y: scale.y(each) + 4, "text-anchor": "end" }, String(each)))),
        ticks(scale.first, scale.last, (width - EDGE.left - EDGE.right) / TARGET.x).filter(Number.isInteger).map((each) => h("text", { class: "tick-x", x: scale.x(each), y: HEIGHT - EDGE.bottom + 18, "text-anchor": "middle" }, String(each))),
        h("text", { class: "axis-name", x: width - EDGE.right, y: HEIGHT - 6, "text-anchor": "end" }, words.x),
        marks.map((each) => h("path", { class: "mark", d: `M${scale.x(each)} ${HEIGHT - EDGE.bottom}l-4 7h8z` })),
        level ? h("g", { class: "level" }, h("line", { x1: EDGE.left, x2: width - EDGE.right, y1: scale.y(level.y), y2: scale.y(level.y) }),
          h("text", { x: width - EDGE.right, y: scale.y(level.y) - 6, "text-anchor": "end" }, level.label)) : null,
        h("path", { class: "raw", d: path(thinned(points, width)) }),
        h("path", { class: "smooth", d: path(thinned(smooth, width)) }),
        at === null ? null : h("g", { class: "cursor" }, h("line", { x1: scale.x(x), x2: scale.x(x), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
          h("circle", { cx: scale.x(x), cy: scale.y(y), r: 3 }), h("circle", { class: "at", cx: scale.x(x), cy: scale.y(smooth[index].y), r: 5 }))),
      h("p", { class: "readout num", "aria-hidden": "true" }, text));

    function pointed(event) {
      const where = event.offsetX ?? 0;
      const wish = scale.first + ((where - EDGE.left) / (width - EDGE.left - EDGE.right)) * (scale.last - scale.first);
      at = points[nearest(points, wish)].x;
      paint();
    }

    function keyed(event) {
      const far = Math.max(1, Math.round(points.length / 20));
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -far, PageUp: far, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      at = points[Math.max(0, Math.min(points.length - 1, index + by))].x;
      paint();
    }
  }

  return { box, draw(now) { data = now; paint(); } };
}

/** The index of the point whose x is nearest. */
function nearest(points, x) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle].x > x) high = middle;
    else low = middle;
  }
  return x - points[low].x <= points[high].x - x ? low : high;
}

function scales(points, { last, level, width }) {
  const values = [...points.map((point) => point.y), ...(level ? [level.y] : [])].sort((one, other) => one - other);
  // One loss that jumped must not press all others to the ground.
  const top = Math.min(values.at(-1), 3 * values[Math.floor(values.length * 0.98)] || Infinity);
  const low = Math.min(0, values[0]);
  const high = top > low ? top + (top - low) * 0.05 : low + 1;
  const [first, end] = [points[0].x, Math.max(last ?? 0, points.at(-1).x, points[0].x + 1)];
  const [room, rise] = [width - EDGE.left - EDGE.right, HEIGHT - EDGE.top - EDGE.bottom];
  return {
    low, high, first, last: end,
    x: (x) => EDGE.left + ((x - first) / (end - first)) * room,
    y: (y) => EDGE.top + (1 - (Math.min(y, high) - low) / (high - low)) * rise,
  };
}
