// The pictures of completed tasks, newest first.

import { doings } from "../doing.js";
import { h, show } from "../dom.js";
import { ago } from "../format.js";
import { card, depicts, receiptFacts } from "../pictures.js";
import { address, go } from "../router.js";
import { cleanup, taskLink } from "../tasks.js";
import { attempt, field, heading, link, linkButton, pager } from "../ui.js";

const SIZE = 24; // tasks of a page
const TYPES = [["", "all"], ["generation", "drawn"], ["processing", "processed"]];

export default {
  title: "Gallery",

  async show(page) {
    const { query, session } = page;
    const number = Number(query.page) || 1;
    const receipts = new Map();
    let found = null;
    const doing = doings(() => draw());
    const draw = () => { if (found) show(page.place, parts()); };
    const load = async () => {
      found = await page.get("/tasks", { status: "completed", task_type: query.type, sort_by: "completed_at", page: number, page_size: SIZE });
      draw();
    };
    await load();

    function parts() {
      const shots = found.items.filter((task) => task.output?.images && !task.cleaned_at)
        .flatMap((task) => task.output.images.map((image, index) => ({ task, image, index })));
      const to = (change) => address("/gallery", { ...query, page: null, ...change });
      return [
        heading("Gallery", { sub: `Pictures of tenant ${session.tenant}`, actions: [type(query, to), linkButton("/playground", "Draw a picture", { kind: "primary" })] }),
        shots.length ? h("div", { class: "pictures gallery" }, shots.map(shot)) : h("div", { class: "card empty" }, "No pictures here yet. ", link("/playground", "Draw the first.")),
        pager(found, (other) => to({ page: other === 1 ? null : other })),
      ];
    }

    function shot({ task, image, index }) {
      return card(task, image, index, {
        above: [
          h("p", { class: "prompt clamp", title: depicts(task) }, depicts(task)),
          h("div", { class: "quiet shot-facts" }, task.params.model, ago(task.completed_at), taskLink(task, session)),
        ],
        ways: session.scopes.includes("write")
          ? doing("Delete", () => remove(task), { name: `delete ${task.id}-${index}`, class: "as-link", "aria-label": `Delete the pictures of ${task.id}` }) : null,
        below: task.type === "generation" ? h("details", { class: "receipt", ontoggle: (event) => { if (event.target.open) read(task.id); } },
          h("summary", {}, "Receipt"), receiptOf(task, index)) : null,
      });
    }

    function receiptOf(task, index) {
      const images = receipts.get(task.id);
      if (!images) return h("p", { class: "quiet" }, "Loading …");
      return images[index].receipt ? receiptFacts(images[index].receipt) : h("p", { class: "quiet" }, "It has none.");
    }

    /** Lists leave receipts out: that of a task is read when one of them is opened. */
    async function read(id) {
      if (receipts.has(id)) return;
      const task = await attempt(() => page.get(`/tasks/${id}`));
      if (task) receipts.set(id, task.output.images);
      draw();
    }

    async function remove(task) {
      if (await cleanup(task)) await load();
    }
  },
};

const type = (query, to) => h("div", { class: "inline" }, field("Show", h("select", { id: "g-type", onchange: (event) => go(to({ type: event.target.value })) },
  TYPES.map(([value, label]) => h("option", { value, selected: (query.type ?? "") === value }, label)))));
