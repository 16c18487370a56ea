// The panel of a member: facts, ancestry, schedule, decisions with their reasons, failures, and the end of its log.

/* global parts, choices */

"use strict";
const member = (() => {
  const { element, facts, table, value } = parts;
  let dialog = null;
  let current = null;
  // Returns the record of a member, or a promise of it; null: not available.
  let source = () => null;
  let missing = "This page has no record of this member.";

  function use(find, text) {
    source = find;
    missing = text ?? missing;
  }

  function frame() {
    const made = element("dialog", {
      id: "member", "aria-labelledby": "member-title",
      children: [
        element("header", { children: [
          element("h2", { id: "member-title" }), element("button", { type: "button", class: "close", text: "Close" })] }),
        element("div", { class: "record" }),
      ],
    });
    made.querySelector(".close").addEventListener("click", () => made.close());
    made.addEventListener("close", () => {
      current = null;
      choices.set("", "member", null);
    });
    // A click beside the panel closes it.
    made.addEventListener("click", (event) => { if (event.target === made) made.close(); });
    return document.body.appendChild(made);
  }

  async function open(number) {
    dialog ??= frame();
    current = number;
    choices.set("", "member", number);
    dialog.querySelector("h2").textContent = `Member ${number}`;
    const place = dialog.querySelector(".record");
    place.replaceChildren(element("p", { text: "Loading" }));
    if (!dialog.open) dialog.showModal();
    let found = null, problem = missing;
    try {
      found = await source(number);
    } catch (error) {
      problem = error.message;
    }
    if (current !== number) return;
    place.replaceChildren(...(found ? content(found) : [element("p", { text: problem })]));
    dialog.scrollTop = 0;
  }

  const section = (title, ...children) => element("section", { children: [element("h3", { text: title }), ...children] });
  const link = (number) => {
    const made = element("button", { type: "button", class: "link", text: `member ${number}` });
    made.addEventListener("click", () => open(number));
    return made;
  };

  function content(found) {
    const rounds = found.rounds.map(([round, step, score, kind, from, reason, changes]) =>
      [value(round), value(step), value(score), kind, from === null ? "–" : typeof from === "number" ? link(from) : from, reason, changes]);
    const ancestry = found.ancestry.map(([number, first, last, from, to, score]) =>
      [number === found.member ? `member ${number}` : link(number), first === last ? value(first) : `${first} to ${last}`, `${from} to ${to}`, value(score)]);
    const schedule = found.schedule.map(([from, to, values]) => [value(from), value(to), ...values.map(value)]);
    return [
      facts(found.facts),
      found.failures.length > 0 && section("Failures", ...found.failures.flatMap(({ title, details, trace }) => [
        element("p", { class: "failure", text: title }), element("p", { class: "note", text: details }),
        trace && element("pre", { tabindex: 0, text: trace })]).filter(Boolean)),
      ancestry.length > 0 && section("Ancestry of its newest state",
        table(["trained by", "rounds", "steps", "score at the end"], ancestry, "Ancestry")),
      schedule.length > 0 && section("Schedule of its newest state",
        table(["from step", "to step", ...found.hparams], schedule, "Schedule")),
      section("Rounds and decisions",
        table(["round", "step", "score", "decision", "from", "reason", "changed values"], rounds, "Rounds and decisions"),
        found.omitted && element("p", { class: "note", text: found.omitted })),
      found.log && section(`End of ${found.log.name}`, element("pre", { tabindex: 0, text: found.log.text })),
    ].filter(Boolean);
  }

  // Open the panel of the member that the address names.
  function arrive() {
    const asked = choices.get("", "member");
    if (/^\d+$/.test(asked ?? "") && current === null) open(Number(asked));
  }

  return { use, open, arrive };
})();
