// What the form of the playground holds, and the request that it makes. Fields hold text as it was
// typed; the API judges it.

const NUMBERS = ["num_outputs", "steps", "guidance_scale", "width", "height"];
const BLANK = {
  prompt: "", negative_prompt: "", model: "", loras: [], photo: null, strength: "0.6",
  num_outputs: "1", steps: "", guidance_scale: "", width: "", height: "", seed: "", output_format: "jpeg",
};

const nameFor = (session) => `playground ${session.tenant}`;

/** What this tab had last: the form, and the tasks that it made with what was sent. */
export function remembered(session) {
  try {
    const { form, runs } = JSON.parse(sessionStorage.getItem(nameFor(session))) ?? {};
    return { form: { ...BLANK, ...form }, runs: runs ?? [] };
  } catch {
    return { form: { ...BLANK }, runs: [] };
  }
}

export const remember = (session, kept) => sessionStorage.setItem(nameFor(session), JSON.stringify(kept));

/** The request that the form makes; what was left empty is left to the model. */
export function requestOf(form, models) {
  const body = { prompt: form.prompt };
  for (const name of ["negative_prompt", "model"]) if (form[name].trim()) body[name] = form[name];
  if (form.loras.length) body.loras = form.loras.map(({ name, weight }) => ({ name, weight: Number(weight) }));
  if (form.photo) Object.assign(body, { input_image_url: form.photo.url, strength: Number(form.strength) });
  for (const name of NUMBERS) if (form[name] !== "") body[name] = Number(form[name]);
  if (form.seed !== "") body.seed = form.seed;
  if (form.output_format !== BLANK.output_format) body.output_format = form.output_format;
  body.preview_every = previewEvery(body.steps ?? modelOf(form, models)?.steps);
  return body;
}

/** Some eight previews, whatever the steps. */
const previewEvery = (steps) => Math.min(100, Math.max(1, Math.round((steps ?? 20) / 8)));

export const modelOf = (form, models) => models.find((model) => model.kind === "base" && (form.model ? model.name === form.model : model.default));

/** The form with what a task asked for: to draw one of its pictures again, or to begin from it. */
export function formOf(task, { seed, from }) {
  const { params } = task;
  const form = { ...BLANK };
  for (const name of ["prompt", "negative_prompt", "model", "output_format", ...NUMBERS]) {
    if (params[name] !== null && params[name] !== undefined) form[name] = String(params[name]);
  }
  form.loras = (params.loras ?? []).map(({ name, weight }) => ({ name, weight: String(weight) }));
  if (params.strength) form.strength = String(params.strength);
  const began = params.input_image_url;
  // A picture that was sent with the request is not kept whole.
  if (began && !began.startsWith("data:")) form.photo = { url: began, name: "as before" };
  if (seed !== undefined) Object.assign(form, { seed: String(seed), num_outputs: "1" });
  if (from) Object.assign(form, { photo: { url: from.url, name: `picture with seed ${from.seed}` }, strength: "0.5", seed: "", width: "", height: "" });
  return form;
}
