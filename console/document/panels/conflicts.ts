/** Conflicts that wait for a person, with both sides and a choice. */
import { call, documentPath } from "../../api.ts";
import { button, el } from "../../dom.ts";
import { ago } from "../../format.ts";
import type { ConflictRecord, OperationRecord } from "../../records.ts";
import { nameOfUser } from "../../users.ts";
import { act, emptyLine, notice } from "../../view.ts";
import { type Desk, mayAtLeast, type Panel } from "../desk.ts";
import { wordsOfOperation } from "../operations.ts";

/** Conflicts that are shown at once. */
const SHOWN_MAX = 50;

const CHOICES = [
  ["theirs", "Keep what is there"],
  ["mine", "Take the late edit"],
  ["merge", "Merge both"],
] as const;

/** Makes the panel. */
export function conflictsPanel({ record, access, signal, onConflicts }: Desk): Panel {
  const list = el("ul", { class: "plain stack", "aria-label": "Conflicts that wait" });

  async function refresh(): Promise<void> {
    const { conflicts = [] } = await call<{ conflicts?: ConflictRecord[] }>(
      "GET",
      documentPath(record.id, "/conflicts"),
      { query: { open: true, pageSize: SHOWN_MAX }, signal },
    );
    onConflicts(conflicts.length);
    list.replaceChildren(
      ...conflicts.length === 0 ? [el("li", {}, emptyLine("No conflict waits."))] : conflicts.map(card),
    );
  }

  function card({ id, ops = [], description, detectedAt, targets = [] }: ConflictRecord): HTMLElement {
    const [late, ...met] = ops;
    const mayDecide = mayAtLeast(access, "edit");
    return el(
      "li",
      { class: "card stack" },
      el("p", { class: "small muted" }, `${description || "Two edits touch the same"} · ${ago(detectedAt)}`),
      targets.length > 0 &&
        el("p", { class: "small" }, "Both touch ", ...targets.map((target) => el("code", {}, `${target} `))),
      late && side("The late edit", [late]),
      side("What is there", met),
      mayDecide && el(
        "div",
        { class: "row wrap" },
        ...CHOICES.map(([choice, words]) => {
          const control = button(words, () =>
            void act(control, async () => {
              await call("POST", documentPath(record.id, `/conflicts/${encodeURIComponent(id)}:resolve`), {
                body: { choice },
              });
              notice("The conflict is decided.");
              await refresh();
            }));
          return control;
        }),
      ),
    );
  }

  return {
    title: "Conflicts",
    element: list,
    refresh,
    concerns: ({ type }) => type.startsWith("conflict_"),
    isAlwaysFresh: true,
  };
}

function side(title: string, operations: readonly OperationRecord[]): HTMLElement {
  return el(
    "div",
    { class: "side" },
    el("h3", {}, title),
    ...operations.map((operation) =>
      el(
        "div",
        {},
        el("p", { class: "small muted" }, `${nameOfUser(operation.userId)} · ${ago(operation.timestamp)}`),
        el("p", { class: "edit" }, wordsOfOperation(operation)),
      )
    ),
  );
}
