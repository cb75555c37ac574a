// One run of a workflow: its graph as it moves, the step that a person looks at, and what can be done.

import { api } from "../api.js";
import { choices, counted, runPath, waiting } from "../choice.js";
import { h, show } from "../dom.js";
import { ago, between, duration, until } from "../format.js";
import { graphView, stateOf } from "../graph_view.js";
import { address, go } from "../router.js";
import { stepCard } from "../step_card.js";
import { attempt, button, confirm, facts, heading, idLink, isOver, link, progress, section, status, table } from "../ui.js";

const READ_EVERY = 700; // milliseconds between two readings while events come in
const AGAIN = 1000; // milliseconds until a stream that ended without a word is asked for again

export default {
  title: "Workflow",

  async show(page) {
    const { id } = page.params;
    // Another tenant's, whom an operator may look at and do nothing to.
    const foreign = page.query.all === "1";
    const may = page.session.scopes.includes("write") && !foreign;
    const path = foreign ? `/monitoring/workflows/${id}` : page.query.run ? `/workflows/${id}/runs/${page.query.run}` : `/workflows/${id}`;
    let workflow = await page.get(path, foreign ? { all_tenants: true } : {});
    let runs = { items: [], total: 0 };
    // Which step a person looks at; until they choose one, the one that it is at.
    let chosen = null;
    let busy = null;
    let followed = null;
    let reading = null;
    const graph = graphView(page, (name) => { chosen = name; draw(); });
    const card = choices(page, { redraw: draw, done: took, may });

    draw();
    if (foreign) {
      return page.every(2000, async () => {
        workflow = await page.get(path, { all_tenants: true });
        draw();
      });
    }
    readRuns();
    follow();
    return page.every(1000, draw);

    /** Follow the run until it is over; one that goes on again is followed again. */
    function follow() {
      if (isOver(workflow.status) || workflow.status === "created" || followed === workflow.run.id) return;
      followed = workflow.run.id;
      const end = page.watch(`${runPath(workflow)}/events`, (event) => {
        const before = signature(workflow);
        workflow = { ...workflow, status: event.status, progress: event.progress, current_step: event.current_step, error: event.error,
          steps: workflow.steps.map((step, index) => ({ ...step, status: event.steps[index].status, progress: event.steps[index].progress })) };
        draw();
        if (isOver(event.status)) { end(); followed = null; }
        read(signature(workflow) === before ? READ_EVERY : 0);
      }, { onState: (state) => {
        if (state !== "closed") return;
        // It may have ended before the stream was open.
        followed = null;
        read(AGAIN);
      } });
    }

    /** Read the whole, once for the events of a moment. */
    function read(later) {
      if (reading) return;
      reading = setTimeout(async () => {
        reading = null;
        if (page.left) return;
        const now = await page.get(runPath(workflow)).catch(() => null);
        if (now && !page.left) took(now);
      }, later);
      page.signal.addEventListener("abort", () => clearTimeout(reading), { once: true });
    }

    function took(now) {
      workflow = now;
      draw();
      follow();
      if (runs.items.find((each) => each.run.id === now.run.id)?.status !== now.status) readRuns();
    }

    async function readRuns() {
      const found = await page.get(`/workflows/${id}/runs`, { page_size: 20 }).catch(() => null);
      if (!found || page.left) return;
      runs = found;
      draw();
    }

    async function act(name, work, words) {
      busy = name;
      draw();
      const now = await attempt(work, { done: words }).finally(() => { busy = null; });
      if (page.left) return null;
      if (now) took(now);
      else draw();
      // The button that was pressed may have made way for others.
      if (document.activeElement === document.body) page.place.querySelector(".page-head button")?.focus({ preventScroll: true });
      return now;
    }

    function say(verb, body, words) {
      return act(verb, () => api.post(`${runPath(workflow)}/${verb}`, body), words);
    }

    function draw() {
      const step = workflow.steps.find((each) => each.name === chosen) ?? current(workflow);
      const asked = waiting(workflow);
      const redo = (edits) => say("resume", { edits: { [step.name]: edits } }, `${step.name} is made again`);
      show(page.place,
        heading(workflow.name, { sub: workflow.description, actions: actions() }),
        summary(workflow, foreign ? workflow.tenant : null),
        workflow.error && workflow.status === "failed" ? h("div", { class: "notice is-wrong", key: "error", role: "alert" }, h("strong", {}, "Why it failed: "), workflow.error) : null,
        asked.map((each) => call(each)),
        h("div", { class: "aside flow", key: "flow" },
          h("section", { class: "card graph-card", "aria-label": "Graph" }, graph.box, list(workflow)),
          stepCard(workflow, step, { redo: may && workflow.status === "failed" ? redo : null, busy: Boolean(busy) })),
        asked.map((each) => card(workflow, each)),
        runList(), definition(workflow));
      graph.draw(workflow.steps, step.name);
    }

    function call(step) {
      return h("div", { class: "notice waits", key: `call-${step.name}` },
        h("div", {}, h("strong", {}, `${step.name} waits for your choice`), h("p", { class: "quiet" }, `${counted(step.candidates.length)} to choose from`, step.expires_at ? [", decided without you ", until(step.expires_at)] : null)),
        button("Choose now", () => {
          const place = [...page.place.querySelectorAll(".choice")].find((each) => each.dataset.key === `${workflow.run.id}/${step.name}`);
          place.scrollIntoView({ block: "start" });
          place.querySelector(".candidate-toggle")?.focus({ preventScroll: true });
        }, { kind: "primary" }));
    }

    function actions() {
      if (!may) return null;
      const { status: now } = workflow;
      const made = [];
      const add = (name, label, work, kind = "") => made.push(button(busy === name ? "One moment …" : label, work, { kind, disabled: Boolean(busy), key: name }));
      if (now === "created") add("start", "Start", () => act("start", () => api.post(`/workflows/${id}/start`, { input: workflow.input }), "It is started"), "primary");
      if (now === "running") add("pause", "Pause", () => say("pause", {}, "What runs goes on to its end; nothing more starts"));
      if (now === "paused" && !waiting(workflow).length) add("resume", "Go on", () => say("resume", {}, "It goes on"), "primary");
      if (now === "failed") add("resume", "Redo what failed", () => say("resume", {}, "What failed is made again"), "primary");
      if (["running", "paused", "created"].includes(now)) add("cancel", "Cancel", cancel, "danger");
      if (isOver(now)) add("again", "Run again", again, now === "failed" ? "" : "primary");
      if (isOver(now) && !workflow.cleaned_at) add("cleanup", "Clean up", cleanUp, "danger");
      return made;
    }

    async function cancel() {
      if (await confirm("Cancel this run?", "Cancel the run", "What runs is stopped and nothing more starts. What is made already stays until it is cleaned up.")) await say("cancel", {}, "The run is cancelled");
    }

    async function cleanUp() {
      if (await confirm("Delete the pictures of this run?", "Delete them", "The record of the run stays. Pictures that other runs reused from it are gone there too.")) await say("cleanup", {}, "The pictures of this run are deleted");
    }

    async function again() {
      busy = "again";
      draw();
      const made = await attempt(() => api.post(`/workflows/${id}/runs`, { input: workflow.input }), { done: "A new run has begun" }).finally(() => { busy = null; });
      if (page.left) return;
      if (made) go(address(`/workflows/${id}`, { run: made.run.id }));
      else draw();
    }

    function runList() {
      if (runs.total < 2) return null;
      return section("Runs", table("Runs", [
        { name: "Run", cell: (each) => (each.run.id === workflow.run.id ? h("strong", { "aria-current": "true" }, `${each.run.number}, shown`) : link(address(`/workflows/${id}`, { run: each.run.id }), `${each.run.number}`)) },
        { name: "Status", cell: (each) => status(each.status) },
        { name: "Progress", cell: (each) => progress(each.progress, `Progress of run ${each.run.number}`) },
        { name: "Begun", cell: (each) => ago(each.started_at ?? each.created_at) },
        { name: "Took", num: true, cell: (each) => duration(between(each.started_at, each.completed_at)) },
        { name: "From cache", num: true, cell: (each) => (saved(each) ? `${duration(saved(each))} saved` : "–") },
      ], runs.items, { key: (each) => each.run.id }), runs.total > runs.items.length ? h("p", { class: "quiet" }, `The newest ${runs.items.length} of ${runs.total}.`) : null);
    }
  },
};

