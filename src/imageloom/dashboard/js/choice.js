// A choice that an approval waits for: its candidates side by side, by pointer or by keys.

import { api } from "./api.js";
import { h } from "./dom.js";
import { exact, until } from "./format.js";
import { lightbox } from "./lightbox.js";
import { attempt, button, confirm } from "./ui.js";

const FEW = 4; // candidates that have the room to be larger
const MANY = 8; // candidates that are seen together with the buttons below them

/** The steps of a workflow that wait for a person. */
export const waiting = (workflow) => workflow.steps.filter((step) => step.candidates);
/** Where the run that an answer shows is controlled. */
export const runPath = (workflow) => `/workflows/${workflow.id}/runs/${workflow.run.id}`;

/**
 * Return `card(workflow, step)`, which makes the card of a choice, for a page to show.
 *
 * What is chosen is kept here while the page draws anew, which `redraw` asks for; `done(workflow)`
 * hears what an answer came to. The keys 1 to 9 choose in the card that has the focus, or in the
 * only one of the page.
 */
export function choices(page, { redraw, done, may = page.session.scopes.includes("write") }) {
  const picked = new Map();
  const said = new Map();
  const busy = new Set();
  const shown = new Map();
  document.addEventListener("keydown", keyed, { signal: page.signal });

  const keyOf = (workflow, step) => `${workflow.run.id}/${step.name}`;

  function card(workflow, step) {
    const key = keyOf(workflow, step);
    shown.set(key, { workflow, step });
    const chosen = picked.get(key) ?? [];
    // Not of its name: an id that others refer to has no spaces.
    const title = `choice-${workflow.run.id}-${workflow.steps.indexOf(step)}`;
    const under = busy.has(key);
    return h("section", { class: "card choice", key, "aria-labelledby": title },
      h("div", { class: "card-head" }, h("h2", { id: title }, `Choose: ${step.name}`), h("p", { class: "quiet" }, expiry(step))),
      step.message ? h("p", { class: "choice-message prompt" }, step.message) : null,
      h("div", { class: ["candidates", step.candidates.length <= FEW && "is-few"], style: { "--count": String(step.candidates.length) } }, step.candidates.map((image) => candidate(key, step, image, chosen.indexOf(image.index), under))),
      h("div", { class: ["choice-bar", step.candidates.length > MANY && "is-sticky"] },
        h("p", { class: "num", role: "status" }, said.get(key) ?? `${chosen.length} of ${step.candidates.length} chosen`),
        h("p", { class: "hint choice-keys" }, "Keys 1 to 9 choose. They go on in the order of your choice."),
        may ? h("div", { class: "actions" },
          button("All", () => put(key, step.candidates.map((image) => image.index)), { kind: "small", disabled: under }),
          button("None", () => put(key, []), { kind: "small", disabled: under || !chosen.length }),
          button("Cancel the run", () => cancel(key), { kind: "danger", disabled: under }),
          button(chosen.length ? `Go on with ${counted(chosen.length)}` : "Go on", () => approve(key), { kind: "primary", disabled: under || !chosen.length }))
          : h("p", { class: "hint" }, "You can look at this choice, but not make it.")));
  }

  function candidate(key, step, image, place, under) {
    const is = place >= 0;
    const name = `Candidate ${image.index + 1}`;
    return h("figure", { class: ["candidate", is && "is-chosen"], key: String(image.index) },
      h("button", { type: "button", class: "candidate-picture", "aria-label": `Look at ${name.toLowerCase()} in full`, onclick: () => zoom(key, image.index) },
        h("img", { src: image.url, alt: "", width: image.width, height: image.height, decoding: "async" }),
        is ? h("span", { class: "candidate-place num", "aria-hidden": "true" }, String(place + 1)) : null),
      h("figcaption", {},
        h("button", { type: "button", class: ["button", "candidate-toggle"], "aria-pressed": String(is), disabled: under || !may, onclick: () => toggle(key, image.index) },
          h("span", { class: "candidate-box", "aria-hidden": "true" }, is ? "✓" : ""), name),
        image.seed === undefined ? null : h("span", { class: "quiet num" }, `seed ${image.seed}`)));
  }

  function put(key, chosen, words = null) {
    picked.set(key, chosen);
    const of = shown.get(key).step.candidates.length;
    said.set(key, `${words ? `${words}. ` : ""}${chosen.length} of ${of} chosen`);
    redraw();
  }

  function toggle(key, index) {
    if (busy.has(key) || !may) return;
    const chosen = picked.get(key) ?? [];
    const is = chosen.includes(index);
    put(key, is ? chosen.filter((each) => each !== index) : [...chosen, index], `Candidate ${index + 1} ${is ? "left out" : "chosen"}`);
  }

  function zoom(key, index) {
    const { candidates } = shown.get(key).step;
    lightbox(candidates, candidates.findIndex((image) => image.index === index), {
      describe: (at) => `candidate ${candidates[at].index + 1}`,
      tools: (at, draw) => {
        const is = (picked.get(key) ?? []).includes(candidates[at].index);
        return may ? h("button", { type: "button", class: ["button", is && "primary"], "aria-pressed": String(is), onclick: () => { toggle(key, candidates[at].index); draw(); } }, is ? "✓ Chosen" : "Choose") : null;
      },
      onKey: (event) => byNumber(event, key),
    });
  }

  function keyed(event) {
    if (event.target.closest?.("input, textarea, select, dialog")) return;
    const card = event.target.closest?.(".choice");
    const keys = [...shown.keys()].filter((key) => [...document.querySelectorAll(".choice")].some((each) => each.dataset.key === key));
    byNumber(event, card?.dataset.key ?? (keys.length === 1 ? keys[0] : null));
  }

  function byNumber(event, key) {
    if (!key || event.ctrlKey || event.altKey || event.metaKey || !/^[1-9]$/.test(event.key)) return;
    const image = shown.get(key).step.candidates[Number(event.key) - 1];
    if (image) toggle(key, image.index);
  }

  async function approve(key) {
    const { workflow, step } = shown.get(key);
    const select = picked.get(key);
    await act(key, () => api.post(`${runPath(workflow)}/resume`, { select, step: step.name }), `${counted(select.length)} of ${step.name} go${select.length === 1 ? "es" : ""} on`);
  }

  async function cancel(key) {
    const { workflow } = shown.get(key);
    const yes = await confirm("Cancel this run?", "Cancel the run", `Run ${workflow.run.number} of ${workflow.name} ends here; what it made so far stays until it is cleaned up.`);
    if (yes) await act(key, () => api.post(`${runPath(workflow)}/cancel`), "The run is cancelled");
  }

  async function act(key, work, words) {
    busy.add(key);
    redraw();
    const made = await attempt(work, { done: words }).finally(() => busy.delete(key));
    if (page.left) return;
    if (made) done(made);
    else redraw();
  }

  return card;
}

export const counted = (count, what = "picture") => `${count} ${what}${count === 1 ? "" : "s"}`;

const DEFAULTS = { all: "all go on", first: "the first goes on", cancel: "the run is cancelled" };

function expiry(step) {
  if (!step.expires_at) return "Waits until somebody chooses";
  const otherwise = step.config.default;
  const then = Array.isArray(otherwise) ? `candidates ${otherwise.map((index) => index + 1).join(", ")} go on` : DEFAULTS[otherwise] ?? "its default is taken";
  return [`Without a choice ${then} `, until(step.expires_at), " (", exact(step.expires_at), ")"];
}
