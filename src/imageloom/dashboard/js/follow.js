// A task as it goes: read once, then told by its events until it is over.

import { passing } from "./api.js";
import { isOver } from "./ui.js";

const POLL = 3000; // milliseconds between looks at what events do not tell: the place in the queue

/**
 * Call `onTask` with the task now and after every change, until it is over or the page is left.
 * Gives the task that is over.
 */
export async function follow(page, id, onTask) {
  let task = await page.get(`/tasks/${id}`);
  onTask(task);
  if (isOver(task.status)) return task;
  const ended = new AbortController();
  const { promise, resolve, reject } = defer();
  let heard = false;
  let over = false;
  let reading = null;
  const read = () => {
    reading ??= page.get(`/tasks/${id}`).then((read) => {
      task = read;
      if (ended.signal.aborted) return;
      onTask(task);
      if (isOver(task.status)) resolve(task);
    }).catch((error) => { if (!passing(error)) reject(error); }).finally(() => { reading = null; });
    return reading;
  };
  const end = page.watch(`/tasks/${id}/events`, async (event) => {
    heard = true;
    if (isOver(event.status)) {
      // The stream would be asked for again, only to hear that it is over.
      end();
      over = true;
      // What an event leaves out: receipts, and what is known of a failure.
      await reading;
      return read();
    }
    const { status, progress, attempt, error, previews } = event;
    task = { ...task, status, progress, attempt, error, previews: previews ?? (status === "running" ? task.previews : null) };
    if (status !== "pending") task.queue_position = null;
    onTask(task);
  });
  const timer = setInterval(() => { if (!document.hidden && (task.status === "pending" || over || !heard)) read(); }, POLL);
  page.signal.addEventListener("abort", () => clearInterval(timer), { once: true });
  try {
    return await promise;
  } finally {
    end();
    clearInterval(timer);
    ended.abort();
  }
}

function defer() {
  let resolve;
  let reject;
  const promise = new Promise((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
}
