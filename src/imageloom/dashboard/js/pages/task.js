// One task: what it is, how it stands, what came of it, and what can be done.

import { passing } from "../api.js";
import { doings } from "../doing.js";
import { h, show } from "../dom.js";
import { ago, between, bytes, duration, exact, since } from "../format.js";
import { follow } from "../follow.js";
import { parameters } from "../parameters.js";
import { againPath, card, forming, receiptFold } from "../pictures.js";
import * as tasks from "../tasks.js";
import { facts, heading, idLink, isOver, link, linkButton, notice, progress, section, status, table } from "../ui.js";
import { expected, waiting } from "../waiting.js";
import { why } from "../why.js";

const POLL = 3000; // milliseconds, for another tenant's task, whose events are not ours

export default {
  title: "Task",

  async show(page) {
    const { id } = page.params;
    const whose = { all_tenants: page.query.all === "1" ? "true" : null };
    const known = { task: null, detail: null, theirs: false };
    const draw = () => { if (known.task && known.detail && !page.left) show(page.place, parts(page, known, doing, changed)); };
    const doing = doings(draw);
    const learn = async () => { known.detail = await page.get(`/monitoring/tasks/${id}`, whose); draw(); };
    const changed = (task) => { if (task) { known.task = { ...known.task, ...task }; draw(); learn().catch(() => {}); } };

    await learn();
    // A key that may only monitor reads its own tenant's tasks in the same way.
    known.theirs = known.detail.tenant !== page.session.tenant || !page.session.scopes.includes("read");
    if (known.detail.type === "training" && !known.theirs) {
      location.replace(`#/training/${id}`); // where there is more of it to see
      return;
    }
    if (known.theirs) {
      await page.every(POLL, async () => {
        const [detail, media] = await Promise.all([page.get(`/monitoring/tasks/${id}`, whose), page.get(`/monitoring/tasks/${id}/media`, whose)]);
        known.detail = detail;
        known.task = { ...detail, output: media.outputs.length ? { images: media.outputs } : null, previews: media.previews };
        draw();
      });
      return;
    }
    let told = `${known.detail.status} ${known.detail.attempt}`;
    await follow(page, id, (task) => {
      known.task = task;
      draw();
      // The ledger changes when an attempt begins or ends, not with each step.
      const now = `${task.status} ${task.attempt}`;
      if (told !== now) learn().catch(() => {}); // it comes once more at the end
      told = now;
    });
    await learn().catch((error) => { if (!passing(error)) throw error; });
  },
};

function parts(page, { task, detail, theirs }, doing, changed) {
  const title = `${task.type[0].toUpperCase()}${task.type.slice(1)} task`;
  return [
    heading(title, { sub: h("span", { class: "id" }, task.id), actions: theirs ? null : actions(page, task, doing, changed) }),
    h("div", { class: "aside" },
      h("div", { class: "page" },
        task.status === "failed" ? section("Why it failed", why(task)) : null,
        isOver(task.status) ? null : live(task),
        pictures(task),
        section("What happened", timeline(detail.timeline)),
        section("Attempts", attempts(detail.attempts))),
      h("div", { class: "page" },
        section("About", about(task, detail, theirs)),
        section("Parameters", parameters(task.params)))),
  ];
}

function actions(page, task, doing, changed) {
  if (!tasks.mayChange(task, page.session)) return null;
  const first = task.output?.images?.[0];
  const has = first && !task.cleaned_at;
  return [
    tasks.canCancel(task) ? doing("Cancel", async () => changed(await tasks.cancel(task)), { kind: "danger" }) : null,
    tasks.canRetry(task) ? doing("Retry", () => tasks.retry(task), { kind: "primary" }) : null,
    task.type === "generation" && isOver(task.status) ? linkButton(againPath(task, 0), first ? "Again with this seed" : "Edit and draw again") : null,
    has && task.type === "generation" ? doing("Reproduce", () => tasks.reproduce(task, 0)) : null,
    has ? doing("Delete pictures", async () => changed(await tasks.cleanup(task)), { kind: "danger" }) : null,
  ];
}

function live(task) {
  const shown = task.status === "running" && task.type === "generation";
  return section("Now",
    h("div", { class: "now" }, status(task.status), task.status === "running" ? progress(task.progress, "Progress of this task") : waiting(task),
      task.status === "running" && expected(task) ? h("span", { class: "quiet" }, expected(task)) : null),
    shown && task.params.preview_every ? forming(task) : null,
    shown && !task.params.preview_every ? h("p", { class: "hint" }, "Tasks that ask for ", h("code", {}, "preview_every"), " show their pictures forming; the playground does.") : null);
}

