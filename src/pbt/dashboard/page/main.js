// What is looked at, and the clock: every two seconds, while somebody looks, the server is asked what changed.

import { say } from "./parts.js";
import * as run from "./run.js";
import * as runs from "./runs.js";

const PACE = 2000;
const LATE = 120000;
const main = document.getElementById("run");
const news = document.getElementById("news");
const pause = document.getElementById("pause");

const tags = new Map();
let listed = null;
let shown = { key: null, version: null };
let paused = false;
let timer = null;
let asking = null;
let wanted = false;

class Refused extends Error {}

// The answer to a question; null: the one that is known still holds.
async function ask(address) {
  const headers = tags.has(address) ? { "If-None-Match": tags.get(address) } : {};
  const answer = await fetch(address, { headers, cache: "no-store", signal: asking.signal });
  if (answer.status === 304) return null;
  if (answer.status === 401) throw new Refused("The token is another one now: open the address that the server printed.");
  if (!answer.ok) throw new Error(answer.statusText);
  const found = await answer.json();
  tags.set(address, answer.headers.get("ETag"));
  return found;
}

function chosen() {
  const match = /^\/run\/([0-9a-f]+)$/.exec(location.pathname);
  return match ? match[1] : listed?.runs[0]?.key ?? null;
}

async function look() {
  const found = await ask("/api/runs");
  if (found) listed = found;
  const key = chosen();
  runs.show(listed, key);
  const one = listed.runs.find((item) => item.key === key);
  if (one === undefined) return absent();
  await follow(one);
  document.title = `${one.state === "running" ? "▸ " : ""}${one.name}: Population Based Training`;
  light(one.state, paused ? "Updates are paused" : runs.standing(one));
}

async function follow(one) {
  if (shown.key === one.key && shown.version === one.version) return;
  const address = `/api/run/${one.key}`;
  if (shown.key !== one.key) {
    tags.delete(address);
    main.setAttribute("aria-busy", "true");
    light(one.state, `Loading ${one.name}`);
  }
  const found = await ask(address);
  if (found && chosen() === one.key) {
    run.show(one.key, found);
    shown = { key: one.key, version: found.version };
    main.setAttribute("aria-busy", "false");
    if (first) arrive();
  }
}

// An address may name a picture, which is there only now.
let first = true;
function arrive() {
  first = false;
  if (location.hash.length > 1) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function absent() {
  const text = listed.runs.length ? "There is no run of this name here." : "There are no runs here now; new ones will appear.";
  if (shown.key !== "" || shown.version !== text) run.problem(listed.runs.length ? "No such run" : listed.name, text);
  shown = { key: "", version: text };
  main.setAttribute("aria-busy", "false");
  document.title = "Population Based Training";
  light("", text);
}

function light(state, text) {
  document.body.dataset.state = paused ? "paused" : state;
  say(news, text);
}

async function tick() {
  clearTimeout(timer);
  if (asking) return;
  asking = new AbortController();
  const late = setTimeout(() => asking?.abort(), LATE);
  try {
    await look();
  } catch (error) {
    if (!wanted) light("lost", error instanceof Refused ? error.message : "The server does not answer; trying again");
  } finally {
    clearTimeout(late);
    asking = null;
    if (wanted) {
      wanted = false;
      tick();
    } else if (!paused && !document.hidden) timer = setTimeout(tick, PACE);
  }
}

// Now, whatever is being asked: a large run may take seconds to be drawn, and is looked at no longer.
function tickNow() {
  if (asking === null) return tick();
  wanted = true;
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
  // With a key held down it is the browser's: another tab, another window.
  if (link === null || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  choose(link.href);
});
window.addEventListener("popstate", tickNow);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) tick(); });
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  say(pause, paused ? "Resume updates" : "Pause updates");
  if (paused) {
    clearTimeout(timer);
    light("paused", "Updates are paused");
  } else tick();
});
tick();
