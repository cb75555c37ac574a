// The public API, called with the session's cookie. Nothing here is special to this page: every
// call works the same with a bearer key.

export const BASE = new URL("api/v1", document.baseURI).pathname;

// A seed may have more digits than a number of this language holds: such a one is kept as text. A
// key of JSON is matched only where it is one: within a string its quotes would be escaped.
const LONG_SEED = /("seed":\s*)(\d{16,})/g;
const SEED_TEXT = /("seed":\s*)"(\d+)"/g;

/** JSON whose seeds are numbers, however long. */
export const toJson = (value, space) => JSON.stringify(value, null, space).replace(SEED_TEXT, "$1$2");
const fromJson = (text) => JSON.parse(text.replace(LONG_SEED, '$1"$2"'));

/** What the API answered instead of what was asked for. */
export class ApiError extends Error {
  constructor(status, { message, type, param, request_id: requestId } = {}) {
    super(message ?? `the server answered ${status}`);
    this.status = status;
    this.type = type;
    this.param = param;
    this.requestId = requestId;
  }
}

/** The server could not be reached at all. */
export class Unreachable extends Error {}

/** Whether the same request may work in a moment. */
export const passing = (error) => error instanceof Unreachable || (error instanceof ApiError && error.status >= 500);

async function call(method, path, { query, body, form, headers = {}, signal } = {}) {
  const url = new URL(BASE + path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const each of [value].flat()) if (each !== undefined && each !== null && each !== "") url.searchParams.append(name, each);
  }
  const options = { method, headers: { Accept: "application/json", ...headers }, signal, credentials: "same-origin" };
  if (body !== undefined) {
    options.body = toJson(body);
    options.headers["Content-Type"] = "application/json";
  }
  if (form !== undefined) options.body = form;
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    dispatchEvent(new CustomEvent("reached", { detail: false }));
    throw new Unreachable("the server cannot be reached");
  }
  dispatchEvent(new CustomEvent("reached", { detail: answer.status !== 503 }));
  const said = await read(answer, signal);
  if (!answer.ok) {
    if (answer.status === 401) dispatchEvent(new Event("signed-out"));
    throw new ApiError(answer.status, said?.error);
  }
  return said;
}

/** The answer's JSON; null where a proxy or nobody said something else. */
async function read(answer, signal) {
  try {
    return fromJson(await answer.text());
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    signal?.throwIfAborted();
    throw new Unreachable("the connection broke off");
  }
}

export const api = {
  get: (path, options) => call("GET", path, options),
  post: (path, body = {}, options) => call("POST", path, { ...options, body }),
  delete: (path, options) => call("DELETE", path, options),
  /** Send a file and return its `url`, which every `*_url` field takes. */
  upload(file, options) {
    const form = new FormData();
    form.append("file", file, file.name);
    return call("POST", "/files", { ...options, form });
  },
};

/**
 * Follow a stream of events: `onEvent` gets the data of each. Returns what ends it.
 *
 * The browser connects again by itself and says which event it saw last. `onState` hears "open",
 * "waiting" while it does so, and "closed".
 */
export function watch(path, onEvent, { onState = () => {} } = {}) {
  const source = new EventSource(BASE + path);
  source.onmessage = (event) => onEvent(fromJson(event.data));
  source.onopen = () => onState("open");
  // A stream that is over answers 204 when asked again, and the browser then leaves it.
  source.onerror = () => onState(source.readyState === EventSource.CLOSED ? "closed" : "waiting");
  return () => source.close();
}
