// The list of runs.

/* global parts */

const { ago, element, setText } = parts;
const nav = document.getElementById("runs");
const details = document.getElementById("list");
const list = details.querySelector("ul");
const wide = window.matchMedia("(min-width: 62rem)");

// The list is open beside the run, and folded above it on a small screen.
details.open = wide.matches;
wide.addEventListener("change", () => { details.open = wide.matches; });

export const address = (key) => `/run/${key}`;

export function show({ runs, single, left_out }, chosen, isOverview) {
  nav.hidden = single;
  document.body.classList.toggle("single", single);
  if (single) return;
  const overview = nav.querySelector(".overview");
  if (isOverview) overview.setAttribute("aria-current", "page");
  else overview.removeAttribute("aria-current");
  setText(document.getElementById("count"), runs.length === 1 ? "1 run" : `${runs.length} runs`);
  const more = document.getElementById("left-out");
  more.hidden = left_out === 0;
  setText(more, left_out === 1 ? "1 older run is not listed." : `${left_out} older runs are not listed.`);
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const focused = document.activeElement;
  runs.forEach((run, i) => {
    const item = known.get(run.key) ?? made(run);
    known.delete(run.key);
    update(item, run, run.key === chosen);
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
  for (const gone of known.values()) gone.remove();
  // Moving an element removes its focus.
  if (list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

// Scroll the list, and only the list, until the item is visible.
function reveal(item) {
  const { top, bottom } = item.getBoundingClientRect(), frame = list.getBoundingClientRect();
  if (top < frame.top || bottom > frame.bottom) list.scrollTop += top - frame.top - list.clientHeight / 3;
}

export function close() {
  if (!wide.matches) details.open = false;
}

function made({ key }) {
  const lines = ["name", "state", "best", "tags"].map((name) => element("span", { class: name }));
  return element("li", { "data-key": key, children: [element("a", { href: address(key), children: lines })] });
}

function update(item, run, chosen) {
  const link = item.firstChild;
  if (chosen && !link.hasAttribute("aria-current")) {
    link.setAttribute("aria-current", "page");
    reveal(item);
  } else if (!chosen) link.removeAttribute("aria-current");
  item.dataset.state = run.state;
  setText(link.querySelector(".name"), run.name);
  setText(link.querySelector(".state"), standing(run));
  const when = run.changed ? ago(run.changed) : "";
  setText(link.querySelector(".best"), [run.best && `best ${run.best}`, when].filter(Boolean).join(" · "));
  setText(link.querySelector(".tags"), run.tags.map((tag) => `#${tag}`).join(" "));
  link.title = run.problem || run.name;
}

export function standing({ state, rounds, asked, problem }) {
  if (problem || asked === null) return state;
  return `${state} · round ${rounds.toLocaleString("en")} of ${asked.toLocaleString("en")}`;
}
