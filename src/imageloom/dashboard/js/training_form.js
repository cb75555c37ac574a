// A form that begins a training: the data set is uploaded and looked at before anything is queued.

import { api, ApiError, Unreachable } from "./api.js";
import { h, show } from "./dom.js";
import { bytes } from "./format.js";
import { preflightReport } from "./preflight.js";
import { go } from "./router.js";
import { failure, field } from "./ui.js";

/** Return the form as a card. What is typed stays while the page around it draws anew. */
export function trainingForm(page) {
  const input = (id, props = {}) => h("input", { id, name: id, autocomplete: "off", oninput: changed, ...props });
  const file = input("dataset", { type: "file", accept: ".zip,application/zip", required: true, oninput: null, onchange: () => { [report, error] = [null, null]; draw(); } });
  const name = input("output_name", { required: true, maxlength: 64, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", title: "Letters, digits, dots, dashes and underscores" });
  const base = h("select", { id: "base_model", onchange: changed });
  const trigger = input("trigger_word", { maxlength: 200 });
  const epochs = input("epochs", { type: "number", min: 1, max: 10000, placeholder: "by the model" });
  const checkpoints = input("checkpoint_every", { type: "number", min: 5, max: 100000, placeholder: "50" });
  const prompts = h("textarea", { id: "sample_prompts", rows: 2, oninput: changed });
  const form = h("form", { onsubmit: submit });
  const card = h("details", { class: "card fold", own: true }, h("summary", {}, h("h2", {}, "Train an adapter")), form);
  let [uploaded, report, error, busy] = [null, null, null, null];
  draw();
  page.get("/models").then(({ items }) => {
    const models = items.filter((each) => each.kind === "base");
    show(base, models.map((each) => h("option", { value: each.name, selected: each.default }, each.name)));
  }).catch(() => {});
  return card;

  function changed() {
    if (!report && !error) return;
    [report, error] = [null, null];
    draw();
  }

  function wrong(id) {
    return error?.param?.endsWith(id) ? error.message : null;
  }

  function draw() {
    for (const each of [file, name, base, trigger, epochs, checkpoints, prompts]) each.removeAttribute("aria-invalid");
    const placed = ["dataset_url", "output_name", "base_model", "trigger_word", "epochs", "checkpoint_every", "sample_prompts"].some(wrong);
    show(form,
      h("div", { class: "fields wide-fields" },
        field("Data set", file, { hint: file.files[0] ? `${file.files[0].name}, ${bytes(file.files[0].size)}` : "A zip of at least four pictures, with captions as .txt beside them.", error: wrong("dataset_url") }),
        field("Name of the adapter", name, { hint: "What requests will call it.", error: wrong("output_name") }),
        field("Base model", base, { error: wrong("base_model") }),
        field("Trigger word", trigger, { hint: "The caption of pictures that have none.", error: wrong("trigger_word") }),
        field("Epochs", epochs, { hint: "Times that every picture is seen.", error: wrong("epochs") }),
        field("Checkpoint every", checkpoints, { hint: "So many steps.", error: wrong("checkpoint_every") })),
      field("Sample prompts", prompts, { hint: "One a line; each is drawn at every checkpoint.", error: wrong("sample_prompts") }),
      error && !placed ? failure(error) : null,
      report ? h("div", { class: "notice" }, preflightReport(report)) : null,
      h("div", { class: "actions" },
        h("button", { type: "submit", class: "button primary", disabled: Boolean(busy) }, busy ?? (report ? "Begin the training" : "Look at the data set")),
        h("p", { class: "hint", role: "status" }, report ? "Nothing has begun yet." : "Nothing begins before you have seen what is in it.")));
  }

  async function submit(event) {
    event.preventDefault();
    const ready = report;
    [error, busy] = [null, ready ? "Beginning …" : "Sending and looking …"];
    draw();
    try {
      if (uploaded?.file !== file.files[0]) uploaded = { file: file.files[0], ...(await api.upload(file.files[0])) };
      if (page.left) return;
      if (ready) {
        const made = await api.post("/training", body());
        return void (page.left || go(`/training/${made.id}`));
      }
      report = await api.post("/training/preflight", body());
    } catch (caught) {
      if (!(caught instanceof ApiError || caught instanceof Unreachable)) throw caught;
      [error, report] = [caught, null];
    } finally {
      busy = null;
    }
    if (!page.left) draw();
    return undefined;
  }

  function body() {
    const config = { sample_prompts: prompts.value.split("\n").map((each) => each.trim()).filter(Boolean) };
    if (trigger.value.trim()) config.trigger_word = trigger.value.trim();
    if (epochs.value) config.epochs = Number(epochs.value);
    if (checkpoints.value) config.checkpoint_every = Number(checkpoints.value);
    return { dataset_url: uploaded.url, output_name: name.value.trim(), base_model: base.value, config };
  }
}
