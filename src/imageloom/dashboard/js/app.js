// The frame around the pages: who is signed in, where one can go, and which page is shown.

import { api, ApiError } from "./api.js";
import { h, show } from "./dom.js";
import { go, here, Page } from "./router.js";
import { button, failure, notice } from "./ui.js";

const MENU = [
  ["/", "Overview"], ["/playground", "Playground"], ["/gallery", "Gallery"], ["/tasks", "Tasks"], ["/workflows", "Workflows"],
  ["/approvals", "Approvals"], ["/training", "Training"], ["/adapters", "Adapters"], ["/keys", "Keys"],
];

const content = document.getElementById("content");
const header = document.getElementById("header");
let session = null;
let page = null;

async function start() {
  try {
    session = await api.get("/session");
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) return show(content, failure(error, start));
  }
  addEventListener("hashchange", open);
  addEventListener("signed-out", () => { if (session) { session = null; open(); } });
  addEventListener("signed-in", (event) => { session = event.detail; go("/"); open(); });
  await open();
}

async function open() {
  page?.leave();
  const found = here();
  const name = session ? found.name : "signin";
  page = new Page(h("div", { class: ["page", `page-${name}`] }), found, session);
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
    content.replaceChildren(current.place);
    content.focus({ preventScroll: true });
    scrollTo(0, 0);
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
  session = null;
  go("/");
  await open();
}

start();
