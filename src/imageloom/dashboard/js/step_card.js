// What is known of one step of a run: its state, error, pictures and tasks.

import { h } from "./dom.js";
import { ago, between, duration } from "./format.js";
import { thumbnails } from "./lightbox.js";
import { facts, field, idLink, progress, status } from "./ui.js";

const SHOWN = 60; // tasks and pictures; a step may have ten thousand

/** Return the card. `redo(config)` makes the step again with another config, null where that cannot be. */
export function stepCard(workflow, step, { redo, busy }) {
  const tasks = step.tasks ?? [];
  const images = step.output?.images ?? [];
  return h("section", { class: "card step", key: `step-${step.name}`, "aria-labelledby": "step-title" },
    h("div", { class: "card-head" }, h("h2", { id: "step-title" }, step.name), status(step.status)),
    h("div", { class: "stacked-parts" },
      step.error ? h("div", { class: "notice is-wrong" }, step.error) : null,
      facts({
        Type: step.type,
        Progress: step.status === "running" ? progress(step.progress, `Progress of ${step.name}`) : null,
        After: step.depends_on.length ? step.depends_on.join(", ") : "the input",
        Started: step.started_at ? ago(step.started_at) : null,
        Took: step.started_at ? duration(between(step.started_at, step.completed_at)) : null,
        Cache: { hit: `hit, ${duration(step.seconds_saved ?? 0)} saved`, miss: "miss" }[step.cache] ?? null,
      }),
      step.status === "skipped" ? h("p", { class: "quiet" }, "It was left out because a step before it did not complete.") : null,
      images.length && !workflow.cleaned_at ? [h("h3", {}, images.length === 1 ? "Picture" : `${images.length} pictures`), thumbnails(images.slice(0, SHOWN), (index) => `picture ${index + 1} of ${step.name}`)] : null,
      workflow.cleaned_at && images.length ? h("p", { class: "quiet" }, "Its pictures were cleaned up.") : null,
      tasks.length ? [h("h3", {}, tasks.length === 1 ? "Task" : `${tasks.length} tasks`),
        h("ul", { class: "tasks" }, tasks.slice(0, SHOWN).map((task) => h("li", { key: task.id }, idLink(`/tasks/${task.id}`, task.id), status(task.status),
          task.status === "running" ? h("span", { class: "quiet num" }, `${Math.round(task.progress * 100)} %`) : null,
          task.error && task.error !== step.error ? h("p", { class: "wrong" }, task.error) : null)))] : null,
      tasks.length > SHOWN ? h("p", { class: "quiet" }, `The first ${SHOWN} are shown.`) : null,
      redo && step.status === "failed" ? repair(step, redo, busy) : null,
      h("details", { class: "config" }, h("summary", {}, "Config"), h("pre", { tabindex: 0, role: "region", "aria-label": `Config of ${step.name}` }, JSON.stringify(step.config, null, 2)))));
}

/** A form that changes the config of a step that failed and makes it again as a whole. */
function repair(step, redo, busy) {
  const written = h("textarea", { id: "repair", class: "typed", rows: 8, spellcheck: "false", oninput: (event) => event.target.setCustomValidity("") }, JSON.stringify(step.config, null, 2));
  return h("details", { class: "config", key: `repair-${step.name}` }, h("summary", {}, "Change its config and redo"),
    h("form", { onsubmit: submit }, field("Config as JSON", written, { hint: "The step is then made again as a whole, and what comes after it." }),
      h("div", { class: "actions" }, h("button", { type: "submit", class: "button primary", disabled: busy }, "Redo with this"))));

  function submit(event) {
    event.preventDefault();
    const area = event.target.querySelector("textarea");
    try {
      redo(JSON.parse(area.value));
    } catch (error) {
      area.setCustomValidity(`This is not JSON: ${error.message}`);
      area.reportValidity();
    }
  }
}
