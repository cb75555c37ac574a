// Pages by address: `#/tasks/task_1?tab=x`. A page is `{ title, show(page) }` in a file of its own
// that is loaded when it is first asked for.

import { api, watch } from "./api.js";

const ROUTES = [
  ["/", "overview"],
  ["/playground", "playground"],
  ["/gallery", "gallery"],
  ["/tasks", "tasks"],
  ["/tasks/:id", "task"],
  ["/workflows", "workflows"],
  ["/workflows/:id", "workflow"],
  ["/approvals", "approvals"],
  ["/training", "trainings"],
  ["/training/:id", "training"],
  ["/adapters", "adapters"],
  ["/keys", "keys"],
  ["/signin", "signin"],
];

/** Where we are: `{ path, query, name, params }`; `name` is null for an address that is no page's. */
export function here() {
  const [path, search = ""] = (location.hash.slice(1) || "/").split("?");
  const query = Object.fromEntries(new URLSearchParams(search));
  for (const [pattern, name] of ROUTES) {
    const names = [];
    const shape = pattern.replace(/:(\w+)/g, (_, each) => { names.push(each); return "([^/]+)"; });
    const found = path.match(new RegExp(`^${shape}/?$`));
    if (found) return { path, query, name, params: Object.fromEntries(names.map((each, index) => [each, decodeURIComponent(found[index + 1])])) };
  }
  return { path, query, name: null, params: {} };
}

/** An address with a query; empty values are left out. */
export function address(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return kept.length ? `${path}?${new URLSearchParams(kept)}` : path;
}

export const go = (path) => { location.hash = path; };

/**
 * What a page gets: where it is, who is signed in, its place in the document, and work that ends
 * when the person leaves.
 */
export class Page {
  #left = new AbortController();

  constructor(place, { params, query, path }, session) {
    Object.assign(this, { place, params, query, path, session });
  }

  get signal() { return this.#left.signal; }
  /** Whether the person has left: answers that come now are nobody's. */
  get left() { return this.#left.signal.aborted; }
  leave() { this.#left.abort(); }

  get(path, query) { return api.get(path, { query, signal: this.signal }); }

  /** Do it now and again so many milliseconds after it ended, while the page is seen. */
  async every(milliseconds, work) {
    while (!this.left) {
      if (!document.hidden) await work();
      await new Promise((resolve) => { const timer = setTimeout(resolve, milliseconds); this.signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true }); });
    }
  }

  /** Follow a stream until the person leaves, or what this returns is called. */
  watch(path, onEvent, options) {
    const end = watch(path, (data) => { if (!this.left) onEvent(data); }, options);
    this.signal.addEventListener("abort", end, { once: true });
    return end;
  }
}
