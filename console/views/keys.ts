/** The key-value store: the keys under a prefix, live. */
import { ApiError, call, textOf, withQuery } from "../api.ts";
import { button, el, field, say } from "../dom.ts";
import { follow } from "../events.ts";
import { bytes, counted } from "../format.ts";
import { act, confirmed, report, type Scope, throttled } from "../view.ts";

/** Keys on a page of the list. */
const PAGE_SIZE = 100;
/** Pause between key strokes and the search, in ms. */
const SEARCH_MS = 300;
/** How often the list is read anew while changes come, in ms. */
const RELOAD_MS = 300;
/** How long a key that changed is marked, in ms. */
const MARK_MS = 1_500;
/** Changed keys that are marked at once. */
const MARKS_MAX = 200;
/** Characters of a value that the list shows. */
const PREVIEW_CHARS = 120;

interface Entry {
  readonly key: string;
  readonly value?: string;
  readonly keyText?: string;
  readonly valueText?: string;
  readonly modRevision?: string;
  readonly version?: string;
}

/** Makes the view. */
export function keysView({ setTitle, signal }: Scope, prefix: string): HTMLElement {
  setTitle("Keys");
  const input = el("input", {
    type: "search",
    value: prefix,
    autocapitalize: "none",
    oninput: throttled(SEARCH_MS, watch),
  });
  const live = el("span", { class: "chip" }, "Asking…");
  const status = el("p", { class: "muted", role: "status" });
  const list = el("ul", { class: "keys", "aria-label": "Keys" });
  const more = button("Show more", () => void act(more, () => load(next, false)));
  const editorHolder = el("div");
  const marked = new Map<string, number>();
  const reloadLater = throttled(RELOAD_MS, () => load("", true).catch(report));
  let watching = new AbortController();
  let next = "";
  let round = 0;
  signal.addEventListener("abort", () => watching.abort());

  function watch(): void {
    watching.abort();
    watching = new AbortController();
    history.replaceState(null, "", `#/keys/${encodeURIComponent(input.value)}`);
    const path = withQuery("/api/v1/kv", { prefix: input.value, watch: true });
    follow<{ changes?: { entry: Entry }[] }>(path, watching.signal, {
      onOpen() {
        say(live, "Live");
        live.className = "chip ok";
        reloadLater();
      },
      onInterrupted() {
        say(live, "Interrupted");
        live.className = "chip warn";
      },
      onMessage({ changes = [] }) {
        for (const { entry } of changes) {
          if (marked.size < MARKS_MAX) marked.set(entry.key, performance.now());
        }
        reloadLater();
      },
    });
  }

  async function load(pageToken: string, isWhole: boolean): Promise<void> {
    const mine = ++round;
    const answer = await call<
      { entries?: Entry[]; nextPageToken?: string; count?: string; revision?: string }
    >(
      "GET",
      "/api/v1/kv",
      { query: { prefix: input.value, pageSize: PAGE_SIZE, pageToken }, signal },
    );
    if (mine !== round) return;
    const rows = (answer.entries ?? []).map(row);
    if (isWhole) list.replaceChildren(...rows);
    else list.append(...rows);
    next = answer.nextPageToken ?? "";
    more.hidden = next === "";
    say(status, `${counted(Number(answer.count ?? rows.length), "key")} at revision ${answer.revision ?? 0}`);
    for (const [key, atMs] of marked) if (performance.now() - atMs > MARK_MS) marked.delete(key);
  }

  function row(entry: Entry): HTMLElement {
    const isFresh = performance.now() - (marked.get(entry.key) ?? -Infinity) < MARK_MS;
    const shown = entry.valueText ?? `${bytes(atob(entry.value ?? "").length)} of binary data`;
    return el(
      "li",
      {},
      el(
        "button",
        { type: "button", class: `key${isFresh ? " fresh" : ""}`, onclick: () => edit(entry) },
        el("code", { class: "key-name" }, nameOf(entry)),
        el("span", { class: "muted small key-value" }, shown.slice(0, PREVIEW_CHARS)),
      ),
    );
  }

  /** Opens a dialog with a key and its value. */
  function edit(entry: Entry | undefined): void {
    const isText = entry === undefined || (entry.keyText !== undefined && entry.valueText !== undefined);
    const key = el("input", {
      required: true,
      readonly: entry !== undefined,
      value: entry ? nameOf(entry) : input.value,
    });
    const value = el("textarea", { rows: 8, spellcheck: "false", readonly: !isText });
    value.value = entry === undefined ? "" : entry.valueText ?? `base64: ${entry.value ?? ""}`;
    const save = el("button", { class: "primary", disabled: !isText }, "Save");
    const remove = button("Delete", () => void act(remove, removeKey), { class: "bad", disabled: !isText });

    async function put(): Promise<void> {
      try {
        // What somebody else wrote meanwhile is not overwritten unseen.
        await call("POST", "/api/v1/kv:batchPut", {
          body: {
            entries: [{
              keyText: key.value,
              valueText: value.value,
              ifModRevision: entry?.modRevision ?? "0",
            }],
          },
        });
      } catch (error) {
        if (!(error instanceof ApiError && error.code === "failed_precondition")) throw error;
        throw new Error("Somebody else has written this key meanwhile: open it again.");
      }
      dialog.close();
    }

    async function removeKey(): Promise<void> {
      if (!await confirmed(`Delete the key ${key.value}?`, "Delete")) return;
      await call("DELETE", "/api/v1/kv", { query: { key: key.value } });
      dialog.close();
    }

    const dialog = el(
      "dialog",
      { "aria-labelledby": "key-title", class: "wide", onclose: () => editorHolder.replaceChildren() },
      el(
        "form",
        {
          class: "stack",
          onsubmit: (event: SubmitEvent) => {
            event.preventDefault();
            void act(save, put);
          },
        },
        el("h2", { id: "key-title" }, entry === undefined ? "New key" : "Key"),
        field("Key", key),
        field("Value", value),
        entry !== undefined &&
          el(
            "p",
            { class: "muted small" },
            `version ${entry.version ?? 0}, written at revision ${entry.modRevision ?? 0}`,
          ),
        el(
          "div",
          { class: "row end" },
          entry !== undefined && remove,
          button("Close", () => dialog.close()),
          save,
        ),
      ),
    );
    editorHolder.replaceChildren(dialog);
    dialog.showModal();
  }

  more.hidden = true;
  watch();
  return el(
    "div",
    { class: "page" },
    el(
      "div",
      { class: "row between" },
      el("div", { class: "row" }, el("h1", {}, "Keys"), live),
      button("New key", () => edit(undefined), { class: "primary" }),
    ),
    el("div", { class: "filters" }, field("Prefix", input)),
    status,
    list,
    more,
    editorHolder,
  );
}

function nameOf({ key, keyText }: Entry): string {
  return keyText ?? textOf(key);
}
