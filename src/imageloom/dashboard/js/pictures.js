// Pictures that tasks made, with what they were made from; and what they are before they are made.

import { h } from "./dom.js";
import { address } from "./router.js";
import { facts, link, picture } from "./ui.js";

/** The playground, filled in with a task's parameters and the seed of one picture. */
export const againPath = (task, index) => address("/playground", { again: task.id, output: index });
/** The playground, filled in to begin from one picture. */
export const varyPath = (task, index) => address("/playground", { vary: task.id, output: index });

/** What a picture is of, for who does not see it: the prompt, else what was done to it. */
export const depicts = (task) => task.params.prompt ?? task.params.operation ?? task.type;

/** A picture with its seed, size and ways on: `ways` are more of these, `above` and `below` stand around. */
export function card(task, image, index, { above = null, ways = null, below = null } = {}) {
  // Another tenant's, which says whose it is, can be seen and not drawn again.
  const drawn = task.type === "generation" && task.tenant === undefined;
  return h("figure", { class: "shot", key: `${task.id}-${index}` },
    picture(image, depicts(task)),
    h("figcaption", {},
      above,
      h("div", { class: "shot-facts num" },
        image.seed === undefined ? null : h("span", {}, h("span", { class: "quiet" }, "Seed "), image.seed),
        h("span", { class: "quiet" }, `${image.width} × ${image.height}`),
        image.method ? h("span", { class: "quiet" }, image.method) : null),
      h("div", { class: "shot-ways" },
        drawn ? link(againPath(task, index), "Again with this seed") : null,
        drawn ? link(varyPath(task, index), "Vary") : null,
        h("a", { href: image.url, download: `${task.id}-${index}` }, "Download"), ways),
      below));
}

/** What a picture was made from, folded. */
export const receiptFold = (receipt) => receipt && h("details", { class: "receipt" }, h("summary", {}, "Receipt"), receiptFacts(receipt));

export function receiptFacts({ sha256, seed, model, weights, adapters, input, scheduler, device, versions }) {
  const digest = (value) => value && h("code", { class: "digest" }, value);
  return facts({
    Seed: String(seed),
    Model: model,
    Weights: digest(weights),
    Adapters: adapters.length ? adapters.map((each) => h("div", {}, `${each.name} × ${each.weight} `, digest(each.sha256))) : null,
    Input: digest(input),
    Scheduler: pairs(scheduler),
    Device: pairs(device),
    Versions: pairs(versions),
    Picture: digest(sha256),
  }, { class: "facts stacked" });
}

const pairs = (values) => Object.entries(values).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");

/** The pictures of a task that runs, as far as they are seen; places for those that are not yet. */
export function forming(task) {
  const count = task.params.num_outputs ?? 1;
  const seen = new Map((task.previews ?? []).map((preview) => [preview.index, preview]));
  return h("div", { class: "pictures large" }, Array.from({ length: count }, (_, index) => {
    const preview = seen.get(index);
    const shape = { "aspect-ratio": `${task.params.width ?? 1} / ${task.params.height ?? 1}` };
    return h("figure", { class: "shot", key: `preview-${index}` },
      h("div", { class: "picture is-forming", style: shape },
        // The one before is gone once a newer one is there: whoever comes late sees the place only.
        preview ? h("img", {
          src: preview.url, alt: `Picture ${index + 1} as it forms`, class: "preview",
          onerror: ({ target }) => { target.hidden = true; }, onload: ({ target }) => { target.hidden = false; },
        }) : null),
      h("figcaption", { class: "quiet num" }, preview ? `Step ${preview.step} of ${preview.steps}` : "Not begun"));
  }));
}
