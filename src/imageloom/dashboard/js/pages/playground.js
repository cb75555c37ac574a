// Draw a picture: a form on one side, what comes of it on the other.

import { api, ApiError, Unreachable } from "../api.js";
import { h, show } from "../dom.js";
import { composer } from "../playground/form.js";
import { formOf, remember, remembered, requestOf } from "../playground/draft.js";
import { runList } from "../playground/runs.js";
import { heading, notice } from "../ui.js";

const KEPT = 4; // tasks that this tab shows again when it comes back

export default {
  title: "Playground",

  async show(page) {
    const { session, query } = page;
    const source = query.again ?? query.vary;
    const [{ items: models }, task] = await Promise.all([page.get("/models"), source ? page.get(`/tasks/${source}`) : null]);
    const { form: last, runs: before } = remembered(session);
    const form = task ? formOf(task, picked(task, query)) : last;
    let runs = before;
    const keep = () => remember(session, { form, runs });
    // The address has done its part: to load the page anew must not undo what is typed now.
    if (task) history.replaceState(null, "", "#/playground");
    keep();

    const list = runList(page, { gone: (run) => { runs = runs.filter((each) => each.id !== run.id); keep(); } });
    const element = composer(page, form, models, { changed: keep, submit });
    show(page.place, heading("Playground", { sub: "A prompt, and a photograph if you like." }),
      session.scopes.includes("write") ? null : notice("This key may only read: pictures cannot be drawn with it."),
      h("div", { class: "bench" }));
    page.place.lastChild.replaceChildren(element, list.place);
    for (const run of [...runs].reverse()) list.add({ ...run });
    if (task) {
      scrollTo(0, 0);
      element.querySelector("#p-prompt").focus();
    }

    async function submit() {
      try {
        const run = await draw(requestOf(form, models));
        runs = [run, ...runs].slice(0, KEPT);
        keep();
        list.add({ ...run });
        // On a phone it is below the form.
        if (list.place.getBoundingClientRect().top > innerHeight * 0.7) list.place.scrollIntoView();
        return null;
      } catch (error) {
        if (error instanceof ApiError || error instanceof Unreachable) return error;
        throw error;
      }
    }
  },
};

/** Make the task; a model that shows no previews is asked for none. */
async function draw(body) {
  try {
    const { id } = await api.post("/tasks/generation", body);
    return { id, body };
  } catch (error) {
    if (error.param !== "preview_every") throw error;
    const { preview_every: _, ...rest } = body;
    const { id } = await api.post("/tasks/generation", rest);
    return { id, body: rest };
  }
}

/** Which picture of the task, and whether it is drawn again or begun from. */
function picked(task, query) {
  const index = Number(query.output) || 0;
  const image = task.output?.images?.[index];
  // Of a picture that is not there the seed is known all the same: picture i has seed + i.
  if (query.again) return { seed: image?.seed ?? BigInt(task.params.seed) + BigInt(index) };
  return { from: task.cleaned_at ? undefined : image };
}
