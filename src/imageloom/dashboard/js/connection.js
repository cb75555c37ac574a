// Whether the server answers: a line below the header while it does not, so that nobody takes what
// was for what is.

import { h, show } from "./dom.js";
import { exact } from "./format.js";
import { toast } from "./ui.js";

/** Say in `place` since when requests are not answered, and in passing when they are again. */
export function tellConnection(place) {
  let lost = false;
  addEventListener("reached", ({ detail: reached }) => {
    if (reached !== lost) return;
    lost = !reached;
    if (reached) toast("Connected again.");
    show(place, lost && h("p", { class: "lost" }, h("span", { "aria-hidden": "true" }, "⚠ "),
      "The server does not answer. What you see is as it was at ", exact(new Date().toISOString()), "; it is tried again."));
  });
}
