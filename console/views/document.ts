/** One document: its editor, whether everything is saved, and the panels beside it. */
import { ApiError, call, documentPath, wordsOf } from "../api.ts";
import { button, el, say, set } from "../dom.ts";
import { boardEditor } from "../document/board_editor.ts";
import { type Desk, mayAtLeast, type Panel } from "../document/desk.ts";
import type { Editor, EditorContext } from "../document/editor.ts";
import { commentsPanel } from "../document/panels/comments.ts";
import { conflictsPanel } from "../document/panels/conflicts.ts";
import { historyPanel } from "../document/panels/history.ts";
import { locksPanel } from "../document/panels/locks.ts";
import { peoplePanel } from "../document/panels/people.ts";
import { settingsPanel } from "../document/panels/settings.ts";
import { introduce } from "../document/people.ts";
import { saveLine } from "../document/save_line.ts";
import { sheetEditor } from "../document/sheet_editor.ts";
import { keepDrafts, openDrafts } from "../drafts.ts";
import { follow } from "../events.ts";
import type { Access, DocumentEvent, DocumentRecord } from "../records.ts";
import { SyncClient } from "../sync_client.ts";
import { report, type Scope, throttled } from "../view.ts";
import { typeName } from "./documents.ts";

/** How often panels are read anew while events come, in ms. */
const REFRESH_MS = 400;

