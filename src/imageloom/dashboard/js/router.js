// Pages by address: `#/tasks/task_1?tab=x`. A page is `{ title, show(page) }` in a file of its own
// that is loaded when it is first asked for.

import { api, passing, watch } from "./api.js";

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
  ["/webhooks", "webhooks"],
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

const LEAST = 1000; // milliseconds between two looks, however much happens

export const go = (path) => { location.hash = path; };
/** Write where we are into the address without going there: what is typed into a filter stays. */
export const note = (path) => { history.replaceState(null, "", `#${path}`); };

/**
 * What a page gets: where it is, who is signed in, its place in the document, and work that ends
 * when the person leaves.
 */
export class Page {
  #left = new AbortController();

  constructor(place, { name, params, query, path }, session) {
    Object.assign(this, { place, name, params, query, path, session });
  }

  get signal() { return this.#left.signal; }
  /** Whether the person has left: answers that come now are nobody's. */
  get left() { return this.#left.signal.aborted; }
  leave() { this.#left.abort(); }

  get(path, query) { return api.get(path, { query, signal: this.signal }); }

  /**
   * Do it now and again so many milliseconds after it ended, while the page is seen.
   *
   * An event of `stream` is a hint to do it sooner, once a second at most. Once it has worked, a
   * server that is away for a while stops nothing: the frame says so, and it is tried again.
   */
  async every(milliseconds, work, { stream = null } = {}) {
    let hinted = false;
    let wake = () => {};
    const hint = () => { hinted = true; wake(); };
    if (stream) this.watch(stream, hint);
    document.addEventListener("visibilitychange", () => wake(), { signal: this.signal });
    this.signal.addEventListener("abort", () => wake(), { once: true });
    const rest = (time) => new Promise((resolve) => {
      const timer = setTimeout(resolve, time);
      wake = () => { clearTimeout(timer); resolve(); };
    });
    let worked = false;
    while (!this.left) {
      hinted = false;
      try {
        if (!document.hidden) {
          await work();
          worked = true;
        }
      } catch (error) {
        if (!worked || !passing(error)) throw error;
      }
      if (this.left) return;
      if (stream) await new Promise((resolve) => { setTimeout(resolve, Math.min(LEAST, milliseconds)); });
      if (!hinted && !this.left) await rest(milliseconds);
    }
  }

  /** Follow a stream until the person leaves, or what this returns is called. */
  watch(path, onEvent, options) {
    const end = watch(path, (data) => { if (!this.left) onEvent(data); }, options);
    this.signal.addEventListener("abort", end, { once: true });
    return end;
  }
}
