// Sign in with an API key. The key is sent once and kept nowhere here; a cookie that scripts cannot
// read stands for it.

import { api, ApiError, Unreachable } from "../api.js";
import { h, show } from "../dom.js";
import { field } from "../ui.js";

export default {
  title: "Sign in",

  show(page) {
    let error = null;
    const key = h("input", { id: "key", name: "key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
    const form = h("form", { class: "card signin", onsubmit: signIn });
    draw();
    key.focus();

    function draw() {
      key.removeAttribute("aria-invalid");
      show(form,
        h("h1", {}, "Sign in"),
        h("p", { class: "quiet" }, "With an API key. The first one stands in the log of the first start; ", h("code", {}, "imageloom keys create"), " makes more."),
        field("API key", key, { error }),
        h("button", { class: "button primary", type: "submit" }, "Sign in"));
      show(page.place, form);
    }

    async function signIn(event) {
      event.preventDefault();
      try {
        const session = await api.post("/session", { key: key.value.trim() });
        dispatchEvent(new CustomEvent("signed-in", { detail: session }));
      } catch (caught) {
        if (!(caught instanceof ApiError || caught instanceof Unreachable)) throw caught;
        error = caught.status === 401 ? "This key is not known here, or was revoked." : caught.message;
        draw();
        key.focus();
      }
    }
  },
};
