// Where the steps of a workflow stand when it is drawn: numbers only, no document.
//
// A step's layer is the longest path that leads to it, so every edge points forward. An edge that
// passes layers reserves a narrow place in each, which keeps it from crossing a step. Within a layer
// the order follows the mean of the neighbours (barycentre), and the places are those nearest to the
// neighbours that do not overlap (least squares with the order kept).

export const NODE = { width: 190, height: 64 };
const GAP = { along: 48, across: 20 };
const PASSING = 14; // pixels that an edge reserves in a layer that it passes
const SWEEPS = 8;

/**
 * Return `{ nodes, edges, width, height }`.
 *
 * `steps` are `{ name, depends_on }`. Nodes are `{ name, layer, row, x, y, width, height }` with the
 * upper left corner; edges are `{ from, to, path, points }`. `down` puts the layers below each other
 * instead of beside each other, for narrow screens.
 */
export function layout(steps, { down = false } = {}) {
  if (!steps.length) return { nodes: [], edges: [], width: 0, height: 0 };
  const size = down ? { along: NODE.height, across: NODE.width } : { along: NODE.width, across: NODE.height };
  const { layers, edges } = withPassing(steps, layersOf(steps), size.across);
  order(layers);
  place(layers);
  const pitch = size.along + (down ? GAP.along * 0.8 : GAP.along);
  const turn = (along, across) => (down ? { x: across, y: along } : { x: along, y: across });
  const spots = layers.flat();
  const nodes = spots.filter((spot) => spot.step).map((spot) => ({
    name: spot.step.name, layer: spot.layer, row: layers[spot.layer].filter((each) => each.step).indexOf(spot),
    ...turn(spot.layer * pitch, spot.at - size.across / 2), width: NODE.width, height: NODE.height,
  }));
  const across = Math.max(...spots.map((spot) => spot.at + spot.size / 2));
  const along = (layers.length - 1) * pitch + size.along;
  const drawn = edges.map(({ from, to, spots: passed }) => {
    // The edge leaves at the end of its first layer, runs straight through each that it passes, and
    // arrives at the beginning of its last.
    const points = passed.flatMap((spot, index) => [
      ...(index > 0 ? [turn(spot.layer * pitch, spot.at)] : []),
      ...(index < passed.length - 1 ? [turn(spot.layer * pitch + size.along, spot.at)] : []),
    ]);
    return { from, to, points, path: curve(points, down) };
  });
  return { nodes, edges: drawn, ...(down ? { width: across, height: along } : { width: along, height: across }) };
}

/** The layer of each step by name: one more than the last of those that it depends on. */
function layersOf(steps) {
  const byName = new Map(steps.map((step) => [step.name, step]));
  const found = new Map();
  const visit = (step) => {
    if (!found.has(step.name)) {
      const above = step.depends_on.filter((name) => byName.has(name)).map((name) => visit(byName.get(name)));
      found.set(step.name, Math.max(-1, ...above) + 1);
    }
    return found.get(step.name);
  };
  steps.forEach(visit);
  return found;
}

/** Return the layers as lists of spots, and the edges with the spots that each passes. */
function withPassing(steps, found, across) {
  const layers = Array.from({ length: Math.max(...found.values()) + 1 }, () => []);
  const spots = new Map();
  const add = (layer, size, step = null) => {
    const spot = { layer, size, step, before: [], after: [], at: 0 };
    layers[layer].push(spot);
    return spot;
  };
  for (const step of steps) spots.set(step.name, add(found.get(step.name), across, step));
  const edges = [];
  for (const step of steps) {
    for (const name of step.depends_on) {
      const [from, to] = [spots.get(name), spots.get(step.name)];
      if (!from || from.layer >= to.layer) continue;
      const passed = [from];
      for (let layer = from.layer + 1; layer < to.layer; layer += 1) passed.push(add(layer, PASSING));
      passed.push(to);
      for (let index = 1; index < passed.length; index += 1) {
        passed[index - 1].after.push(passed[index]);
        passed[index].before.push(passed[index - 1]);
      }
      edges.push({ from: name, to: step.name, spots: passed });
    }
  }
  return { layers, edges };
}

