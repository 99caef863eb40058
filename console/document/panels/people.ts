/** Who is here. */
import { el } from "../../dom.ts";
import { throttled } from "../../view.ts";
import type { Desk, Panel } from "../desk.ts";
import { initialsOf, peopleOf, type Person } from "../people.ts";

/** How often the list is drawn at most, in ms: cursors of others change it many times a second. */
const DRAW_MS = 300;
/** Pictures in the heading; the others are a number. */
const FACES_MAX = 5;

/** The panel, and the faces for the heading. */
export function peoplePanel({ client, signal }: Desk): { panel: Panel; faces: HTMLElement } {
  const list = el("ul", { class: "plain", "aria-label": "Who is here" });
  const faces = el("ul", { class: "faces", "aria-label": "Who is here" });
  let shown = "";

  function draw(): void {
    const people = peopleOf(client.awareness);
    const now = JSON.stringify(
      people.map(({ clientId, name, color, state }) => [clientId, name, color, placeOf(state)]),
    );
    if (now === shown) return;
    shown = now;
    list.replaceChildren(
      ...people.map((person) =>
        el(
          "li",
          { class: "row" },
          faceOf(person),
          el("span", {}, person.name + (person.isMe ? " (this window)" : "")),
          el("span", { class: "muted small" }, placeOf(person.state)),
        )
      ),
    );
    const rest = people.length - FACES_MAX;
    faces.replaceChildren(
      ...people.slice(0, FACES_MAX).map((person) => el("li", { title: person.name }, faceOf(person))),
      ...rest > 0 ? [el("li", { class: "muted small" }, `+${rest}`)] : [],
    );
  }

  const later = throttled(DRAW_MS, draw);
  client.awareness.on("change", later);
  signal.addEventListener("abort", () => client.awareness.off("change", later));
  draw();
  return {
    faces,
    panel: {
      title: "People",
      element: list,
      refresh: () => Promise.resolve(draw()),
      concerns: () => false,
      isAlwaysFresh: false,
    },
  };
}

function faceOf({ name, color }: Person): HTMLElement {
  const face = el(
    "span",
    { class: "face" },
    el("span", { "aria-hidden": "true" }, initialsOf(name)),
    el("span", { class: "unseen" }, name),
  );
  face.style.setProperty("--user", color);
  return face;
}

/** Where somebody is, in words. */
function placeOf(state: Person["state"]): string {
  if (typeof state.cell === "string") return `in ${state.cell.slice(0, 12)}`;
  if (state.cursor) return "writing";
  return state.selected ? "has something selected" : "";
}
