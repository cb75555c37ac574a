// What was told to whom: endpoints, deliveries with their tries, and the secret that signs them.

import { api } from "../api.js";
import { h, show } from "../dom.js";
import { ago, duration, number as count, until } from "../format.js";
import { address, note } from "../router.js";
import { attempt, button, confirm, copyButton, field, heading, idLink, pager, section, table } from "../ui.js";

const STATES = ["pending", "delivered", "failed"];
const TONES = { pending: ["is-running", "▸"], delivered: ["is-completed", "✓"], failed: ["is-failed", "✕"] };
const SIZE = 25;

export default {
  title: "Webhooks",

  async show(page) {
    const [may, admin] = ["write", "admin"].map((scope) => page.session.scopes.includes(scope));
    let wanted = STATES.includes(page.query.state) ? page.query.state : "";
    let number = Number(page.query.page) || 1;
    let [endpoints, deliveries, secret, busy] = [[], null, null, null];
    const opened = new Map();
    const filter = h("select", { id: "state", onchange: () => { [wanted, number] = [filter.value, 1]; note(here(1)); load(); } },
      h("option", { value: "" }, "any"), STATES.map((each) => h("option", { value: each, selected: each === wanted }, each)));
    const filters = h("div", { class: "list-filters", own: true }, field("State", filter));
    await page.every(3000, load);

    function here(at) {
      return address("/webhooks", { state: wanted, page: at === 1 ? "" : at });
    }

    async function load() {
      const state = wanted;
      const [found, known] = await Promise.all([
        page.get("/webhooks/deliveries", { state, page: number, page_size: SIZE }), page.get("/webhooks/endpoints", { page_size: 100 }),
        ...[...opened.keys()].map(read),
      ]);
      if (state !== wanted) return;
      [deliveries, endpoints] = [found, known.items];
      draw();
    }

    async function read(id) {
      opened.set(id, await page.get(`/webhooks/deliveries/${id}`));
    }

    function draw() {
      show(page.place, heading("Webhooks", { sub: "What happened, told to the URLs that requests named as their webhook" }),
        section("Endpoints", table("Endpoints", [
          { name: "URL", cell: (each) => h("span", { class: "hook-url" }, each.url) },
          { name: "Delivered", num: true, cell: (each) => count(each.delivered) },
          { name: "Pending", num: true, cell: (each) => count(each.pending) },
          { name: "Failed", num: true, cell: (each) => count(each.failed) },
          { name: "Last event", cell: (each) => ago(each.last_event_at) },
          { name: "State", cell: (each) => (each.disabled_at ? [badge("failed", "off, answered 410"), " ", may ? button("Send again", () => enable(each), { kind: "small", disabled: busy !== null, "aria-label": `Send to ${each.url} again` }) : null] : badge("delivered", "on")) },
        ], endpoints, { key: (each) => each.url, empty: ["No event went anywhere in the last week. A request with ", h("code", {}, "webhook_url"), " names where to."] })),
        section("Deliveries", filters,
          table("Deliveries", [
            { name: "Event", cell: (each) => [each.type, h("br"), h("span", { class: "minor" }, idLink(pathOf(each), each.resource_id))] },
            { name: "State", cell: (each) => badge(each.state, each.state) },
            { name: "To", cell: (each) => h("span", { class: "hook-url" }, each.url) },
            { name: "Happened", cell: (each) => ago(each.created_at) },
            { name: "Tries", cell: tries },
            { name: "Next", cell: (each) => (each.next_attempt_at ? until(each.next_attempt_at) : "–") },
            { name: "Actions", cell: (each) => (may ? button("Deliver again", () => replay(each), { kind: "small", disabled: busy === each.id, "aria-label": `Deliver ${each.type} ${each.id} again` }) : "–") },
          ], deliveries.items, { empty: wanted ? `None is ${wanted}.` : "Nothing was to be told yet." }), pager(deliveries, here)),
        admin ? section("Signing secret", secretPart()) : null);
    }

    /** How often it was tried and what came of the last try; all of them on demand. */
    function tries(each) {
      const last = each.last_attempt;
      if (!last) return "none yet";
      return h("details", { ontoggle: (event) => toggled(event, each.id) }, h("summary", {}, h("span", { class: "num" }, each.attempt_count), ` · ${outcome(last)}`),
        h("ol", { class: "tries" }, (opened.get(each.id)?.attempts ?? []).map((made) => h("li", {}, ago(made.at), ` ${outcome(made)} in ${duration(made.duration_seconds)}`))));
    }

    async function toggled(event, id) {
      if (!event.target.open) return void opened.delete(id);
      if (opened.has(id)) return undefined;
      await attempt(() => read(id));
      if (!page.left) draw();
      return undefined;
    }

    function secretPart() {
      return h("div", { class: "stacked-parts" },
        h("p", { class: "quiet" }, "Receivers verify with it that an event is yours. A new one signs at once; the old one signs beside it for 24 hours."),
        secret ? h("div", { class: "code-copy" }, h("pre", { tabindex: 0, role: "region", "aria-label": "The secret" }, secret), copyButton(secret, "Copy the secret")) : null,
        h("div", { class: "actions" },
          secret ? button("Hide", () => { secret = null; draw(); }, { kind: "small" }) : button("Show the secret", () => act("secret", () => api.get("/webhooks/secret"), null, (made) => { secret = made.secret; }), { kind: "small", disabled: busy !== null }),
          button("Change it", rotate, { kind: "small danger", disabled: busy !== null })));
    }

    async function rotate() {
      const yes = await confirm("Change the secret?", "Change it", "Receivers that only know the old one reject what is signed after the next 24 hours.");
      if (yes) await act("secret", () => api.post("/webhooks/secret/rotate"), "The secret is changed", (made) => { secret = made.secret; });
    }

    function replay(each) {
      return act(each.id, () => api.post(`/webhooks/deliveries/${each.id}/replay`), "It is delivered again", load);
    }

    function enable(each) {
      return act(each.url, () => api.post("/webhooks/endpoints/enable", { url: each.url }), "Events go there again", load);
    }

    async function act(name, work, words, then) {
      busy = name;
      draw();
      const made = await attempt(work, { done: words }).finally(() => { busy = null; });
      if (page.left) return;
      if (made) await then(made);
      if (!page.left) draw();
    }
  },
};

const badge = (state, words) => h("span", { class: ["status", TONES[state][0]] }, h("span", { "aria-hidden": "true" }, TONES[state][1]), ` ${words}`);
const outcome = (made) => (made.status === null ? (made.error ?? "no answer").replaceAll("_", " ") : `answered ${made.status}`);
const pathOf = (each) => {
  const kind = each.type.split(".")[0];
  if (kind === "workflow") return address(`/workflows/${each.resource_id}`, { run: each.run_id });
  return kind === "training" ? `/training/${each.resource_id}` : `/tasks/${each.resource_id}`;
};