const signature = (workflow) => workflow.steps.map((step) => step.status).join();
/** The step that a person wants to see: the one that failed, waits or runs, else the next or the last. */
function current(workflow) {
  for (const each of ["failed", "paused", "running"]) {
    const found = workflow.steps.find((step) => step.status === each);
    if (found) return found;
  }
  return workflow.steps[Math.min(workflow.current_step, workflow.steps.length - 1)];
}
const saved = (workflow) => workflow.steps.reduce((sum, step) => sum + (step.seconds_saved ?? 0), 0);

function summary(workflow, tenant) {
  const { steps, run } = workflow;
  const hits = steps.filter((step) => step.cache === "hit").length;
  return h("div", { class: "card", key: "summary" }, facts({
    Tenant: tenant,
    Status: status(workflow.status),
    Progress: progress(workflow.progress, "Progress of the run"),
    Steps: `${steps.filter((step) => step.status === "completed").length} of ${steps.length} completed`,
    Run: [h("span", {}, `${run.number} `), idLink(address(`/workflows/${workflow.id}`, { run: run.id }), run.id)],
    Created: ago(workflow.created_at),
    Took: workflow.started_at ? duration(between(workflow.started_at, workflow.completed_at)) : null,
    "From cache": hits ? `${counted(hits, "step")}, ${duration(saved(workflow))} saved` : null,
    "Cleaned up": workflow.cleaned_at ? ago(workflow.cleaned_at) : null,
    From: workflow.origin_instance,
  }));
}

function list(workflow) {
  return h("details", { class: "as-list" }, h("summary", {}, "The same as a list"),
    table("Steps", [
      { name: "Step", cell: (step) => step.name },
      { name: "Type", cell: (step) => step.type },
      { name: "State", cell: (step) => stateOf(step) },
      { name: "Progress", num: true, cell: (step) => `${Math.round(step.progress * 100)} %` },
      { name: "After", cell: (step) => step.depends_on.join(", ") || "–" },
      { name: "Took", num: true, cell: (step) => (step.started_at ? duration(between(step.started_at, step.completed_at)) : "–") },
    ], workflow.steps, { key: (step) => step.name }));
}

function definition(workflow) {
  const written = { name: workflow.name, steps: workflow.steps.map(({ name, type, config, depends_on: after }) => ({ name, type, config, depends_on: after })), input: workflow.input };
  return h("details", { class: "card fold", key: "definition" }, h("summary", {}, h("h2", {}, "Definition and input")), h("pre", { tabindex: 0, role: "region", "aria-label": "Definition and input" }, JSON.stringify(written, null, 2)));
}
