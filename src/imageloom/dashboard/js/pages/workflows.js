// Every workflow with its latest run.

import { h, show } from "../dom.js";
import { ago, between, duration } from "../format.js";
import { address, note } from "../router.js";
import { field, heading, idLink, link, pager, progress, section, status, table } from "../ui.js";

const STATUSES = ["created", "running", "paused", "completed", "failed", "cancelled"];
const SIZE = 25;

export default {
  title: "Workflows",

  async show(page) {
    const sees = page.session.scopes.includes("monitor");
    const wanted = { status: page.query.status ?? "", search: page.query.search ?? "", all: sees && page.query.all === "1" ? "1" : "" };
    let number = Number(page.query.page) || 1;
    let asked = 0;
    const list = h("div", { class: "page", own: true });
    const filters = h("form", { own: true, class: "card list-filters", role: "search", onsubmit: (event) => { event.preventDefault(); changed(); }, onchange: changed });
    const chosen = h("select", { id: "status" }, h("option", { value: "" }, "any"), STATUSES.map((each) => h("option", { value: each, selected: each === wanted.status }, each)));
    const search = h("input", { id: "search", type: "search", value: wanted.search, maxlength: 200, placeholder: "Part of the name, or an id" });
    const all = h("input", { id: "all", type: "checkbox", checked: wanted.all === "1" });
    show(filters, field("Status", chosen), field("Search", search), sees ? h("label", { class: "tickbox", for: "all" }, all, " All tenants") : null);
    show(page.place, heading("Workflows", { sub: "Graphs of steps, each with its latest run" }), filters, list);
    await page.every(3000, load);

    function changed() {
      const now = { status: chosen.value, search: search.value.trim(), all: all.checked ? "1" : "" };
      if (Object.entries(now).every(([name, value]) => wanted[name] === value)) return;
      Object.assign(wanted, now);
      number = 1;
      note(here(1));
      load();
    }

    function here(at) {
      return address("/workflows", { ...wanted, page: at === 1 ? "" : at });
    }

    async function load() {
      asked += 1;
      const mine = asked;
      const query = { status: wanted.status, search: wanted.search, page: number, page_size: SIZE };
      const found = wanted.all ? await page.get("/monitoring/workflows", { ...query, all_tenants: true }) : await page.get("/workflows", query);
      // Another filter may have been chosen while this was under way.
      if (mine !== asked) return;
      const filtered = wanted.status || wanted.search;
      show(list, section(`${found.total} workflow${found.total === 1 ? "" : "s"}`,
        table("Workflows", columns(wanted.all ? page.session.tenant : null), found.items, {
          empty: filtered ? "No workflow is like this." : ["There is none yet. ", h("code", {}, "imageloom workflow run workflows/product-to-model.yaml"), " runs one, or ", h("code", {}, "POST /api/v1/workflows"), "."],
        }),
        pager(found, here)));
    }
  },
};

/** `mine` is who looks at those of all tenants, null where everything is theirs. */
function columns(mine) {
  const to = (each) => address(`/workflows/${each.id}`, { all: mine !== null && each.tenant !== mine ? "1" : "" });
  return [
    { name: "Name", cell: (each) => h("div", { class: "named" }, link(to(each), each.name), h("span", { class: "minor" }, idLink(to(each), each.id))) },
    mine === null ? null : { name: "Tenant", cell: (each) => each.tenant },
    { name: "Status", cell: (each) => status(each.status) },
    { name: "Progress", cell: (each) => progress(each.progress, `Progress of ${each.name}`) },
    { name: "Step", cell: (each) => stepOf(each) },
    { name: "Run", num: true, cell: (each) => each.run.number },
    { name: "Created", cell: (each) => ago(each.created_at) },
    { name: "Took", num: true, cell: (each) => duration(between(each.started_at, each.completed_at)) },
  ].filter(Boolean);
}

/** Which step it is at. Lists of monitoring say how many there are, others which. */
function stepOf(workflow) {
  const count = Array.isArray(workflow.steps) ? workflow.steps.length : workflow.steps;
  if (workflow.current_step >= count) return h("span", { class: "quiet" }, `all ${count}`);
  const name = Array.isArray(workflow.steps) ? workflow.steps[workflow.current_step].name : null;
  return [h("span", { class: "num" }, `${workflow.current_step + 1} of ${count}`), name ? h("span", { class: "quiet" }, ` ${name}`) : null];
}