function pictures(task) {
  const images = task.output?.images;
  if (task.cleaned_at) return section("Pictures", h("p", { class: "empty" }, "They were deleted ", ago(task.cleaned_at), ". With the same parameters and seed they can be drawn again."));
  if (!images) return null;
  return section(images.length === 1 ? "Picture" : `${images.length} pictures`,
    reproduction(task),
    h("div", { class: "pictures large" }, images.map((image, index) => card(task, image, index, { below: receiptFold(image.receipt) }))),
    task.output.cache === "hit" ? notice(`Taken from the step cache, which saved ${duration(task.output.seconds_saved)}.`) : null);
}

function reproduction({ output: { reproduction }, reproduces }) {
  if (!reproduction) return null;
  const said = { identical: "Identical: the same bytes came out.", near: "Near: it looks the same, some bytes differ.", different: "Different from the first." };
  return h("div", { class: "notice" },
    h("p", {}, h("strong", {}, said[reproduction.result]), " ", link(`/tasks/${reproduces.task_id}`, `The first is output ${reproduces.output} of that task.`)),
    reproduction.largest_difference ? h("p", {}, `A channel of a pixel differs by ${reproduction.largest_difference} of 255 at most.`) : null,
    reproduction.changed.length ? h("p", {}, `What changed in the receipt: ${reproduction.changed.join(", ")}.`) : null);
}

function timeline(moments) {
  return h("ol", { class: "timeline" }, moments.map((moment, index) => h("li", { key: `${index}`, class: `is-${moment.status}` },
    h("div", { class: "entry-head" }, status(moment.status), exact(moment.at),
      index ? h("span", { class: "quiet num" }, `+${duration(between(moments[index - 1].at, moment.at))}`) : null),
    moment.note ? h("div", { class: "note" }, moment.note) : null)));
}

function attempts(list) {
  return table("Attempts", [
    { name: "No.", num: true, cell: (attempt) => attempt.attempt },
    { name: "Worker", cell: (attempt) => h("span", { class: "id" }, attempt.worker) },
    { name: "Began", cell: (attempt) => exact(attempt.started_at) },
    { name: "Took", num: true, cell: (attempt) => (attempt.ended_at ? duration(between(attempt.started_at, attempt.ended_at)) : since(attempt.started_at)) },
    { name: "Outcome", cell: (attempt) => [status(attempt.outcome ?? "running"), attempt.error ? h("div", { class: "remark" }, attempt.error) : null] },
    { name: "Device", cell: device },
    { name: "Then", cell: after },
  ], list, { key: (attempt) => `${attempt.attempt}`, empty: "No worker has begun it yet." });
}

/** What came of it, and what was tried next. */
function after({ next, next_at: at, tried_next: tried }) {
  if (!next) return null;
  return [next, tried ? h("div", { class: "remark" }, tried) : null, at ? h("div", { class: "remark" }, "tried again ", ago(at)) : null];
}

function device({ device_seconds: seconds, device_memory_bytes: memory }) {
  if (!seconds && !memory) return null;
  return [duration(seconds), memory ? h("div", { class: "remark" }, bytes(memory)) : null];
}

function about(task, detail, theirs) {
  const place = task.workflow;
  return facts({
    Status: status(task.status),
    Tenant: theirs ? detail.tenant : null,
    Created: ago(task.created_at),
    Waited: duration(detail.wait_seconds),
    "Running for": task.status === "running" ? since(task.started_at) : null,
    Ran: task.status === "running" || detail.run_seconds === null ? null : duration(detail.run_seconds),
    Ended: task.completed_at ? ago(task.completed_at) : null,
    Model: detail.model,
    Worker: task.status === "running" && detail.worker ? h("span", { class: "id" }, detail.worker) : null,
    Priority: task.priority ? String(task.priority) : null,
    Workflow: place ? h("span", {}, idLink(`/workflows/${place.id}`, place.id), `, step ${place.step}`) : null,
    "Does over": task.retries ? idLink(`/tasks/${task.retries.task_id}`, task.retries.task_id) : null,
    "Makes again": task.reproduces ? idLink(`/tasks/${task.reproduces.task_id}`, task.reproduces.task_id) : null,
  });
}