/** Opens a document. */
export async function documentView(
  { me, signal, setTitle, reopen }: Scope,
  id: string,
): Promise<HTMLElement> {
  const [{ document: record }, { access = "read" }, drafts] = await Promise.all([
    call<{ document: DocumentRecord }>("GET", documentPath(id), { query: { withoutContent: true }, signal }),
    call<{ access?: Access }>("GET", documentPath(id, "/access"), { signal }),
    openDrafts(me.userId),
  ]);
  const draft = await drafts.read(id);
  if (signal.aborted) return el("div");
  setTitle(record.name || id);

  const saved = saveLine();
  const client = new SyncClient({
    documentId: id,
    url: `${location.origin.replace(/^http/, "ws")}/api/v1/sync`,
    authenticate: async () => {
      try {
        await call("GET", "/api/v1/auth/me");
      } catch (error) {
        // Not reachable: the next attempt will tell. Not signed in: whoever called has been told.
        if (!(error instanceof ApiError)) throw error;
      }
    },
    onState: () => onState(),
  });
  introduce(client.awareness, me);
  const keepDraft = keepDrafts(drafts, id, client, signal);

  let editor: Editor | undefined;
  let picture: HTMLElement | undefined;
  let lockedBy: string | undefined;
  let lockedObjects: ReadonlyMap<string, string> = new Map();
  let state = record.state;
  /** What the editor was told last. */
  let isReadOnly = false;

  const desk: Desk = {
    record,
    access,
    me,
    signal,
    client,
    selected: () => editor?.selected(),
    preview(next, words) {
      picture = next;
      say(previewLine, words ?? "");
      place();
    },
    onLocks(document, objects) {
      lockedBy = document;
      lockedObjects = objects;
      editor?.setLocked?.(objects);
      describe();
    },
    onConflicts(count) {
      badges.get("conflicts")!.textContent = count === 0 ? "" : String(count);
    },
  };

  const { panel: people, faces } = peoplePanel(desk);
  const panels = new Map<string, Panel>([
    ["people", people],
    ["comments", commentsPanel(desk)],
    ["history", historyPanel(desk)],
    ["conflicts", conflictsPanel(desk)],
    ["locks", locksPanel(desk)],
    ...mayAtLeast(access, "manage") ? [["settings", settingsPanel(desk)] as const] : [],
  ]);
  const badges = new Map([...panels.keys()].map((key) => [key, el("span", { class: "badge" })]));
  const tabs = new Map(
    [...panels].map(([key, { title }]) => {
      const tab = button(title, () => toggle(key), {
        "aria-expanded": "false",
        "aria-controls": "side-panel",
      });
      tab.append(badges.get(key)!);
      return [key, tab];
    }),
  );
  let shownPanel: string | undefined;

  const name = el("input", {
    class: "title",
    "aria-label": "Name",
    maxlength: 200,
    value: record.name ?? "",
    placeholder: id,
    readonly: !mayAtLeast(access, "edit"),
    onchange: () => void rename().catch(report),
  });
  const banner = el("p", { class: "banner", role: "status", hidden: true });
  const previewLine = el("p", { class: "banner info" });
  const stage = el("div", { class: "stage" }, el("p", { class: "empty" }, "Loading…"));
  const panelTitle = el("h2", {});
  const panelBody = el("div", { class: "panel-body" });
  const aside = el(
    "aside",
    { id: "side-panel", class: "side-panel", hidden: true, "aria-label": "Beside the document" },
    el(
      "div",
      { class: "row between" },
      panelTitle,
      button("×", () => toggle(shownPanel), { "aria-label": "Close", class: "quiet" }),
    ),
    panelBody,
  );
  const refreshLater = throttled(REFRESH_MS, refreshPanels);
  const stale = new Set<string>();
  follow<{ event?: DocumentEvent }>(documentPath(id, "/events"), signal, {
    onMessage: ({ event }) => event !== undefined && onEvent(event),
    onOpen: () => {
      for (const [key, panel] of panels) if (panel.isAlwaysFresh || key === shownPanel) stale.add(key);
      refreshLater();
    },
  });
  addEventListener("beforeunload", warn);
  signal.addEventListener("abort", () => {
    removeEventListener("beforeunload", warn);
    client.close();
  });
  if (draft !== undefined) client.restore(draft);
  onState();

  function onState(): void {
    saved.show(client.state);
    keepDraft();
    if (client.state.isLoaded && editor === undefined) void openEditor().catch(report);
    describe();
  }

  async function openEditor(): Promise<void> {
    const context: EditorContext = { client, me, signal };
    const make = await editorFor(record.type);
    if (signal.aborted || editor !== undefined) return;
    editor = make(context);
    editor.setLocked?.(lockedObjects);
    place();
    describe();
  }

  /** Puts the editor, or what is looked at in its place, on the stage. */
  function place(): void {
    const shown = picture === undefined ? editor?.element : picture;
    previewLine.hidden = picture === undefined;
    if (shown !== undefined && stage.firstElementChild !== shown) stage.replaceChildren(shown);
  }

  /** Says why the document cannot be edited, and lets the editor know. */
  function describe(): void {
    const { denied, isRefused, isOnline, isLoaded } = client.state;
    const why = denied ?? readOnlyReason() ??
      (isRefused
        ? "The server has not taken your last edits: what they touch is locked, or not yours to edit."
        : undefined) ??
      (isLoaded && !isOnline
        ? "Offline. What you write is kept in this browser and sent when the server is back."
        : "");
    say(banner, why);
    banner.hidden = why === "";
    const mustRead = denied !== undefined || readOnlyReason() !== undefined;
    // Not for each key stroke: an editor that is just changing takes no change of itself.
    if (editor === undefined || mustRead === isReadOnly) return;
    isReadOnly = mustRead;
    editor.setReadOnly(mustRead);
  }

  function readOnlyReason(): string | undefined {
    if (lockedBy !== undefined) return `${lockedBy} has locked the document: you can read it.`;
    if (state === "archived") return "The document is archived: it can be read only.";
    if (mayAtLeast(access, "edit") && !client.state.isReadOnly) return undefined;
    return access === "comment"
      ? "You may read and comment on this document."
      : "You may read this document.";
  }

  function onEvent(event: DocumentEvent): void {
    for (const [key, panel] of panels) {
      if (panel.concerns(event) && (panel.isAlwaysFresh || key === shownPanel)) stale.add(key);
    }
    if (event.type === "document_updated" && event.data?.change !== "content") void reread().catch(report);
    refreshLater();
  }

  /** Reads name, state and rights anew. */
  async function reread(): Promise<void> {
    const [{ document }, { access: now }] = await Promise.all([
      call<{ document: DocumentRecord }>("GET", documentPath(id), {
        query: { withoutContent: true },
        signal,
      }),
      call<{ access?: Access }>("GET", documentPath(id, "/access"), { signal }),
    ]);
    if (now !== access) return reopen();
    state = document.state;
    if (globalThis.document.activeElement !== name) name.value = document.name ?? "";
    setTitle(document.name || id);
    describe();
  }

  function refreshPanels(): void {
    const keys = [...stale];
    stale.clear();
    for (const key of keys) panels.get(key)!.refresh().catch(reportUnlessOffline);
  }

  function toggle(key: string | undefined): void {
    panels.get(shownPanel ?? "")?.leave?.();
    shownPanel = key === shownPanel ? undefined : key;
    for (const [each, tab] of tabs) set(tab, { "aria-expanded": String(each === shownPanel) });
    aside.hidden = shownPanel === undefined;
    if (shownPanel === undefined) return tabs.get(key ?? "")?.focus();
    const panel = panels.get(shownPanel)!;
    panelTitle.textContent = panel.title;
    panelBody.replaceChildren(panel.element);
    panel.refresh().catch(reportUnlessOffline);
  }

  async function rename(): Promise<void> {
    await call("PATCH", documentPath(id), { body: { name: name.value.trim() } });
    setTitle(name.value.trim() || id);
  }

  function warn(event: BeforeUnloadEvent): void {
    if (client.state.isUnsaved) event.preventDefault();
  }

  return el(
    "div",
    { class: "document", "data-type": record.type },
    el(
      "div",
      { class: "document-head" },
      el(
        "div",
        { class: "row grow" },
        name,
        el("span", { class: "chip" }, typeName(record.type)),
        saved.element,
      ),
      faces,
      el("div", { class: "tabs", role: "group", "aria-label": "Panels" }, ...tabs.values()),
    ),
    banner,
    previewLine,
    el("div", { class: "desk" }, stage, aside),
  );
}

async function editorFor(type: DocumentRecord["type"]): Promise<(context: EditorContext) => Editor> {
  // CodeMirror is most of the page: only texts load it.
  if (type === "text") return (await import("../document/text_editor.ts")).textEditor;
  return type === "sheet" ? sheetEditor : boardEditor;
}

/** The banner says that we are offline: no notice for each panel. */
function reportUnlessOffline(error: unknown): void {
  if (error instanceof ApiError && (error.code === "offline" || error.status >= 500)) return;
  report(error instanceof Error ? error : new Error(wordsOf(error)));
}
