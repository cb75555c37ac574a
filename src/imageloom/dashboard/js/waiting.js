// What lies before a task: its place, when it should begin and be done, and whether it ever can.

import { h } from "./dom.js";
import { duration, number } from "./format.js";

/** Of one that waits: its place and when it should begin; or why no worker can do it. */
export function waiting(task) {
  if (task.runnable === false) {
    return h("div", { class: "notice is-paused" }, h("p", {}, h("strong", {}, "No worker that is here can do this. "), task.runnable_reason),
      task.runnable_change ? h("p", {}, task.runnable_change) : null);
  }
  const place = task.queue_position;
  const said = [
    place === null || place === undefined ? "Waits for a worker" : place === 0 ? "Next in its queue" : `${number(place)} before it in its queue`,
    task.eta?.start && `begins in about ${from(task.eta.start.p50)}`,
    expected(task),
  ];
  return h("span", { class: "quiet" }, said.filter(Boolean).join(" · "));
}

/** When it should be done, where that is foreseen; null elsewhere. */
export const expected = ({ eta }) => eta?.finish && `done in about ${from(eta.finish.p50)}, 9 of 10 times within ${from(eta.finish.p90)}`;

/** From now until then, in whole seconds; a forecast that is late says the least that it can. */
const from = (time) => duration(Math.max(1, Math.round((new Date(time) - Date.now()) / 1000)));
