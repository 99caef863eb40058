/** The documents that one may read: found, made, opened. */
import { call } from "../api.ts";
import { button, el, field, select } from "../dom.ts";
import { ago, counted } from "../format.ts";
import type { DocumentRecord, DocumentType } from "../records.ts";
import { nameOfUser } from "../users.ts";
import { act, report, type Scope, throttled } from "../view.ts";

const TYPES: readonly (readonly [DocumentType, string])[] = [
  ["text", "Text"],
  ["whiteboard", "Whiteboard"],
  ["sheet", "Sheet"],
  ["canvas", "Canvas"],
];

/** Documents on a page of the list. */
const PAGE_SIZE = 50;
/** Pause between key strokes and the search, in ms. */
const SEARCH_MS = 200;

/** The name of a document's type for people. */
export function typeName(type: string): string {
  return TYPES.find(([name]) => name === type)?.[1] ?? type;
}

/** The address of a document's view. */
export function documentLink(id: string): string {
  return `#/document/${encodeURIComponent(id)}`;
}

/** The list. */
export function documentsView({ setTitle, signal }: Scope): HTMLElement {
  setTitle("Documents");
  const name = el("input", {
    type: "search",
    placeholder: "Part of the name",
    oninput: throttled(SEARCH_MS, find),
  });
  const type = select([["", "All types"], ...TYPES], { onchange: find });
  const state = select([["", "Active and archived"], ["active", "Active"], ["archived", "Archived"], [
    "deleted",
    "Deleted",
  ]], { onchange: find });
  const list = el("ul", { class: "documents", "aria-label": "Documents" });
  const status = el("p", { class: "muted", role: "status" });
  const more = button("Show more", () => void act(more, () => load(next)));
  let next = "";
  let round = 0;

  function find(): void {
    load("").catch(report);
  }

  async function load(pageToken: string): Promise<void> {
    const mine = ++round;
    const answer = await call<{ documents?: DocumentRecord[]; nextPageToken?: string }>(
      "GET",
      "/api/v1/documents",
      {
        query: {
          name: name.value.trim(),
          type: type.value,
          state: state.value,
          pageSize: PAGE_SIZE,
          pageToken,
        },
        signal,
      },
    );
    // A newer search is under way.
    if (mine !== round) return;
    const rows = (answer.documents ?? []).map(row);
    if (pageToken === "") list.replaceChildren(...rows);
    else list.append(...rows);
    next = answer.nextPageToken ?? "";
    more.hidden = next === "";
    const count = list.childElementCount;
    const isFiltered = name.value !== "" || type.value !== "" || state.value !== "";
    status.textContent = count > 0
      ? counted(count, "document") + (next === "" ? "" : " so far")
      : isFiltered
      ? "No document is like that."
      : "There are no documents yet: make the first one.";
  }

  find();
  more.hidden = true;
  return el(
    "div",
    { class: "page" },
    el(
      "div",
      { class: "row between" },
      el("h1", {}, "Documents"),
      button("New document", create, { class: "primary" }),
    ),
    el(
      "form",
      { class: "filters", role: "search", onsubmit: (event: SubmitEvent) => event.preventDefault() },
      field("Search", name),
      field("Type", type),
      field("State", state),
    ),
    status,
    list,
    more,
  );
}

function row(record: DocumentRecord): HTMLElement {
  const { id, name, type, version, state, updatedAt, updatedBy, activeUsers, openConflicts } = record;
  const there = activeUsers?.length ?? 0;
  return el(
    "li",
    {},
    el(
      "a",
      { href: documentLink(id), class: "card document-card" },
      el("span", { class: `type type-${type}`, "aria-hidden": "true" }),
      el(
        "span",
        { class: "grow" },
        el("strong", {}, name || id),
        el(
          "span",
          { class: "muted small" },
          `${typeName(type)} · version ${version} · ${ago(updatedAt)}${
            updatedBy ? ` by ${nameOfUser(updatedBy)}` : ""
          }`,
        ),
      ),
      there > 0 && el("span", { class: "chip ok" }, `${there} here`),
      !!openConflicts && el("span", { class: "chip warn" }, counted(openConflicts, "conflict")),
      state !== "active" && el("span", { class: "chip" }, state),
    ),
  );
}

/** Asks for the name and type of a new document in a dialog, makes it and opens it. */
function create(): void {
  const name = el("input", { required: true, maxlength: 200, autofocus: true });
  const type = select(TYPES);
  const policy = select([
    ["", "As configured"],
    ["merge", "Merge: both edits stay"],
    ["lww", "The later edit wins"],
    ["manual", "A person decides"],
  ]);
  const isPublic = el("input", { type: "checkbox" });
  const submit = el("button", { class: "primary" }, "Create");

  function make(event: SubmitEvent): void {
    event.preventDefault();
    void act(submit, async () => {
      const { document } = await call<{ document: DocumentRecord }>("POST", "/api/v1/documents", {
        body: {
          name: name.value.trim(),
          type: type.value,
          conflictPolicy: policy.value,
          ...isPublic.checked ? { metadata: { permissions: { public: true } } } : {},
        },
      });
      dialog.close();
      location.hash = documentLink(document.id);
    });
  }

  const dialog = el(
    "dialog",
    { "aria-labelledby": "new-document", onclose: () => dialog.remove() },
    el(
      "form",
      { class: "stack", onsubmit: make },
      el("h2", { id: "new-document" }, "New document"),
      field("Name", name),
      field("Type", type),
      field("When edits conflict", policy),
      el("label", { class: "check" }, isPublic, "Everybody who is signed in may read it"),
      el("div", { class: "row end" }, button("Cancel", () => dialog.close()), submit),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}
