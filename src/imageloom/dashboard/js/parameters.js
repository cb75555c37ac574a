// The parameters of a task, to be read and to be copied.

import { h } from "./dom.js";
import { facts } from "./ui.js";

const NAMES = {
  num_outputs: "Outputs", guidance_scale: "Guidance", output_format: "Format", loras: "Adapters", negative_prompt: "Not in the picture",
  input_image_url: "Photograph", input_image_urls: "Photographs", background_image_url: "Background",
};
const LONG = ["prompt", "negative_prompt"];

/** What was asked for, in words; the pictures that it begins from; and all of it as JSON. */
export function parameters(params) {
  const told = Object.entries(params).filter(([name, value]) => value !== null && !LONG.includes(name) && !(Array.isArray(value) && !value.length));
  return [
    LONG.filter((name) => params[name]).map((name) => h("div", { class: "said", key: name },
      h("h3", {}, title(name)), h("p", { class: "prompt" }, params[name]))),
    facts(Object.fromEntries(told.map(([name, value]) => [title(name), readable(name, value)]))),
    h("details", { key: "json" }, h("summary", {}, "As JSON"), h("pre", { tabindex: "0" }, JSON.stringify(params, null, 2))),
  ];
}

function title(name) {
  const words = NAMES[name] ?? name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

function readable(name, value) {
  if (name === "loras") return value.map((each) => h("div", {}, `${each.name} × ${each.weight}`));
  if (/_urls?$/.test(name)) return [value].flat().map((url) => startingPicture(url));
  return typeof value === "object" ? h("code", {}, JSON.stringify(value)) : String(value);
}

/** A picture that a task begins from: seen where it is ours, told where it lies elsewhere. */
function startingPicture(url) {
  if (!isOurs(url)) return h("div", { class: "url" }, url.startsWith("data:") ? "sent with the request" : url);
  return h("a", { class: "picture small", href: url, target: "_blank", rel: "noopener" }, h("img", { src: url, alt: "What it begins from", loading: "lazy" }));
}

/** Whether this page may show it: the policy lets in no picture from elsewhere. */
export const isOurs = (url) => URL.canParse(url, location.href) && new URL(url, location.href).origin === location.origin;
