// The form of the playground. Every field's name is that of the API, which is how an error finds it.

import { h, show } from "../dom.js";
import { button, field } from "../ui.js";
import { modelOf } from "./draft.js";
import { photoField } from "./photo.js";

/**
 * Return the form's element and what draws it.
 *
 * `form` is changed as the person types; `changed` is told, and `submit` when they are done.
 */
export function composer(page, form, models, { changed, submit }) {
  const element = h("form", { class: "card composer", novalidate: true, "aria-label": "Picture", onsubmit: (event) => { event.preventDefault(); send(); } });
  let errors = {};
  let busy = false;
  const photo = photoField(page, {
    get: () => form.photo,
    set: (value) => { form.photo = value; delete errors.input_image_url; changed(); },
    redraw: draw,
  });
  const keep = (name) => (event) => { form[name] = event.target.value; changed(); };
  const text = (name, props) => h("textarea", { id: `p-${name}`, maxlength: 4000, oninput: keep(name), onkeydown: sendOnEnter, value: form[name], ...props });
  const numeral = (name, props) => h("input", { id: `p-${name}`, type: "number", inputmode: "decimal", value: form[name], oninput: keep(name), ...props });
  draw();

  function draw() {
    const model = modelOf(form, models);
    show(element,
      field("Prompt", text("prompt", { rows: 4, required: true, placeholder: "a striped blue shirt on a yellow background" }), { error: errors.prompt }),
      photo(errors.input_image_url),
      form.photo ? strength() : null,
      field("Not in the picture", text("negative_prompt", { rows: 2, class: "short" }), { error: errors.negative_prompt }),
      field("Model", modelChoice(), { hint: model?.description, error: errors.model }),
      adapters(model),
      h("div", { class: "fields" },
        field("Pictures", numeral("num_outputs", { min: 1, max: 16 }), { error: errors.num_outputs }),
        field("Steps", numeral("steps", { min: 1, max: 100, placeholder: model?.steps }), { error: errors.steps }),
        field("Guidance", numeral("guidance_scale", { min: 0, max: 30, step: 0.5, placeholder: model?.guidance_scale }), { error: errors.guidance_scale }),
        field("Width", numeral("width", { min: 64, max: 2048, step: 8, placeholder: form.photo ? "auto" : model?.default_size }), { error: errors.width }),
        field("Height", numeral("height", { min: 64, max: 2048, step: 8, placeholder: form.photo ? "auto" : model?.default_size }), { error: errors.height }),
        field("Format", choice("output_format", ["jpeg", "png", "webp"]), { error: errors.output_format })),
      field("Seed", h("input", { id: "p-seed", inputmode: "numeric", pattern: "[0-9]*", autocomplete: "off", value: form.seed, oninput: keep("seed"), placeholder: "drawn at random" }),
        { hint: "Picture i has this seed plus i; the same seed draws the same picture.", error: errors.seed }),
      errors.other ? h("p", { class: "wrong", role: "alert" }, errors.other) : null,
      h("div", { class: "actions" },
        h("button", { class: "button primary", type: "submit", "aria-disabled": busy ? "true" : null }, busy ? "Sending …" : "Draw"),
        h("span", { class: "hint" }, h("kbd", {}, "Ctrl"), " ", h("kbd", {}, "Enter"), " draws too")));
    // A select takes no new value from its attributes.
    const select = element.querySelector("#p-model");
    if (select && select.value !== form.model) select.value = form.model;
  }

  function strength() {
    return field("Strength", h("input", { id: "p-strength", type: "range", min: 0.05, max: 1, step: 0.05, value: form.strength, oninput: (event) => { keep("strength")(event); draw(); } }),
      { hint: `${form.strength}: how much of the photograph is drawn anew.`, error: errors.strength });
  }

  function modelChoice() {
    const bases = models.filter((model) => model.kind === "base");
    return h("select", { id: "p-model", onchange: (event) => { form.model = event.target.value; form.loras = []; changed(); draw(); } },
      h("option", { value: "" }, `${bases.find((model) => model.default)?.name ?? "the default"} (default)`),
      bases.filter((model) => !model.default).map((model) => h("option", { value: model.name }, model.name)));
  }

  function choice(name, values) {
    return h("select", { id: `p-${name}`, onchange: keep(name) }, values.map((value) => h("option", { value, selected: form[name] === value }, value)));
  }

  function adapters(model) {
    const fitting = models.filter((each) => each.kind === "adapter" && each.base_model === model?.name);
    const free = fitting.filter((each) => !form.loras.some((lora) => lora.name === each.name));
    const change = () => { changed(); draw(); };
    if (!fitting.length && !form.loras.length) return null;
    return h("fieldset", {}, h("legend", {}, "Adapters"),
      form.loras.map((lora, index) => h("div", { class: "lora", key: lora.name },
        h("label", { for: `p-loras-${index}` }, lora.name),
        h("input", {
          id: `p-loras-${index}`, type: "number", min: -4, max: 4, step: 0.1, value: lora.weight, "aria-label": `Weight of ${lora.name}`,
          oninput: (event) => { lora.weight = event.target.value; changed(); },
        }),
        button("Remove", () => { form.loras.splice(index, 1); change(); }, { kind: "small", "aria-label": `Remove ${lora.name}` }))),
      free.length ? adding(free, change) : null,
      errors.loras ? h("p", { class: "wrong", id: "p-loras-error" }, errors.loras) : null);
  }

  /** Those that may be added. Its key changes with them: a select that stays keeps its old choices. */
  function adding(free, change) {
    const add = ({ target }) => { form.loras.push({ name: target.value, weight: "1" }); change(); };
    return h("select", { key: `add ${free.length}`, "aria-label": "Add an adapter", onchange: add }, h("option", { value: "" }, "Add an adapter …"),
      free.map(({ name, trigger_word: trigger }) => h("option", { value: name }, trigger ? `${name} (say “${trigger}”)` : name)));
  }

  function sendOnEnter(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
  }

  async function send() {
    if (busy) return;
    errors = unreadable(element);
    if (!Object.keys(errors).length) {
      busy = true;
      draw();
      errors = placed(await submit());
      busy = false;
    }
    draw();
    const [wrong] = Object.keys(errors);
    if (wrong) element.querySelector(`#p-${wrong}`)?.focus();
  }

  return element;
}

/** What the browser itself cannot read as a number. */
function unreadable(element) {
  const errors = {};
  for (const input of element.querySelectorAll("input")) {
    if (input.validity.badInput || (input.pattern && !new RegExp(`^${input.pattern}$`).test(input.value))) errors[input.id.slice(2)] = "This is not a number.";
  }
  return errors;
}

/** An error of the API at the field that it names: `loras.0.weight` is one of the adapters. */
function placed(error) {
  if (!error) return {};
  const name = error.param?.split(/[.[]/, 1)[0];
  const there = name && document.getElementById(name === "loras" ? "p-loras-0" : `p-${name}`);
  return { [there ? name : "other"]: error.message };
}
