// The selected run, and polling: while the page is visible, ask the server for changes every two seconds.

/* global parts, member, states */

import * as overview from "./overview.js";
import * as run from "./run.js";
import * as runs from "./runs.js";

const { setText } = parts;
const PACE = 2000;
const LATE = 120000;
const PARTS = ["states", "members"];
const main = document.getElementById("run");
const news = document.getElementById("news");
const pause = document.getElementById("pause");

const tags = new Map();
// The figures of the shown run by their tags; an update has only the others.
let known = new Map();
let listed = null;
let shown = { key: null, version: null };
let paused = false;
let timer = null;
let asking = null;
let pollAgain = false;

class Refused extends Error {}

// The server's answer; null if nothing changed since the last one.
async function ask(address, query = "") {
  const headers = tags.has(address) ? { "If-None-Match": tags.get(address) } : {};
  const answer = await fetch(address + query, { headers, cache: "no-store", signal: asking.signal });
  if (answer.status === 304) return null;
  if (answer.status === 401) throw new Refused("The token has changed: open the address printed by the server.");
  if (!answer.ok) throw new Error(answer.statusText);
  const found = await answer.json();
  tags.set(address, answer.headers.get("ETag"));
  return found;
}

const OVERVIEW = "/runs";
const compares = () => Boolean(listed?.comparison || (listed?.comparisons.length && !listed.runs.length));
const isOverview = () => location.pathname === OVERVIEW || (location.pathname === "/" && compares());

function chosen() {
  const match = /^\/run\/([0-9a-f]+)$/.exec(location.pathname);
  return match ? match[1] : listed?.runs[0]?.key ?? null;
}

async function look() {
  const found = await ask("/api/runs");
  if (found) listed = found;
  const key = isOverview() ? null : chosen();
  runs.show(listed, key, isOverview());
  if (isOverview() && !listed.single) return all();
  const one = listed.runs.find((item) => item.key === key);
  if (one === undefined) return absent();
  await follow(one);
  if (shown.key === one.key) run.note(one);
  document.title = `${one.state === "running" ? "▸ " : ""}${one.name}: Population Based Training`;
  light(one.state, paused ? "Updates are paused" : runs.standing(one));
}

async function follow(one) {
  if (shown.key === one.key && shown.version === one.version) return;
  const address = `/api/run/${one.key}`;
  if (shown.key !== one.key) {
    tags.delete(address);
    known = new Map();
    main.setAttribute("aria-busy", "true");
    light(one.state, `Loading ${one.name}`);
  }
  const found = await ask(address, known.size ? `?known=${[...known.keys()].join(".")}` : "");
  if (found && chosen() === one.key) {
    const known_ = new Map();
    for (const [name, tag] of Object.entries(found.tags)) {
      const place = PARTS.includes(name) ? found.parts : found.figures;
      place[name] ??= known.get(tag);
      known_.set(tag, place[name]);
    }
    known = known_;
    run.show(one.key, found);
    shown = { key: one.key, version: found.version };
    main.setAttribute("aria-busy", "false");
    if (first) arrive();
  }
}

function all() {
  if (shown.key !== OVERVIEW || shown.version !== listed) overview.show(listed);
  shown = { key: OVERVIEW, version: listed };
  main.setAttribute("aria-busy", "false");
  document.title = `${listed.name}: Population Based Training`;
  const running = listed.runs.filter(({ state }) => state === "running").length;
  light(running ? "running" : "", `${listed.runs.length === 1 ? "1 run" : `${listed.runs.length} runs`}, ${running} running`);
  if (first) arrive();
}

// The record of a member of the shown run.
async function record(number) {
  const answer = await fetch(`/api/run/${shown.key}/member/${number}`, { cache: "no-store" });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`The server answered: ${answer.statusText}`);
  const found = await answer.json();
  if (found.problem) throw new Error(found.problem);
  return found;
}
member.use(record, "This run has no such member.");

// The URL may name a figure or a member, which exist only after the first run is shown.
let first = true;
function arrive() {
  first = false;
  member.arrive();
  if (location.hash.length > 1) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function absent() {
  const text = listed.runs.length ? "This folder has no run of this name." : "This folder has no runs yet. New ones will appear.";
  if (shown.key !== "" || shown.version !== text) run.problem(listed.runs.length ? "Run not found" : listed.name, text);
  shown = { key: "", version: text };
  main.setAttribute("aria-busy", "false");
  document.title = "Population Based Training";
  light("", text);
}

function light(state, text) {
  document.body.dataset.state = paused ? "paused" : state;
  setText(news, text);
}

async function tick() {
  clearTimeout(timer);
  if (asking) return;
  asking = new AbortController();
  const late = setTimeout(() => asking?.abort(), LATE);
  try {
    await look();
  } catch (error) {
    if (!pollAgain) light("lost", error instanceof Refused ? error.message : "The server does not respond. Trying again");
  } finally {
    clearTimeout(late);
    asking = null;
    if (pollAgain) {
      pollAgain = false;
      tick();
    } else if (!paused && !document.hidden) timer = setTimeout(tick, PACE);
  }
}

// Abort the pending request, which may take seconds for a large run, and poll at once.
function tickNow() {
  if (asking === null) return tick();
  pollAgain = true;
  asking.abort();
}

function choose(address) {
  runs.close();
  history.pushState(null, "", address);
  window.scrollTo(0, 0);
  main.focus({ preventScroll: true });
  tickNow();
}

document.getElementById("runs").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  // A click with a modifier key is left to the browser, which opens a tab or a window.
  if (link === null || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  choose(link.href);
});
window.addEventListener("popstate", tickNow);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) tick(); });
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  setText(pause, paused ? "Resume updates" : "Pause updates");
  if (paused) {
    clearTimeout(timer);
    light("paused", "Updates are paused");
  } else tick();
});
tick();
