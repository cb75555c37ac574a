// Work that buttons start.

import { button } from "./ui.js";

/**
 * Return a maker of buttons whose work does not start twice.
 *
 * While it is under way the button says so and keeps its focus; `redraw` is called when that begins
 * and ends.
 */
export function doings(redraw) {
  const underWay = new Set();
  return (label, work, { name = label, ...props } = {}) => {
    const busy = underWay.has(name);
    const start = async () => {
      if (underWay.has(name)) return;
      underWay.add(name);
      redraw();
      try {
        await work();
      } finally {
        underWay.delete(name);
        redraw();
      }
    };
    return button(label, start, { ...props, "aria-disabled": busy ? "true" : null, "aria-busy": busy ? "true" : null });
  };
}