/** Sort each layer by the mean place of the neighbours, forth and back; keep the order with the fewest crossings. */
function order(layers) {
  const number = () => layers.forEach((layer) => layer.forEach((spot, index) => { spot.rank = index; }));
  number();
  let best = layers.map((layer) => [...layer]);
  let fewest = crossings(layers);
  for (let sweep = 0; sweep < SWEEPS && fewest > 0; sweep += 1) {
    const [side, visited] = sweep % 2 ? ["after", [...layers].reverse()] : ["before", layers];
    for (const layer of visited) {
      for (const spot of layer) spot.wish = mean(spot[side].map((each) => each.rank), spot.rank);
      layer.sort((one, other) => one.wish - other.wish || one.rank - other.rank);
      layer.forEach((spot, index) => { spot.rank = index; });
    }
    const now = crossings(layers);
    if (now < fewest) [fewest, best] = [now, layers.map((layer) => [...layer])];
  }
  layers.forEach((layer, index) => layer.splice(0, layer.length, ...best[index]));
  number();
}

function crossings(layers) {
  let count = 0;
  for (const layer of layers) {
    const ends = layer.flatMap((spot) => spot.after.map((each) => each.rank).sort((one, other) => one - other));
    for (let first = 0; first < ends.length; first += 1) {
      for (let second = first + 1; second < ends.length; second += 1) if (ends[second] < ends[first]) count += 1;
    }
  }
  return count;
}

/** Give each spot the middle of its place, `at`, as near to its neighbours as the others allow. */
function place(layers) {
  for (const layer of layers) settle(layer, layer.map(() => 0));
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const [side, visited] = sweep % 2 ? ["after", [...layers].reverse()] : ["before", layers];
    for (const layer of visited) settle(layer, layer.map((spot) => mean(spot[side].map((each) => each.at), spot.at)));
  }
  const top = Math.min(...layers.flat().map((spot) => spot.at - spot.size / 2));
  for (const spot of layers.flat()) spot.at = Math.round(10 * (spot.at - top)) / 10;
}

/** Put a layer's spots as near to their wishes as their sizes allow: pool adjacent violators. */
function settle(layer, wishes) {
  let offset = 0;
  const offsets = layer.map((spot, index) => {
    if (index > 0) offset += (layer[index - 1].size + spot.size) / 2 + GAP.across;
    return offset;
  });
  const blocks = [];
  wishes.forEach((wish, index) => {
    blocks.push({ sum: wish - offsets[index], count: 1 });
    while (blocks.length > 1 && average(blocks.at(-2)) > average(blocks.at(-1))) {
      const last = blocks.pop();
      blocks.at(-1).sum += last.sum;
      blocks.at(-1).count += last.count;
    }
  });
  let index = 0;
  for (const block of blocks) {
    for (let each = 0; each < block.count; each += 1, index += 1) layer[index].at = average(block) + offsets[index];
  }
}

const average = (block) => block.sum / block.count;
const mean = (numbers, otherwise) => (numbers.length ? numbers.reduce((sum, each) => sum + each, 0) / numbers.length : otherwise);

/** A path that bends between layers and is straight within one. */
function curve(points, down) {
  const round = (value) => Math.round(value * 10) / 10;
  return points.map(({ x, y }, index) => {
    if (index === 0) return `M${round(x)} ${round(y)}`;
    if (index % 2 === 0) return `L${round(x)} ${round(y)}`;
    const last = points[index - 1];
    const [one, other] = down
      ? [[last.x, (last.y + y) / 2], [x, (last.y + y) / 2]]
      : [[(last.x + x) / 2, last.y], [(last.x + x) / 2, y]];
    return `C${[...one, ...other, x, y].map(round).join(" ")}`;
  }).join("");
}
