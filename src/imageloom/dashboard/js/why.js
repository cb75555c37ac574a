// Why a task failed, and what to do about it.

import { h } from "./dom.js";
import { facts, link } from "./ui.js";

const ADVICE = {
  invalid_input: "The input is at fault, and trying again would end the same. Change what the message names, and send it again.",
  invalid_params: "A parameter is at fault. Change what the message names, and send it again.",
  out_of_memory: "The device has too little memory for it, also after everything that saves some. Ask for smaller or fewer pictures, or use a worker with more memory.",
  model_not_installed: "Its weights are not on the worker. Run the command of the message there, then retry.",
  bad_weights: "The weights cannot be used as they are. Install the model again, or name another.",
  device_fault: "The device or its driver failed. A retry runs on a fresh device process; if it fails again, look at the worker's log and at the device.",
  worker_lost: "Every worker that tried it went silent. See on the overview whether workers are healthy, and in their logs why they ended; then retry.",
  storage_unavailable: "The storage could not be reached. See that it answers; then retry.",
  database_unavailable: "The database could not be reached. See that it answers; then retry.",
};

/** The reason, plainly; below it what a program would be told, and what a person may do. */
export function why(task) {
  const detail = task.error_detail;
  const pass = detail?.retryable
    ? "It was of the kind that may pass, and was tried until the attempts were used up. A retry is a new task."
    : "Find the worker's log line with this task's id, then decide whether to retry.";
  return h("div", { class: "notice is-wrong why-card" },
    h("p", { class: "prompt" }, h("strong", {}, task.error ?? "No reason was given.")),
    h("p", {}, ADVICE[detail?.code] ?? pass),
    task.workflow ? h("p", {}, "It is a part of ", link(`/workflows/${task.workflow.id}`, "a workflow"), ": resume that, and only what failed is done again.") : null,
    detail ? facts({
      Code: h("code", {}, detail.code),
      "May pass by itself": detail.retryable ? "yes" : "no",
      "At attempt": String(detail.attempt),
      Parameter: detail.param && h("code", {}, detail.param),
    }) : null);
}
