// The list of tasks. What is looked for stands in the address, so that it can be kept and sent.

import { h, show } from "../dom.js";
import { ago, duration } from "../format.js";
import { address, go } from "../router.js";
import { brief, standing, STATUSES, taskLink, TYPES } from "../tasks.js";
import { field, heading, link, linkButton, pager, section, table } from "../ui.js";

const POLL = 5000; // milliseconds
const SIZE = 25;

export default {
  title: "Tasks",

  async show(page) {
    const { query, session } = page;
    const seesAll = session.scopes.includes("monitor");
    const all = seesAll && query.all === "1";
    const number = Number(query.page) || 1;
    const asked = {
      status: query.status, task_type: query.type, search: query.id?.trim(),
      created_after: instant(query.after), created_before: instant(query.before),
      all_tenants: all ? "true" : null, page: number, page_size: SIZE,
    };
    const to = (change) => address("/tasks", { ...query, page: null, ...change });
    const filtered = ["status", "type", "id", "after", "before"].some((name) => query[name]);
    await page.every(POLL, async () => {
      const found = await page.get("/monitoring/tasks", asked);
      show(page.place,
        heading("Tasks", { sub: all ? "All tenants" : `Tenant ${session.tenant}`, actions: linkButton("/playground", "Draw a picture", { kind: "primary" }) }),
        filters(query, { seesAll, all, to, filtered }),
        section(title(found.total, filtered),
          list(found.items, session, { all, filtered }), pager(found, (other) => to({ page: other === 1 ? null : other }))));
    }, { stream: address("/monitoring/events", { all_tenants: asked.all_tenants }) });
  },
};

const title = (total, filtered) => `${total.toLocaleString()} ${total === 1 ? "task" : "tasks"}${filtered ? " found" : ""}`;

function filters(query, { seesAll, all, to, filtered }) {
  const set = (name) => (event) => go(to({ [name]: event.target.type === "checkbox" ? (event.target.checked ? 1 : null) : event.target.value }));
  const choice = (name, label, values) => field(label, h("select", { id: `f-${name}`, onchange: set(name) },
    h("option", { value: "", selected: !query[name] }, "any"), values.map((value) => h("option", { value, selected: query[name] === value }, value))));
  const time = (name, label) => field(label, h("input", { id: `f-${name}`, type: "datetime-local", value: query[name] ?? "", onchange: set(name) }));
  return h("form", { class: "card filters", role: "search", "aria-label": "Tasks", onsubmit: (event) => { event.preventDefault(); go(to({ id: event.target.querySelector("#f-id").value })); } },
    choice("status", "Status", STATUSES),
    choice("type", "Type", TYPES),
    time("after", "Created after"),
    time("before", "Created before"),
    field("Id begins with", h("input", { id: "f-id", type: "search", value: query.id ?? "", placeholder: "task_…", spellcheck: "false", autocomplete: "off", onchange: set("id") })),
    h("div", { class: "actions" },
      seesAll ? h("label", { class: "check" }, h("input", { type: "checkbox", checked: all, onchange: set("all") }), "All tenants") : null,
      filtered ? link(address("/tasks", { all: all ? 1 : null }), "Clear") : null));
}

function list(items, session, { all, filtered }) {
  return table("Tasks", [
    { name: "Task", cell: (task) => taskLink(task, session) },
    { name: "Type", cell: (task) => h("div", { class: "model" }, task.type, task.model ? h("div", { class: "remark" }, task.model) : null) },
    all ? { name: "Tenant", cell: (task) => task.tenant } : null,
    { name: "Status", cell: standing },
    { name: "Created", cell: (task) => ago(task.created_at) },
    { name: "Waited", num: true, wide: true, cell: (task) => duration(task.wait_seconds) },
    { name: "Ran", num: true, cell: (task) => (task.run_seconds === null ? null : duration(task.run_seconds)) },
    { name: "What went wrong", cell: (task) => task.error && h("span", { class: "wrong" }, brief(task.error, 110)) },
  ].filter(Boolean), items, {
    empty: filtered ? "No task is like that." : h("span", {}, "No tasks yet. ", link("/playground", "Draw a picture"), ", or send one to the API."),
  });
}

/** The moment that a field of this clock names, as the API takes it; null where it names none. */
function instant(local) {
  const time = local ? new Date(local) : null;
  return time && !Number.isNaN(time.getTime()) ? time.toISOString() : null;
}
