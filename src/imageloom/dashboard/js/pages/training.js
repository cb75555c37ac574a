// One training: how far it is, its losses, what it drew on the way, and the adapter that it made.

import { api } from "../api.js";
import { h, show } from "../dom.js";
import { ago, between, bytes, duration, number } from "../format.js";
import { lightbox } from "../lightbox.js";
import { lines } from "../lines.js";
import { preflightReport } from "../preflight.js";
import { attempt, button, confirm, copyButton, facts, heading, idLink, isOver, progress, section, status, table } from "../ui.js";

const ROWS = 40; // of the table behind the curve
const say = (loss) => loss.toPrecision(3);

export default {
  title: "Training",

  async show(page) {
    const path = `/training/${page.params.id}`;
    const curve = lines(page, { words: { title: "Loss by step; arrow keys go from step to step", x: "step", y: "loss" }, say });
    let training = await page.get(path);
    let losses = [];
    let report = null;
    let busy = false;
    let [readAt, over] = [0, false];

    await page.every(1000, async () => {
      if (!over && readAt) training = await page.get(path);
      // Ten thousand losses are a megabyte: the more there are, the less often.
      if (!over && Date.now() - readAt > Math.max(900, losses.length)) await readLosses();
      if (!over && isOver(training.status)) { over = true; await readLosses(); }
      draw();
    });

    async function readLosses() {
      readAt = Date.now();
      ({ items: losses } = await page.get(`${path}/losses`));
    }

    function draw() {
      const { metrics, samples, adapter } = training.output;
      show(page.place,
        heading(training.params.output_name, { sub: `An adapter of ${training.params.base_model}`, actions: actions() }),
        h("div", { class: "card", key: "summary" }, facts({
          Status: status(training.status),
          Progress: progress(training.progress, "Progress of the training"),
          Epoch: `${number(metrics.current_epoch)} of ${number(metrics.epochs)}`,
          Step: metrics.steps ? `${number(metrics.step)} of ${number(metrics.steps)}` : number(metrics.step),
          Loss: metrics.loss === null ? null : say(metrics.loss),
          "Held-out loss": metrics.held_out_loss === null ? null : say(metrics.held_out_loss),
          "Learning rate": metrics.learning_rate ? metrics.learning_rate.toExponential(1) : null,
          Speed: metrics.images_per_second ? `${metrics.images_per_second.toFixed(1)} images/s` : null,
          "Time left": training.status === "running" && metrics.eta_seconds ? duration(metrics.eta_seconds) : null,
          Took: training.started_at ? duration(between(training.started_at, training.completed_at)) : null,
          Created: ago(training.created_at),
          "Ahead in the queue": training.queue_position,
          Task: idLink(`/tasks/${training.id}`, training.id),
        })),
        training.error ? h("div", { class: "notice is-wrong", key: "error", role: "alert" }, h("strong", {}, "Why it failed: "), training.error) : null,
        adapter ? made(adapter) : null,
        section("Loss", lossPart(metrics)),
        section("Samples", samplePart(samples)),
        dataSet(),
        h("details", { class: "card fold", key: "config" }, h("summary", {}, h("h2", {}, "Config")), h("pre", { tabindex: 0, role: "region", "aria-label": "Config" }, JSON.stringify(training.params.config, null, 2))));
      curve.draw({
        points: losses.map((each) => ({ x: each.step, y: each.loss })), last: metrics.steps, marks: checkpoints(losses.length),
        level: metrics.held_out_loss === null ? null : { y: metrics.held_out_loss, label: `held out ${say(metrics.held_out_loss)}` },
      });
    }

    function checkpoints(reached) {
      const every = training.params.config.checkpoint_every;
      // As many marks as can be told apart.
      const apart = every * Math.ceil(reached / every / 100 || 1);
      return Array.from({ length: Math.floor(reached / apart) }, (_, index) => (index + 1) * apart);
    }

    function lossPart() {
      if (!losses.length) return h("p", { class: "empty" }, training.status === "pending" ? "It waits for a worker." : isOver(training.status) ? "It ended before the first step." : "The data set is read and encoded; the first step comes after that.");
      const apart = Math.ceil(losses.length / ROWS);
      const kept = losses.filter((_, index) => index % apart === 0 || index === losses.length - 1);
      return [
        h("p", { class: "curve-legend" }, h("span", { class: "key-smooth" }, "smoothed"), h("span", { class: "key-raw" }, "each step"),
          h("span", { class: "key-level" }, "held-out pictures"), h("span", { class: "key-mark" }, "checkpoint")),
        curve.box,
        h("details", { class: "as-list" }, h("summary", {}, "The same as a table"), table(apart > 1 ? `Losses, every ${apart} steps` : "Losses", [
          { name: "Step", num: true, cell: (each) => number(each.step) },
          { name: "Loss", num: true, cell: (each) => each.loss.toFixed(4) },
          { name: "Learning rate", num: true, cell: (each) => each.learning_rate.toExponential(2) },
        ], kept, { key: (each) => each.step })),
      ];
    }

    function samplePart(samples) {
      if (training.cleaned_at) return h("p", { class: "empty" }, "They were cleaned up.");
      if (!samples.length) {
        const asked = training.params.config.sample_prompts.length;
        return h("p", { class: "empty" }, !asked ? "None were asked for: sample_prompts in the config draws some at each checkpoint." : isOver(training.status) ? "It ended before its first checkpoint." : `${asked === 1 ? "One is" : `${asked} are`} drawn at each checkpoint, every ${training.params.config.checkpoint_every} steps.`);
      }
      return sampleGrid(samples);
    }

    function dataSet() {
      const look = button(busy === "look" ? "Looking …" : report ? "Look again" : "Look into it", async () => {
        busy = "look";
        draw();
        const { dataset_url, base_model, config } = training.params;
        report = await attempt(() => api.post("/training/preflight", { dataset_url, base_model, config })).finally(() => { busy = false; }) ?? report;
        if (!page.left) draw();
      }, { kind: "small", disabled: Boolean(busy) });
      return section("Data set", { actions: page.session.scopes.includes("write") ? look : null },
        report ? preflightReport(report) : h("p", { class: "quiet" }, "Which pictures were used and which were left out is worked out anew from the upload, while that is kept."));
    }

    function actions() {
      if (isOver(training.status) || !page.session.scopes.includes("write")) return null;
      return button("Cancel", cancel, { kind: "danger", disabled: Boolean(busy) });
    }

    async function cancel() {
      const keeps = training.output.metrics.step >= training.params.config.checkpoint_every;
      const answer = await ask(keeps);
      if (!answer) return;
      busy = "cancel";
      draw();
      const now = await attempt(() => api.post(`${path}/cancel`, { keep: answer === "keep" }), { done: answer === "keep" ? "Cancelled; the last checkpoint is published" : "The training is cancelled" }).finally(() => { busy = false; });
      if (page.left) return;
      if (now) training = now;
      draw();
    }
  },
};

