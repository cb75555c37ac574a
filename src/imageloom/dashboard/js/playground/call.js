// A request as one would send it from a shell or from Python: the same body, the key by its name.

import { BASE, toJson } from "../api.js";
import { h } from "../dom.js";
import { escaped } from "../format.js";
import { copyButton } from "../ui.js";

const KEY = "IMAGELOOM_API_KEY";
const URL_OF = () => `${location.origin}${BASE}/tasks/generation`;

/** The call, folded: two ways to write it, each to be copied. */
export function callFold(body) {
  const ways = [["curl", asCurl(body)], ["Python", asPython(body)]];
  return h("details", { class: "call" }, h("summary", {}, "As an API call"), ways.map(([name, code]) => h("div", { class: "code" },
    h("div", { class: "card-head" }, h("h3", {}, name), copyButton(code, `Copy ${name}`)),
    h("pre", { tabindex: "0", "data-call": name }, code))));
}

function asCurl(body) {
  const json = escaped(toJson(body, 2)).replaceAll("'", "'\\''");
  return `curl -X POST ${URL_OF()} \\\n  -H "Authorization: Bearer $${KEY}" \\\n  -H "Content-Type: application/json" \\\n  -d '${json}'`;
}

function asPython(body) {
  // Strings and numbers of JSON are Python's too; the form sends nothing else.
  const literal = escaped(toJson(body, 4));
  return `import os\n\nimport httpx\n\nanswer = httpx.post(\n    "${URL_OF()}",\n    headers={"Authorization": f"Bearer {os.environ['${KEY}']}"},\n    json=${literal.replaceAll("\n", "\n    ")},\n)\nprint(answer.json()["id"])`;
}
