// Elements made from values. Whatever a user wrote becomes a text node, never markup: there is no
// way here to pass HTML.

import { visible } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "title", "polyline", "defs", "marker"]);

// Attributes that are read to a person.
const SPOKEN = new Set(["title", "alt", "aria-label", "placeholder"]);

/**
 * Return an element.
 *
 * `props` are attributes; `on…` are listeners, `class` may be a list, null and false leave out.
 * `key` tells `show` which of several siblings is the same one as before. `own` says that a page
 * keeps the element and draws into it by itself: it is put in as it is, never made like another.
 */
export function h(tag, props = {}, ...children) {
  const made = SVG_TAGS.has(tag) && (tag !== "title" || props?.svg)
    ? document.createElementNS(SVG, tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) set(made, name, value);
  append(made, children);
  return made;
}

function set(made, name, value) {
  if (value === null || value === undefined || value === false || name === "svg") return;
  if (name === "own") owned.add(made);
  else if (name === "key") made.dataset.key = value;
  else if (name.startsWith("on")) made[name] = value;
  else if (name === "class" && Array.isArray(value)) {
    const names = value.filter(Boolean).join(" ");
    if (names) made.setAttribute("class", names);
  }
  else if (name === "style") for (const [rule, amount] of Object.entries(value)) made.style.setProperty(rule, amount);
  else if (name === "value" && made.tagName === "TEXTAREA") made.value = value; // as it is: a child would be made visible
  else if (name === "value" && "value" in made && made.tagName !== "LI") { made.value = value; made.setAttribute("value", value); }
  else if (SPOKEN.has(name)) made.setAttribute(name, visible(String(value)));
  else made.setAttribute(name, value === true ? "" : value);
}

function append(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    if (child.isConnected) {
      // Moving what is in the document would cost its focus and its scroll: `sync` leaves it there.
      const stand = document.createElement(STAND);
      if (child.dataset?.key) stand.dataset.key = child.dataset.key;
      stands.set(stand, child);
      parent.append(stand);
    } else parent.append(child instanceof Node ? child : document.createTextNode(visible(String(child))));
  }
}

const owned = new WeakSet();
const STAND = "stand-in";
const stands = new WeakMap();

/** Make `place` show these children, keeping the elements that stay: focus, scroll and typing survive. */
export function show(place, ...children) {
  const wanted = document.createElement("div");
  append(wanted, children);
  sync(place, wanted);
}

function sync(place, wanted) {
  const keyed = new Map();
  const staying = new Set([...wanted.children].map((child) => child.dataset?.key));
  for (const child of [...place.children]) {
    if (!child.dataset?.key) continue;
    // Gone before the others are put in order, so that none of those has to move.
    if (staying.has(child.dataset.key)) keyed.set(child.dataset.key, child);
    else child.remove();
  }
  let now = place.firstChild;
  for (const next of [...wanted.childNodes]) {
    if (stands.has(next)) {
      const kept = stands.get(next);
      if (kept === now) now = now.nextSibling;
      else place.insertBefore(kept, now);
      continue;
    }
    let same = next.dataset?.key ? keyed.get(next.dataset.key) : now;
    if (same && (!alike(same, next) || owned.has(next) || owned.has(same))) same = null;
    if (same && same.dataset?.key !== next.dataset?.key) same = null;
    if (!same) {
      place.insertBefore(next, now);
      for (const stand of next.querySelectorAll?.(STAND) ?? []) if (stands.has(stand)) stand.replaceWith(stands.get(stand));
    } else {
      if (same === now) now = now.nextSibling;
      else place.insertBefore(same, now);
      update(same, next);
    }
  }
  while (now) {
    const rest = now.nextSibling;
    now.remove();
    now = rest;
  }
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName;
}

const LISTENERS = ["onclick", "onchange", "oninput", "onsubmit", "onkeydown", "ontoggle", "onclose", "onload", "onerror",
  "onpointermove", "onpointerleave", "ondragover", "ondragleave", "ondrop", "onfocus", "onblur"];

function update(old, next) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  const [before, after] = [preset(old), preset(next)];
  for (const { name } of [...old.attributes]) {
    // What a person opened, chose or typed is theirs.
    if (!next.hasAttribute(name) && !(name === "open" && /^(DETAILS|DIALOG)$/.test(old.tagName))) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) === value) continue;
    // The page's policy forbids styles in attributes, not those that a script sets.
    if (name === "style") old.style.cssText = next.style.cssText;
    else old.setAttribute(name, value);
  }
  for (const name of LISTENERS) if (old[name] !== next[name]) old[name] = next[name];
  if ("value" in next && /^(PROGRESS|METER)$/.test(old.tagName)) old.value = next.value;
  if (before !== after) choose(old, next);
  if (!/^(TEXTAREA|SELECT)$/.test(old.tagName)) sync(old, next);
}

/** What a control was drawn with, whatever a person did with it since. */
function preset(element) {
  if (element.tagName === "SELECT") return element.querySelector("option[selected]")?.value ?? null;
  if (element.tagName !== "INPUT") return null;
  return /^(checkbox|radio)$/.test(element.type) ? String(element.hasAttribute("checked")) : element.getAttribute("value");
}

/** Let a control show what it is drawn with now; what is being typed is left alone. */
function choose(old, next) {
  if (old.tagName === "SELECT") {
    const { value } = next;
    old.replaceChildren(...next.childNodes);
    old.value = value;
  } else if (/^(checkbox|radio)$/.test(old.type)) old.checked = next.checked;
  else if (old !== document.activeElement) old.value = next.value;
}
