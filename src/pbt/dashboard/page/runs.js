// The list of runs.

import { ago, element, say } from "./parts.js";

const nav = document.getElementById("runs");
const details = document.getElementById("list");
const list = details.querySelector("ul");
const wide = window.matchMedia("(min-width: 62rem)");

// Beside the run it is open; above it, on a small screen, the run itself comes first.
details.open = wide.matches;
wide.addEventListener("change", () => { details.open = wide.matches; });

export const address = (key) => `/run/${key}`;

export function show({ runs, single, left_out }, chosen) {
  nav.hidden = single;
  document.body.classList.toggle("single", single);
  if (single) return;
  say(document.getElementById("count"), runs.length === 1 ? "1 run" : `${runs.length} runs`);
  const more = document.getElementById("left-out");
  more.hidden = left_out === 0;
  say(more, left_out ? `${left_out} more that changed longer ago are not listed.` : "");
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const focused = document.activeElement;
  runs.forEach((run, i) => {
    const item = known.get(run.key) ?? made(run);
    known.delete(run.key);
    tell(item, run, run.key === chosen);
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
  for (const gone of known.values()) gone.remove();
  // An element that is moved loses the focus.
  if (list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

// Scroll the list, and nothing else, to where its item is seen.
function reveal(item) {
  const { top, bottom } = item.getBoundingClientRect(), frame = list.getBoundingClientRect();
  if (top < frame.top || bottom > frame.bottom) list.scrollTop += top - frame.top - list.clientHeight / 3;
}

export function close() {
  if (!wide.matches) details.open = false;
}

function made({ key }) {
  const parts = ["name", "state", "best"].map((name) => element("span", { class: name }));
  return element("li", { "data-key": key, children: [element("a", { href: address(key), children: parts })] });
}

function tell(item, run, chosen) {
  const link = item.firstChild;
  if (chosen && !link.hasAttribute("aria-current")) {
    link.setAttribute("aria-current", "page");
    reveal(item);
  } else if (!chosen) link.removeAttribute("aria-current");
  item.dataset.state = run.state;
  say(link.querySelector(".name"), run.name);
  say(link.querySelector(".state"), standing(run));
  const when = run.changed ? ago(run.changed) : "";
  say(link.querySelector(".best"), [run.best && `best ${run.best}`, when].filter(Boolean).join(" · "));
  link.title = run.problem || run.name;
}

export function standing({ state, rounds, asked, problem }) {
  if (problem || asked === null) return state;
  return `${state} · round ${rounds.toLocaleString("en")} of ${asked.toLocaleString("en")}`;
}
