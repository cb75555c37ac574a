// The workers of the installation, as the overview lists them.

import { h } from "./dom.js";
import { ago, bytes, percent } from "./format.js";
import { address } from "./router.js";
import { idLink, status, table } from "./ui.js";

export function workersTable(workers, session) {
  const all = session.scopes.includes("monitor") ? 1 : null;
  return table("Workers", [
    { name: "Worker", cell: (worker) => [h("span", { class: "id" }, worker.id), worker.id.startsWith(worker.host) ? null : h("div", { class: "quiet" }, worker.host)] },
    { name: "Status", cell: (worker) => [status(worker.status), worker.reason ? h("div", { class: "remark" }, worker.reason) : null] },
    { name: "Device", cell: device },
    { name: "Utilisation", cell: (worker) => (worker.gpu_utilization === null ? null : meter(worker.gpu_utilization, `Utilisation of ${worker.id}`, percent(worker.gpu_utilization))) },
    { name: "Memory", cell: memory },
    { name: "Models", cell: (worker) => (worker.models.length ? worker.models.join(", ") : h("span", { class: "quiet" }, "none loaded")) },
    { name: "Tasks", cell: (worker) => tasks(worker, all) },
    { name: "Heartbeat", cell: (worker) => ago(worker.last_heartbeat) },
    { name: "Version", wide: true, cell: (worker) => worker.version },
  ], workers, { empty: "No worker has been seen for an hour. `imageloom worker` starts one; until then tasks wait." });
}

/** A worker without a GPU says so: its utilisation is not zero, it is not known. */
function device(worker) {
  return worker.device_kind === "cpu" ? h("span", {}, "CPU ", h("span", { class: "quiet" }, worker.device)) : worker.device;
}

function memory({ id, memory_used_bytes: used, memory_bytes: all }) {
  if (all === null) return null;
  return used === null ? bytes(all) : meter(used / all, `Memory of ${id}`, `${bytes(used)} of ${bytes(all)}`);
}

/** Those that may be seen; of the others that there are. */
function tasks(worker, all) {
  const others = worker.task_count - worker.tasks.length;
  if (!worker.task_count) return h("span", { class: "quiet" }, "none");
  return [
    h("ul", { class: "plain" }, worker.tasks.map((id) => h("li", { key: id }, idLink(address(`/tasks/${id}`, { all }), id)))),
    others ? h("span", { class: "quiet" }, worker.tasks.length ? `and ${others} of others` : `${others} of others`) : null,
  ];
}

function meter(share, label, text) {
  return h("span", { class: "meter" },
    h("progress", { max: 1, value: share, "aria-label": label }, text), h("span", { class: "quiet num" }, text));
}
