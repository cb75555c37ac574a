// The API keys of the tenant: make one, see it once, revoke one.

import { api } from "../api.js";
import { h, show } from "../dom.js";
import { ago } from "../format.js";
import { address } from "../router.js";
import { attempt, button, confirm, copyButton, heading, notice, pager, section, table } from "../ui.js";

const SCOPES = {
  read: "see tasks, pictures, workflows, adapters",
  write: "create, cancel, choose, clean up",
  admin: "make and revoke keys, read the webhook secret",
  monitor: "see the whole installation, of all tenants",
};
const SIZE = 50;

export default {
  title: "Keys",

  async show(page) {
    const { scopes } = page.session;
    if (!scopes.includes("admin")) {
      return show(page.place, heading("Keys"), notice(
        h("p", {}, "Keys are made and revoked by a key with the scope ", h("code", {}, "admin"), `. Yours has: ${scopes.join(", ")}.`),
        h("p", { class: "quiet" }, "Ask whoever runs this installation, or use ", h("code", {}, "imageloom keys create"), " on its machine.")));
    }
    const number = Number(page.query.page) || 1;
    const allowed = Object.keys(SCOPES).filter((scope) => scopes.includes(scope));
    const form = h("form", { own: true, onsubmit: make });
    let keys = { items: [], total: 0, page: number, page_size: SIZE };
    let [made, busy] = [null, false];
    await load();
    return page.every(15000, load);

    async function load() {
      keys = await page.get("/keys", { page: number, page_size: SIZE });
      draw();
    }

    function draw() {
      show(form,
        h("fieldset", { class: "scopes" }, h("legend", {}, "What it may do"), allowed.map((scope) =>
          h("label", { class: "tickbox", for: `scope-${scope}` },
            h("input", { type: "checkbox", id: `scope-${scope}`, name: scope, checked: ["read", "write"].includes(scope) }),
            h("span", {}, h("strong", {}, scope), h("span", { class: "quiet" }, ` ${SCOPES[scope]}`))))),
        h("div", { class: "actions" }, h("button", { type: "submit", class: "button primary", disabled: busy }, "Make a key")));
      show(page.place, heading("Keys", { sub: `API keys of the tenant ${page.session.tenant}` }),
        made ? secret() : null,
        h("section", { class: "card", key: "make", "aria-label": "Make a key" }, h("div", { class: "card-head" }, h("h2", {}, "Make a key")), form),
        section("All keys", table("Keys", [
          { name: "Key", cell: (each) => [h("code", { class: "id" }, each.id), each.current ? h("span", { class: "tag" }, "in use here") : null] },
          { name: "Scopes", cell: (each) => each.scopes.join(", ") },
          { name: "Created", cell: (each) => ago(each.created_at) },
          { name: "State", cell: (each) => (each.revoked_at ? h("span", { class: "status is-cancelled" }, "revoked ", ago(each.revoked_at)) : h("span", { class: "status is-completed" }, "✓ good")) },
          { name: "Actions", cell: (each) => (each.revoked_at ? "–" : button("Revoke", () => revoke(each), { kind: "small danger", disabled: busy, "aria-label": `Revoke ${each.id}` })) },
        ], keys.items), pager(keys, (at) => address("/keys", { page: at }))));
    }

    function secret() {
      return h("section", { class: "notice is-completed secret", key: "secret", "aria-labelledby": "secret-title" },
        h("h2", { id: "secret-title", tabindex: -1 }, "Your new key"),
        h("p", {}, "Copy it now: it is shown this once and kept nowhere."),
        h("div", { class: "code-copy" }, h("pre", { tabindex: 0, role: "region", "aria-label": "The key" }, made.key), copyButton(made.key, "Copy the key")),
        h("div", { class: "actions" }, button("I have it", () => { made = null; draw(); }, { kind: "small" })));
    }

    async function make(event) {
      event.preventDefault();
      const wanted = allowed.filter((scope) => form.elements[scope].checked);
      if (!wanted.length) {
        form.elements[allowed[0]].setCustomValidity("Choose at least one.");
        form.elements[allowed[0]].reportValidity();
        form.elements[allowed[0]].setCustomValidity("");
        return;
      }
      busy = true;
      draw();
      const answer = await attempt(() => api.post("/keys", { scopes: wanted })).finally(() => { busy = false; });
      if (page.left) return;
      made = answer ?? made;
      await load();
      if (answer) document.getElementById("secret-title")?.focus();
    }

    async function revoke(key) {
      const detail = key.current
        ? "It is the key that you are signed in with: you will be signed out, and need another one to come back."
        : "Whatever uses it is refused from then on. This cannot be taken back.";
      if (!(await confirm(`Revoke ${key.id}?`, "Revoke it", detail))) return;
      busy = true;
      draw();
      const done = await attempt(() => api.delete(`/keys/${key.id}`), { done: `${key.id} is revoked` }).finally(() => { busy = false; });
      if (page.left) return;
      if (done && made?.id === key.id) made = null;
      await load();
    }
  },
};
