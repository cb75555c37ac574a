// The parts that pages are made of.

import { ApiError, Unreachable } from "./api.js";
import { h } from "./dom.js";
import { shortId } from "./format.js";

const OVER = ["completed", "failed", "cancelled"];
/** Whether a task, training or workflow with this status is over. */
export const isOver = (status) => OVER.includes(status);

const SIGNS = {
  pending: "◦", created: "◦", running: "▸", busy: "▸", completed: "✓", idle: "✓", healthy: "✓", failed: "✕", unhealthy: "✕",
  cancelled: "–", skipped: "–", paused: "‖", draining: "↓",
};
export const sign = (value) => SIGNS[value] ?? "•";
/** A status as a sign, a colour and the word: never the colour alone. */
export function status(value) {
  return h("span", { class: ["status", `is-${value}`] }, h("span", { "aria-hidden": "true" }, sign(value)), ` ${value}`);
}

/** A bar from 0 to 1 with its name for who does not see it. */
export function progress(value, label) {
  return h("span", { class: "progress" },
    h("progress", { max: 1, value, "aria-label": label }, `${Math.round(value * 100)} %`),
    h("span", { class: "quiet num", "aria-hidden": "true" }, `${Math.round(value * 100)} %`));
}

/** A link to a page of this site: `link("/tasks/task_1", "…")`. */
export const link = (path, ...text) => h("a", { href: `#${path}` }, ...text);
/** A link with the short form of an id, whole for screen readers and in its title. */
export const idLink = (path, id) => h("a", { href: `#${path}`, class: "id", title: id, "aria-label": id }, shortId(id));

/** A link that looks like a button: for where one goes on. */
export const linkButton = (path, label, { kind = "", ...props } = {}) => h("a", { href: `#${path}`, class: ["button", kind], ...props }, label);

export function button(label, onclick, { kind = "", ...props } = {}) {
  return h("button", { type: "button", class: ["button", kind], onclick, ...props }, label);
}

/** A titled part of a page. `actions` stand beside the title. */
export function section(title, ...children) {
  const options = children[0]?.actions || children[0]?.class ? children.shift() : {};
  const id = `s-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  return h("section", { class: ["card", options.class], "aria-labelledby": id, key: id },
    h("div", { class: "card-head" }, h("h2", { id }, title), options.actions ? h("div", { class: "actions" }, options.actions) : null),
    ...children);
}

/** The title of a page and what can be done there. */
export function heading(title, { sub = null, actions = null } = {}) {
  return h("div", { class: "page-head" },
    h("div", {}, h("h1", {}, title), sub ? h("p", { class: "quiet" }, sub) : null),
    actions ? h("div", { class: "actions" }, actions) : null);
}

/**
 * A table. Columns are `{ name, cell(row), num, wide }`; at phone width each row becomes a card, and
 * `wide` columns are left out there. A `compact` one has room as it is.
 */
export function table(label, columns, rows, { key = (row) => row.id, empty = "Nothing here yet.", compact = false } = {}) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label },
    h("table", { class: compact && "compact" },
      h("caption", { class: "unseen" }, label),
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: [column.num && "num", column.wide && "wide"] }, column.name)))),
      h("tbody", {}, rows.map((row) => h("tr", { key: key(row) }, columns.map((column) => cell(column, column.cell(row))))))));
}

/** A cell: several parts as one, which a card puts beside its name; nothing takes no line there. */
function cell(column, value) {
  const none = value === null || value === undefined;
  return h("td", { class: [column.num && "num", column.wide && "wide", none && "none"], "data-name": column.name },
    none && column.name ? h("span", { class: "quiet" }, "–") : Array.isArray(value) ? h("div", {}, value) : value);
}

/** Pairs of names and values; those that are null are left out. */
export function facts(pairs, props = {}) {
  return h("dl", { class: "facts", ...props }, Object.entries(pairs).filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** A figure of the overview: a number that is read first, what it is, and a remark. */
export function figure(value, label, remark = null, kind = "") {
  return h("div", { class: ["figure", kind] }, h("div", { class: "figure-value num" }, value), h("div", { class: "figure-label" }, label),
    remark ? h("div", { class: "quiet" }, remark) : null);
}

/** A named field of a form. `hint` and `error` are read out with it. */
export function field(label, control, { hint = null, error = null } = {}) {
  const { id } = control;
  const notes = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  if (notes) control.setAttribute("aria-describedby", notes);
  if (error) control.setAttribute("aria-invalid", "true");
  return h("div", { class: "field" }, h("label", { for: id }, label), control,
    hint ? h("p", { class: "hint", id: `${id}-hint` }, hint) : null,
    error ? h("p", { class: "wrong", id: `${id}-error` }, error) : null);
}

/** What went wrong, for a person: the message, which field, and the id to ask about. */
export function failure(error, again = null) {
  const asked = error instanceof ApiError && error.requestId ? h("p", { class: "quiet" }, "Request ", h("code", {}, error.requestId)) : null;
  return h("div", { class: "notice is-wrong", role: "alert" }, h("p", {}, error.message), asked, again ? button("Try again", again) : null);
}

export const notice = (...text) => h("div", { class: "notice" }, ...text);

/** Say something in passing; read out by screen readers. No more than two cover what lies below. */
export function toast(text, kind = "") {
  const made = h("p", { class: ["toast", kind] }, text);
  const place = document.getElementById("toasts");
  place.append(made);
  while (place.children.length > 2) place.firstChild.remove();
  setTimeout(() => made.remove(), 6000);
}

/** Put a text on the clipboard and say so. */
export const copyButton = (text, label = "Copy") => button(label, () => navigator.clipboard.writeText(text).then(() => toast("Copied."), () => toast("This browser does not let pages copy; select the text.")), { kind: "small" });

/** Do it, say what came of it. Returns what it gave, or null where it failed. */
export async function attempt(work, { done = null } = {}) {
  try {
    const made = await work();
    if (done) toast(done);
    return made;
  } catch (error) {
    if (error.name === "AbortError") return null;
    if (!(error instanceof ApiError || error instanceof Unreachable)) throw error;
    toast(error.message, "is-wrong");
    return null;
  }
}

/** Ask before something that cannot be undone. Resolves to whether the person said yes. */
export function confirm(question, yes, detail = "") {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "ask", onclose: () => { dialog.remove(); resolve(dialog.returnValue === "yes"); } },
      h("form", { method: "dialog" }, h("h2", { id: "ask" }, question), detail ? h("p", {}, detail) : null,
        h("div", { class: "actions" }, h("button", { class: "button", value: "no" }, "Keep it"),
          h("button", { class: "button danger", value: "yes" }, yes))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Links to the pages of a list answer. `to(page)` gives the path. */
export function pager({ page, page_size: size, total }, to) {
  const last = Math.max(1, Math.ceil(total / size));
  if (last === 1) return null;
  return h("nav", { class: "pager", "aria-label": "Pages" },
    page > 1 ? link(to(page - 1), "← Newer") : h("span", { class: "quiet" }, "← Newer"),
    h("span", { class: "num" }, `${page} of ${last}`),
    page < last ? link(to(page + 1), "Older →") : h("span", { class: "quiet" }, "Older →"));
}

/** A picture that opens in full; `alt` says what it is of. */
export function picture(image, alt) {
  return h("a", { class: "picture", href: image.url, target: "_blank", rel: "noopener" },
    h("img", { src: image.url, alt, width: image.width, height: image.height, loading: "lazy", decoding: "async" }));
}
