// What the installation does now: figures first, then what runs, what failed and who works.

import { bars } from "../bars.js";
import { doings } from "../doing.js";
import { h, show } from "../dom.js";
import { ago, duration, number, since } from "../format.js";
import { address, go } from "../router.js";
import { brief, cancel, canRetry, mayChange, retry, taskLink, taskPath, TYPES } from "../tasks.js";
import { figure, heading, link, linkButton, progress, section, table } from "../ui.js";
import { workersTable } from "../workers.js";

const POLL = 4000; // milliseconds between two looks where nothing is heard
const SHOWN = 6; // failures and running tasks

export default {
  title: "Overview",

  async show(page) {
    const seesAll = page.session.scopes.includes("monitor");
    const all = seesAll && page.query.all === "1";
    const whose = { all_tenants: all ? "true" : null };
    let known = null;
    const draw = () => { if (known) show(page.place, parts(page, known, { all, seesAll, doing })); };
    const doing = doings(draw);
    if (!page.place.hasChildNodes()) show(page.place, heading("Overview"), skeleton());
    await page.every(POLL, async () => {
      // All at once: what is seen is of one moment, and none waits for another.
      const [stats, { queues }, health, running, failed] = await Promise.all([
        page.get("/monitoring/stats", { hours: 24, ...whose }),
        page.get("/monitoring/queues"),
        page.get("/monitoring/workers"),
        page.get("/monitoring/tasks", { status: "running", page_size: SHOWN, ...whose }),
        page.get("/monitoring/tasks", { status: "failed", sort_by: "completed_at", page_size: SHOWN, ...whose }),
      ]);
      known = { stats, queues, health, running, failed };
      draw();
    }, { stream: address("/monitoring/events", whose) });
  },
};

/** The places of what comes, so that nothing jumps when it does. */
const skeleton = () => h("div", { class: "figures", "aria-hidden": "true" },
  Array.from({ length: 6 }, () => figure(" ", " ", " ", "is-coming")));

function parts(page, { stats, queues, health, running, failed }, { all, seesAll, doing }) {
  const { session } = page;
  return [
    heading("Overview", {
      sub: all ? "All tenants" : `Tenant ${session.tenant}`,
      actions: [seesAll && toggle(all), linkButton("/playground", "Draw a picture", { kind: "primary" })],
    }),
    figures(stats, health, all),
    h("div", { class: "split" },
      section("Ended by the hour", throughput(stats)),
      section("Newest failures", { actions: link(address("/tasks", { status: "failed", all: all ? 1 : null }), "All") },
        failures(failed.items, session, doing))),
    section("Running now", { actions: link(address("/tasks", { status: "running", all: all ? 1 : null }), "All") },
      runningTable(running.items, session, all, doing)),
    h("div", { class: "split narrow-first" },
      section("Queues", queuesTable(queues)),
      section("Workers", workersTable(health.workers, session))),
  ];
}

const toggle = (all) => h("label", { class: "check" },
  h("input", { type: "checkbox", checked: all, onchange: (event) => go(event.target.checked ? "/?all=1" : "/") }), "All tenants");

function figures({ by_status: by, wait_seconds: wait }, health, all) {
  const to = (status) => address("/tasks", { status, all: all ? 1 : null });
  return h("div", { class: "figures", key: "figures" },
    figure(link(to("pending"), number(by.pending)), "pending"),
    figure(link(to("running"), number(by.running)), "running", null, by.running ? "is-running" : ""),
    figure(`${health.healthy} / ${health.total}`, "workers healthy", workersRemark(health), health.unhealthy || !health.total ? "is-wrong" : ""),
    figure(link(to("completed"), number(by.completed)), "completed", "in 24 hours"),
    figure(link(to("failed"), number(by.failed)), "failed", "in 24 hours", by.failed ? "is-failed" : ""),
    figure(duration(wait.p50), "median wait", wait.p90 === null ? "no task ended yet" : `9 of 10 below ${duration(wait.p90)}`));
}

function workersRemark({ total, unhealthy }) {
  if (!total) return "tasks wait until one starts";
  return unhealthy ? `${unhealthy} unhealthy` : "all is well";
}

const HOUR = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY_HOUR = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });

function throughput({ throughput: hours }) {
  const rows = new Map();
  for (const { hour, completed, failed } of hours) {
    const row = rows.get(hour) ?? { name: HOUR.format(new Date(hour)), title: DAY_HOUR.format(new Date(hour)), values: [0, 0] };
    row.values[0] += completed;
    row.values[1] += failed;
    rows.set(hour, row);
  }
  return bars("Tasks that ended, by the hour", [...rows.values()], [{ name: "completed", tone: "tone-good" }, { name: "failed", tone: "tone-bad" }]);
}

function failures(items, session, doing) {
  if (!items.length) return h("p", { class: "empty" }, "Nothing has failed. What does stands here, with the reason.");
  return h("ul", { class: "entries" }, items.map((task) => h("li", { key: task.id },
    h("div", { class: "entry-head" }, h("span", {}, taskLink(task, session), h("span", { class: "quiet" }, ` ${task.type} · `, ago(task.completed_at))),
      canRetry(task) && mayChange(task, session)
        ? doing("Retry", () => retry(task), { name: `retry ${task.id}`, kind: "small", "aria-label": `Retry ${task.id}` }) : null),
    h("a", { class: "why", href: `#${taskPath(task, session)}` }, brief(task.error ?? "no reason was given")))));
}

function runningTable(items, session, all, doing) {
  return table("Running now", [
    { name: "Task", cell: (task) => taskLink(task, session) },
    { name: "Type", cell: (task) => task.type },
    all ? { name: "Tenant", cell: (task) => task.tenant } : null,
    { name: "Model", wide: true, cell: (task) => task.model ?? "–" },
    { name: "Progress", cell: (task) => progress(task.progress, `Progress of ${task.id}`) },
    { name: "Running for", num: true, cell: (task) => since(task.started_at) },
    { name: "Attempt", num: true, wide: true, cell: (task) => task.attempt },
    { name: "", cell: (task) => (mayChange(task, session)
      ? doing("Cancel", () => cancel(task), { name: `cancel ${task.id}`, kind: "small", "aria-label": `Cancel ${task.id}` }) : null) },
  ].filter(Boolean), items, { empty: h("span", {}, "Nothing runs. ", link("/playground", "Draw a picture"), " to see something move.") });
}

function queuesTable(queues) {
  const order = [...queues].sort((a, b) => TYPES.indexOf(a.name) - TYPES.indexOf(b.name));
  return table("Queues", [
    { name: "Queue", cell: (queue) => queue.name },
    { name: "Pending", num: true, cell: (queue) => number(queue.pending) },
    { name: "Oldest", num: true, cell: (queue) => (queue.oldest_age === null ? "–" : duration(queue.oldest_age)) },
    { name: "Running", num: true, cell: (queue) => number(queue.running) },
    { name: "Workers", num: true, cell: (queue) => number(queue.workers) },
  ], order, { key: (queue) => queue.name, compact: true });
}
