// Every training, and a form that begins one.

import { h, show } from "../dom.js";
import { ago, between, duration } from "../format.js";
import { address } from "../router.js";
import { heading, idLink, link, pager, progress, section, status, table } from "../ui.js";
import { trainingForm } from "../training_form.js";

const SIZE = 25;

export default {
  title: "Training",

  async show(page) {
    const number = Number(page.query.page) || 1;
    const form = page.session.scopes.includes("write") ? trainingForm(page) : null;
    await page.every(2500, async () => {
      const found = await page.get("/tasks", { task_type: "training", page: number, page_size: SIZE });
      show(page.place,
        heading("Training", { sub: "From a zip of pictures to an adapter that the next request can name" }),
        section("Trainings", table("Trainings", [
          { name: "Adapter", cell: (each) => h("div", { class: "named" }, link(`/training/${each.id}`, each.params.output_name), h("span", { class: "minor" }, idLink(`/training/${each.id}`, each.id))) },
          { name: "Base model", cell: (each) => each.params.base_model },
          { name: "Status", cell: (each) => status(each.status) },
          { name: "Progress", cell: (each) => progress(each.progress, `Progress of ${each.params.output_name}`) },
          { name: "Epochs", num: true, cell: (each) => each.params.config.epochs },
          { name: "Created", cell: (each) => ago(each.created_at) },
          { name: "Took", num: true, cell: (each) => (each.started_at ? duration(between(each.started_at, each.completed_at)) : "–") },
        ], found.items, { empty: ["None yet. ", form ? "Begin one below, or run " : "This begins one: ", h("code", {}, "imageloom train pictures/ --name my-dress"), "."] }),
        pager(found, (at) => address("/training", { page: at }))),
        form);
    });
  },
};
