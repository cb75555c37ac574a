// The tasks that this tab made: each as it waits, forms and is done.

import { passing } from "../api.js";
import { doings } from "../doing.js";
import { h, show } from "../dom.js";
import { follow } from "../follow.js";
import { card, forming, receiptFold } from "../pictures.js";
import { cancel } from "../tasks.js";
import { idLink, isOver, notice, progress, status } from "../ui.js";
import { expected, waiting } from "../waiting.js";
import { why } from "../why.js";
import { callFold } from "./call.js";

const AGAIN = 3000; // milliseconds until a server that was away is asked once more

/**
 * Return the place of the runs and what adds one. A run is `{ id, body }`; the newest comes first.
 * `gone` is told of one that is no longer there.
 */
export function runList(page, { gone }) {
  const place = h("div", { class: "page runs" });
  const runs = [];
  const doing = doings(draw);
  draw();

  function draw() {
    if (!runs.length) {
      return show(place, h("div", { class: "card empty-runs", key: "none" }, h("p", {}, h("strong", {}, "Pictures appear here.")),
        h("p", { class: "quiet" }, "You see them form step by step. They stay in the gallery.")));
    }
    return show(place, runs.map((run) => h("article", { class: "card", key: run.id, "aria-label": `Task ${run.id}` }, run.task ? body(run) : h("p", { class: "quiet" }, "…"))));
  }

  function body({ task, body: sent }) {
    const over = isOver(task.status);
    return [
      h("div", { class: "card-head" },
        h("div", { class: "entry-head" }, status(task.status), idLink(`/tasks/${task.id}`, task.id)),
        over ? null : doing("Cancel", () => cancel(task), { name: `cancel ${task.id}`, kind: "small danger" })),
      h("p", { class: "prompt clamp" }, task.params.prompt),
      task.status === "running" ? h("div", { class: "now" }, progress(task.progress, "Progress of the pictures"), expected(task) ? h("span", { class: "quiet" }, expected(task)) : null) : null,
      task.status === "pending" ? h("div", { class: "now" }, waiting(task)) : null,
      over ? null : forming(task),
      task.status === "failed" ? why(task) : null,
      task.status === "cancelled" ? notice("Cancelled. Nothing of it is kept.") : null,
      task.cleaned_at ? notice("Its pictures were deleted.") : null,
      task.output?.images && !task.cleaned_at
        ? h("div", { class: "pictures large" }, task.output.images.map((image, index) => card(task, image, index, { below: receiptFold(image.receipt) }))) : null,
      callFold(sent),
    ];
  }

  function add(run) {
    runs.unshift(run);
    draw();
    watch(run);
  }

  async function watch(run) {
    try {
      await follow(page, run.id, (task) => { run.task = task; draw(); });
    } catch (error) {
      if (page.left) return;
      if (passing(error)) {
        setTimeout(() => { if (!page.left) watch(run); }, AGAIN);
      } else if (error.status === 404) {
        runs.splice(runs.indexOf(run), 1);
        gone(run);
        draw();
      } else throw error;
    }
  }

  return { place, add };
}