/** Ask whether to cancel, and whether to keep the last checkpoint as an adapter. */
async function ask(keeps) {
  if (!keeps) return (await confirm("Cancel this training?", "Cancel it", "There is no checkpoint yet, so nothing of it stays.")) ? "drop" : null;
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "ask-cancel", onclose: () => { dialog.remove(); resolve(["keep", "drop"].includes(dialog.returnValue) ? dialog.returnValue : null); } },
      h("form", { method: "dialog" }, h("h2", { id: "ask-cancel" }, "Cancel this training?"), h("p", {}, "Its last checkpoint can become an adapter all the same."),
        h("div", { class: "actions" }, h("button", { class: "button", value: "" }, "Let it go on"), h("button", { class: "button primary", value: "keep" }, "Cancel, keep the checkpoint"), h("button", { class: "button danger", value: "drop" }, "Cancel and drop it"))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

function made(adapter) {
  const used = JSON.stringify({ prompt: "…", loras: [{ name: adapter.name, weight: 0.8 }] }, null, 2);
  return section("Adapter", { actions: [h("a", { class: "button small", href: `#/playground?lora=${encodeURIComponent(adapter.name)}` }, "Use in the playground"), h("a", { href: adapter.url, download: `${adapter.name}.safetensors`, class: "button small" }, "Download")] },
    h("div", { class: "stacked-parts" }, facts({ Name: adapter.name, Version: adapter.version, "Base model": adapter.base_model, "From step": adapter.step === null ? null : number(adapter.step), Size: bytes(adapter.size), Published: ago(adapter.created_at) }),
    h("div", { class: "code-copy" }, h("pre", { tabindex: 0, role: "region", "aria-label": "A request that uses it" }, used), copyButton(used, "Copy the request"))));
}

/** A row for each prompt, a column for each step. */
function sampleGrid(samples) {
  const steps = [...new Set(samples.map((each) => each.step))].sort((one, other) => one - other);
  const prompts = [...new Set(samples.map((each) => each.prompt))];
  const sorted = prompts.flatMap((prompt) => steps.map((step) => samples.find((each) => each.prompt === prompt && each.step === step)).filter(Boolean));
  const describe = (index) => `step ${sorted[index].step}: ${sorted[index].prompt}`;
  return h("div", { class: "scroll samples", tabindex: 0, role: "region", "aria-label": "Samples by step" },
    h("table", { class: "compact" }, h("caption", { class: "unseen" }, "Samples: a row for each prompt, a column for each step"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Prompt"), steps.map((step) => h("th", { scope: "col", key: String(step), class: "num" }, `step ${number(step)}`)))),
      h("tbody", {}, prompts.map((prompt) => h("tr", { key: prompt }, h("th", { scope: "row", class: "prompt" }, prompt), steps.map((step) => {
        const index = sorted.findIndex((each) => each.prompt === prompt && each.step === step);
        return h("td", { key: String(step) }, index < 0 ? h("span", { class: "quiet" }, "–") : h("button", { type: "button", class: "picture", "aria-label": `Look at ${describe(index)} in full`, onclick: () => lightbox(sorted, index, { describe }) },
          h("img", { src: sorted[index].url, alt: "", width: sorted[index].width, height: sorted[index].height, decoding: "async" })));
      }))))));
}
