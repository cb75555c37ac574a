// The photograph that a picture begins from: chosen, dropped or pasted, and uploaded at once.

import { api, ApiError, Unreachable } from "../api.js";
import { h } from "../dom.js";
import { bytes } from "../format.js";
import { isOurs } from "../parameters.js";
import { button } from "../ui.js";

/**
 * Return what draws the field. `get` gives the photograph of the form or null, `set` changes it,
 * `redraw` draws the form anew.
 */
export function photoField(page, { get, set, redraw }) {
  let coming = null; // the file that is being uploaded
  let error = null;
  let over = false;

  const choose = (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // so that the same one can be chosen again
    take(file);
  };
  // Anywhere on the page: there is no other place here that a picture could be pasted into.
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file) take(file);
  }, { signal: page.signal });

  async function take(file) {
    if (!file) return;
    const shown = URL.createObjectURL(file);
    coming = { name: file.name, shown };
    error = null;
    redraw();
    try {
      const { url, size } = await api.upload(file, { signal: page.signal });
      set({ url, name: file.name, size });
    } catch (caught) {
      if (!(caught instanceof ApiError || caught instanceof Unreachable)) throw caught;
      error = caught.message;
    } finally {
      coming = null;
      URL.revokeObjectURL(shown);
      redraw();
    }
  }

  return (wrong) => {
    const photo = get();
    const said = error ?? wrong;
    const chooser = h("input", {
      id: "p-input_image_url", type: "file", accept: "image/jpeg,image/png,image/webp", onchange: choose, "aria-invalid": said ? "true" : null,
      "aria-describedby": ["p-photo-hint", said && "p-input_image_url-error"].filter(Boolean).join(" "),
    });
    return h("div", {
      class: ["field", "drop", over && "is-over"],
      ondragover: (event) => { event.preventDefault(); if (!over) { over = true; redraw(); } },
      ondragleave: () => { over = false; redraw(); },
      ondrop: (event) => { event.preventDefault(); over = false; take(event.dataTransfer.files[0]); redraw(); },
    },
      h("label", { for: chooser.id }, "Photograph ", h("span", { class: "quiet" }, "(may be left out)")),
      coming ? h("div", { class: "photo", key: "coming" }, h("img", { src: coming.shown, alt: "" }), h("span", { role: "status" }, `Uploading ${coming.name} …`)) : null,
      photo && !coming ? h("div", { class: "photo", key: "photo" },
        isOurs(photo.url) ? h("img", { src: photo.url, alt: "The photograph that the picture begins from" }) : h("span", { class: "url" }, photo.url),
        h("span", {}, photo.name, photo.size ? h("span", { class: "quiet" }, ` ${bytes(photo.size)}`) : null),
        button("Remove", () => { set(null); redraw(); }, { kind: "small", "aria-label": "Remove the photograph" })) : null,
      chooser,
      h("p", { class: "hint", id: "p-photo-hint" }, "Choose, drop or paste one: the picture then begins from it."),
      said ? h("p", { class: "wrong", id: "p-input_image_url-error" }, said) : null);
  };
}
