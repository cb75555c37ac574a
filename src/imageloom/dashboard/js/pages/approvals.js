// Everything that waits for a person, with what there is to choose from.

import { choices, counted, runPath, waiting } from "../choice.js";
import { h, show } from "../dom.js";
import { ago } from "../format.js";
import { address } from "../router.js";
import { failure, heading, link } from "../ui.js";

const MOST = 50;

export default {
  title: "Approvals",

  async show(page) {
    let found = null;
    const card = choices(page, { redraw: draw, done: load });
    await page.every(3000, load);

    async function load() {
      found = await page.get("/workflows", { status: "paused", page_size: MOST, sort_order: "asc" });
      draw();
    }

    function draw() {
      const all = found.items.flatMap((workflow) => waiting(workflow).map((step) => ({ workflow, step })));
      show(page.place,
        heading("Approvals", { sub: all.length ? `${counted(all.length, "choice")} wait${all.length === 1 ? "s" : ""} for you, the oldest first` : null }),
        all.length ? null : h("div", { class: "card blank", key: "none" },
          h("h2", {}, "Nothing waits for you"),
          h("p", { class: "quiet" }, "A step of the type ", h("code", {}, "approval"), " stops its branch of a workflow here until somebody chooses which pictures go on."),
          h("p", {}, link("/workflows", "See the workflows"))),
        found.total > MOST ? h("p", { class: "quiet", key: "more" }, `These are the oldest ${MOST} of ${found.total} workflows that are paused.`) : null,
        all.map(({ workflow, step }) => h("div", { class: "asked", key: `${runPath(workflow)}/${step.name}` },
          h("p", { class: "asked-by" }, link(address(`/workflows/${workflow.id}`, { run: workflow.run.id }), workflow.name),
            h("span", { class: "quiet" }, ` run ${workflow.run.number}, begun `, ago(workflow.started_at))),
          card(workflow, step))));
    }
  },
};
