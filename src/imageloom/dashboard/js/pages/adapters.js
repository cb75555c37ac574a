// The adapters of the tenant, and the models that they can be used with.

import { api } from "../api.js";
import { h, show } from "../dom.js";
import { attempt, button, confirm, heading, link, section, table } from "../ui.js";

const FOR = { upscaler: "enlarging", segmenter: "telling a subject from its background" };

export default {
  title: "Adapters",

  async show(page) {
    let models = [];
    let busy = null;
    const may = page.session.scopes.includes("write");
    await page.every(10000, load);

    async function load() {
      ({ items: models } = await page.get("/models"));
      draw();
    }

    function draw() {
      const adapters = models.filter((each) => each.kind === "adapter");
      const bases = models.filter((each) => each.kind === "base");
      const others = models.filter((each) => !["adapter", "base"].includes(each.kind));
      show(page.place,
        heading("Adapters", { sub: "LoRAs that you trained, and the models of this installation" }),
        section("Your adapters", table("Your adapters", [
          { name: "Name", cell: (each) => h("strong", {}, each.name) },
          { name: "Version", num: true, cell: (each) => each.version },
          { name: "Base model", cell: (each) => each.base_model },
          { name: "Trigger word", cell: (each) => (each.trigger_word ? h("code", {}, each.trigger_word) : "–") },
          { name: "Made by", cell: (each) => link(`/training/${each.source.slice(each.source.indexOf(":") + 1)}`, "its training") },
          { name: "Actions", cell: actions },
        ], adapters, { key: (each) => each.name, empty: [`None yet. `, link("/training", "Train one"), " from a zip of pictures."] })),
        section("Base models", table("Base models", [
          { name: "Name", cell: (each) => [h("strong", {}, each.name), each.default ? h("span", { class: "tag" }, "default") : null] },
          { name: "Family", cell: (each) => each.family },
          { name: "Draws at", num: true, cell: (each) => (each.default_size ? `${each.default_size} px` : "–") },
          { name: "Steps", num: true, cell: (each) => each.steps ?? "–" },
          { name: "Licence", cell: (each) => each.licence },
          { name: "About", wide: true, cell: (each) => h("span", { class: "quiet" }, each.description) },
        ], bases, { key: (each) => each.name })),
        section("Upscalers and segmenters", table("Upscalers and segmenters", [
          { name: "Name", cell: (each) => [h("strong", {}, each.name), each.default ? h("span", { class: "tag" }, "default") : null] },
          { name: "For", cell: (each) => FOR[each.kind] ?? each.kind },
          { name: "Licence", cell: (each) => each.licence },
          { name: "About", wide: true, cell: (each) => h("span", { class: "quiet" }, each.description) },
        ], others, { key: (each) => each.name })));
    }

    function actions(adapter) {
      return h("div", { class: "actions" },
        h("a", { class: "button small", href: `#/playground?lora=${encodeURIComponent(adapter.name)}`, "aria-label": `Use ${adapter.name} in the playground` }, "Use in the playground"),
        may ? button("Retire", () => retire(adapter), { kind: "small danger", disabled: busy === adapter.name, "aria-label": `Retire ${adapter.name}` }) : null);
    }

    async function retire(adapter) {
      const yes = await confirm(`Retire ${adapter.name}?`, "Retire it", "All its versions are taken out of use, and tasks that wait for it will fail. Pictures that it made stay.");
      if (!yes) return;
      busy = adapter.name;
      draw();
      await attempt(() => api.delete(`/models/${encodeURIComponent(adapter.name)}`), { done: `${adapter.name} is retired` }).finally(() => { busy = null; });
      if (!page.left) await load();
    }
  },
};
