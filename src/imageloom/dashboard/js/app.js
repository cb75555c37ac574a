// The frame around the pages: who is signed in, where one can go, and which page is shown.

import { api, ApiError } from "./api.js";
import { tellConnection } from "./connection.js";
import { h, show } from "./dom.js";
import { tick } from "./format.js";
import { go, here, Page } from "./router.js";
import { button, failure, notice } from "./ui.js";

const MENU = [
  ["/", "Overview"], ["/playground", "Playground"], ["/gallery", "Gallery"], ["/tasks", "Tasks"], ["/workflows", "Workflows"],
  ["/approvals", "Approvals"], ["/training", "Training"], ["/adapters", "Adapters"], ["/keys", "Keys"], ["/webhooks", "Webhooks"],
];

const content = document.getElementById("content");
const header = document.getElementById("header");
let session = null;
let page = null;

async function start() {
  const asked = api.get("/session");
  // Its file comes while the server looks who is there.
  const { name } = here();
  if (name) import(`./pages/${name}.js`).catch(() => {});
  try {
    session = await asked;
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) return show(content, failure(error, start));
  }
  addEventListener("hashchange", open);
  addEventListener("signed-out", () => { if (session) { session = null; open(); } });
  addEventListener("signed-in", (event) => { session = event.detail; go("/"); open(); });
  await open();
}

async function open() {
  const found = here();
  const name = session ? found.name : "signin";
  // Where only the query is another, as when a filter is set, the page is drawn over the old one:
  // focus and scroll stay.
  const stays = page?.name === name && page.path === found.path && page.place.isConnected;
  const turned = page?.query.page !== found.query.page;
  page?.leave();
  page = new Page(stays ? page.place : h("div", { class: ["page", `page-${name}`] }), { ...found, name }, session);
  const current = page;
  showHeader(found.path);
  header.querySelector("details")?.removeAttribute("open");
  if (name === null) {
    document.title = "Not found · Imageloom";
    return content.replaceChildren(h("h1", {}, "There is no such page"), notice(h("a", { href: "#/" }, "Go to the overview")));
  }
  try {
    const { default: view } = await import(`./pages/${name}.js`);
    if (current.left) return;
    document.title = `${view.title} · Imageloom`;
    if (!stays) {
      content.replaceChildren(current.place);
      content.focus({ preventScroll: true });
    }
    if (!stays || turned) scrollTo(0, 0);
    await view.show(current);
  } catch (error) {
    if (error.name === "AbortError" || current.left) return;
    content.replaceChildren(failure(error, open));
    if (!(error instanceof ApiError)) throw error;
  }
}

function showHeader(path) {
  const root = `/${path.split("/")[1]}`;
  const items = MENU.map(([to, label]) => h("li", {}, h("a", { href: `#${to}`, "aria-current": to === root ? "page" : null }, label)));
  const brand = h("a", { class: "brand", href: "#/" }, h("img", { src: "dashboard/icon.svg", alt: "", width: 28, height: 28 }), "Imageloom");
  if (!session) return show(header, brand);
  const who = h("div", { class: "who" },
    h("span", {}, h("span", { class: "quiet" }, "Signed in as "), h("strong", {}, session.tenant)),
    button("Sign out", signOut, { kind: "small" }));
  return show(header, brand,
    h("nav", { class: "menu-wide", "aria-label": "Pages" }, h("ul", {}, items)),
    h("details", { class: "menu-small" }, h("summary", {}, "Menu"), h("nav", { "aria-label": "Pages, folded" }, h("ul", {}, items.map((item) => item.cloneNode(true))))),
    who);
}

async function signOut() {
  await api.delete("/session");
  sessionStorage.clear(); // what was typed is the person's who leaves
  session = null;
  go("/");
  await open();
}

setInterval(() => { if (!document.hidden) tick(); }, 1000);
tellConnection(document.getElementById("connection"));
start();
