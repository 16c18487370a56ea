// The report: its figures, tables and records of members, parsed from the page when they are needed.

/* global figures, states, member, tables */

(() => {
  const parsed = (id) => {
    const place = document.getElementById(id);
    return place ? JSON.parse(place.textContent) : null;
  };
  const once = (make) => {
    let found;
    return () => (found === undefined ? (found = make()) : found);
  };
  const records = once(() => parsed("part-records"));
  states.use(once(() => parsed("part-states")));
  member.use((number) => records()?.[number] ?? null,
    "This page has no record of this member, to stay small; `pbt dashboard` shows every member.");
  for (const div of document.querySelectorAll(".figure")) {
    const place = div.closest("section");
    figures.show(place.id, place, () => parsed(`data-${place.id}`));
  }
  const place = document.getElementById("members-table");
  if (place) tables.members(place, parsed("part-members"));
  member.arrive();
})();
