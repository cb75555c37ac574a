// Pictures in full, one after the other, in a dialog.

import { h, show } from "./dom.js";

/**
 * Show `images[index]` in full; arrow keys go to the others, Escape closes.
 *
 * `describe(index)` gives the words for a picture, `tools(index)` what can be done with it, and
 * `onKey(event, index)` hears the keys that are not the dialog's.
 */
export function lightbox(images, index, { describe, tools = () => null, onKey = () => {} }) {
  const dialog = h("dialog", { class: "lightbox", "aria-label": "Picture in full", onclose: () => dialog.remove(), onkeydown: keyed, onclick: (event) => { if (event.target === dialog) dialog.close(); } });
  const last = images.length - 1;
  draw();
  document.body.append(dialog);
  dialog.showModal();

  function draw() {
    const image = images[index];
    const step = (by, label, text) => h("button", { type: "button", class: "button", key: label, "aria-label": label, disabled: !images[index + by], onclick: () => turn(by) }, text);
    show(dialog,
      h("img", { src: image.url, alt: describe(index), width: image.width, height: image.height }),
      h("div", { class: "lightbox-bar" },
        h("p", { class: "quiet", role: "status" }, `${describe(index)}, ${index + 1} of ${last + 1}, ${image.width} × ${image.height}`),
        h("div", { class: "actions" },
          last ? step(-1, "Picture before", "←") : null, last ? step(1, "Next picture", "→") : null,
          tools(index, draw),
          h("a", { class: "button", href: image.url, target: "_blank", rel: "noopener" }, "Open alone"),
          h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close"))));
  }

  function turn(by) {
    if (!images[index + by]) return;
    index += by;
    draw();
  }

  function keyed(event) {
    if (event.key === "ArrowLeft") turn(-1);
    else if (event.key === "ArrowRight") turn(1);
    else {
      onKey(event, index);
      draw();
    }
  }
}

/** Small pictures that open in full. */
export function thumbnails(images, describe) {
  return h("div", { class: "pictures" }, images.map((image, index) =>
    h("button", { type: "button", class: "picture", key: String(index), "aria-label": `Look at ${describe(index)} in full`, onclick: () => lightbox(images, index, { describe }) },
      h("img", { src: image.url, alt: "", width: image.width, height: image.height, loading: "lazy", decoding: "async" }))));
}
