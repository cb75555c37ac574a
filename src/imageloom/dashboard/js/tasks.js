// What several pages say of tasks, and what can be done with one.

import { api } from "./api.js";
import { h } from "./dom.js";
import { address, go } from "./router.js";
import { attempt, confirm, idLink, isOver, progress, status } from "./ui.js";

export const TYPES = ["generation", "processing", "training"];
export const STATUSES = ["pending", "running", "completed", "failed", "cancelled"];

/** The page of a task; the address of another tenant's says that it is one. */
export function taskPath(task, session) {
  const theirs = task.tenant && task.tenant !== session.tenant;
  return task.type === "training" && !theirs ? `/training/${task.id}` : address(`/tasks/${task.id}`, { all: theirs ? 1 : null });
}
export const taskLink = (task, session) => idLink(taskPath(task, session), task.id);

/** How a task stands, with a bar while it runs. */
export const standing = (task) => (task.status === "running"
  ? h("span", { class: "standing" }, status(task.status), progress(task.progress, `Progress of ${task.id}`))
  : status(task.status));

/** Whether this person may change the task: it is their tenant's, and their key may write. */
export const mayChange = (task, session) => session.scopes.includes("write") && (!task.tenant || task.tenant === session.tenant);

/** Cancel it, after asking where work is lost. Gives the task, or null. */
export async function cancel(task) {
  const begun = task.status === "running";
  if (begun && !await confirm("Cancel this task?", "Cancel it", "It is running; what it has done so far is lost.")) return null;
  return attempt(() => api.post(`/tasks/${task.id}/cancel`), { done: "Cancelled." });
}

/** Make a new task of one that is over without a result, and go there. */
export async function retry(task) {
  const made = await attempt(() => api.post(`/tasks/${task.id}/retry`), { done: "Tried again, as a task of its own." });
  if (made) go(`/tasks/${made.id}`);
  return made;
}

/** Make an output again, alone, to compare it; go to the task that does. */
export async function reproduce(task, output) {
  const made = await attempt(() => api.post(`/tasks/${task.id}/reproduce`, { output }), { done: "It is made again and compared." });
  if (made) go(`/tasks/${made.id}`);
}

/** Delete what the task made, after asking. Gives the task, or null. */
export async function cleanup(task) {
  const count = task.output?.images?.length ?? 0;
  const what = count === 1 ? "its picture" : `its ${count} pictures`;
  if (!await confirm(`Delete ${what}?`, "Delete", "The task stays, with its parameters: it can be made again, the files cannot be brought back.")) return null;
  return attempt(() => api.post(`/tasks/${task.id}/cleanup`), { done: count === 1 ? "The picture is deleted." : "The pictures are deleted." });
}

/** A task of a workflow is redone by its run's resume. */
export const canRetry = (task) => (task.status === "failed" || task.status === "cancelled") && !task.workflow;
export const canCancel = (task) => !isOver(task.status);

/** The first line of why it failed, short enough for a list. */
export function brief(error, most = 160) {
  const line = error.split("\n", 1)[0];
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}
