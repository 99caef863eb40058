/** History: the document at any version, what has changed since, names, restoring, undoing. */
import { call, documentPath, textOf } from "../../api.ts";
import { button, el, field, say, table } from "../../dom.ts";
import { ago, counted } from "../../format.ts";
import type { VersionRecord } from "../../records.ts";
import { nameOfUser } from "../../users.ts";
import { act, confirmed, notice, report, throttled } from "../../view.ts";
import { objectsOfContent } from "../board_model.ts";
import { pictureOf } from "../board_picture.ts";
import { type Desk, mayAtLeast, type Panel } from "../desk.ts";
import { sheetPicture } from "../sheet_editor.ts";

/** Versions whose author and time are known at once; the slider reaches all that can be read. */
const LISTED_MAX = 500;
/** Pause between moves of the slider and reading a version, in ms. */
const LOOK_MS = 120;
/** Changed properties that are shown. */
const CHANGES_MAX = 500;

/** What changed between two versions. */
interface Diff {
  readonly text?: readonly { readonly kind: string; readonly text: string; readonly userId?: string }[];
  readonly changes?: readonly {
    readonly target: string;
    readonly before?: unknown;
    readonly after?: unknown;
    readonly userId?: string;
  }[];
}

/** Makes the panel. */
export function historyPanel({ record, access, signal, preview }: Desk): Panel {
  const mayEdit = mayAtLeast(access, "edit");
  let versions = new Map<number, VersionRecord>();
  let newest = Number(record.version);
  /** The version that is looked at; undefined is the present. */
  let looked: number | undefined;
  let round = 0;

  const look = throttled(LOOK_MS, () => void show().catch(report));
  const slider = el("input", {
    type: "range",
    min: 1,
    max: newest,
    value: newest,
    step: 1,
    disabled: true, // until it is known which versions there are
    oninput: () => {
      looked = slider.valueAsNumber >= newest ? undefined : slider.valueAsNumber;
      describe();
      look();
    },
  });
  const words = el("p", { class: "small", role: "status" });
  const asDiff = el("input", { type: "checkbox", onchange: look });
  const present = button("Back to the present", () => lookAt(undefined));
  const restore = button("Restore this version", () => void act(restore, restoreVersion), {
    class: "primary",
  });
  const undo = button("Undo my last edit", () => void act(undo, undoMine));
  const name = el("input", {
    class: "grow",
    maxlength: 100,
    placeholder: "Name of this version",
    "aria-label": "Name",
  });
  const nameIt = el("button", {}, "Name it");
  const named = el("ul", { class: "plain", "aria-label": "Named versions" });

  async function refresh(): Promise<void> {
    const path = documentPath(record.id, "/versions");
    const [recent, withNames] = await Promise.all([
      call<{ versions?: VersionRecord[]; oldestVersion?: string }>("GET", path, {
        query: { pageSize: LISTED_MAX },
        signal,
      }),
      call<{ versions?: VersionRecord[] }>("GET", path, {
        query: { named: true, pageSize: LISTED_MAX },
        signal,
      }),
    ]);
    const known = [...withNames.versions ?? [], ...recent.versions ?? []];
    versions = new Map(known.map((version) => [Number(version.version), version]));
    newest = Math.max(newest, ...versions.keys());
    slider.min = recent.oldestVersion ?? "1";
    slider.max = String(newest);
    slider.disabled = false;
    if (looked === undefined) slider.value = String(newest);
    named.replaceChildren(...(withNames.versions ?? []).map(namedRow));
    describe();
  }

  function namedRow({ version, name, createdAt }: VersionRecord): HTMLElement {
    const remove = button("×", () =>
      void act(remove, async () => {
        await call("DELETE", documentPath(record.id, `/versions/${version}`));
        await refresh();
      }), { "aria-label": `Take the name ${name} away`, class: "quiet" });
    return el(
      "li",
      { class: "row between" },
      button(`${name} · version ${version} · ${ago(createdAt)}`, () => lookAt(Number(version)), {
        class: "link",
      }),
      mayEdit && remove,
    );
  }

  function lookAt(version: number | undefined): void {
    looked = version === newest ? undefined : version;
    slider.value = String(version ?? newest);
    describe();
    look();
  }

  function describe(): void {
    const at = looked ?? newest;
    const known = versions.get(at);
    const details = known === undefined
      ? ""
      : [known.name, (known.authors ?? []).map(nameOfUser).join(", "), ago(known.createdAt), known.change]
        .filter(Boolean)
        .join(" · ");
    say(
      words,
      `Version ${at} of ${newest}${looked === undefined ? ", the present" : ""}${details && ` · ${details}`}`,
    );
    slider.setAttribute("aria-valuetext", `Version ${at}`);
    present.hidden = looked === undefined;
    restore.hidden = looked === undefined || !mayEdit;
  }

  async function show(): Promise<void> {
    const mine = ++round;
    const version = looked;
    if (version === undefined) return preview();
    const picture = asDiff.checked ? await diffSince(version) : await contentAt(version);
    if (mine !== round) return;
    preview(
      picture,
      asDiff.checked ? `Changes since version ${version}` : `Version ${version}, to read only`,
    );
  }

  async function contentAt(version: number): Promise<HTMLElement> {
    const { content } = await call<{ content?: string }>(
      "GET",
      documentPath(record.id, `/versions/${version}`),
      { signal },
    );
    const text = textOf(content);
    switch (record.type) {
      case "text":
        return el("pre", { class: "text-picture", tabindex: 0 }, text);
      case "sheet":
        return sheetPicture(text);
      default: {
        const holder = el("div", { class: "picture-holder" });
        holder.append(pictureOf(objectsOfContent(text)));
        return holder;
      }
    }
  }

  async function diffSince(version: number): Promise<HTMLElement> {
    const diff = await call<Diff>("GET", documentPath(record.id, "/versions:diff"), {
      query: { from: version },
      signal,
    });
    return el(
      "div",
      { class: "stack" },
      record.type === "text" && textDiff(diff),
      changesOf(diff, record.type),
    );
  }

  async function restoreVersion(): Promise<void> {
    const version = looked;
    if (version === undefined) return;
    if (!await confirmed(`Make the document what it was at version ${version}?`, "Restore")) return;
    await call("POST", documentPath(record.id, `/versions/${version}:restore`), { body: {} });
    notice(`Version ${version} is restored, as a new version.`);
    looked = undefined;
    preview();
    await refresh();
  }

  async function undoMine(): Promise<void> {
    const { undone = 0 } = await call<{ undone?: number }>("POST", documentPath(record.id, ":undo"), {
      body: {},
    });
    notice(undone > 0 ? `${counted(undone, "edit")} undone.` : "There is nothing of yours to undo.");
    await refresh();
  }

  function nameVersion(event: SubmitEvent): void {
    event.preventDefault();
    if (name.value.trim() === "") return name.focus();
    void act(nameIt, async () => {
      await call("POST", documentPath(record.id, "/versions"), {
        body: { version: String(looked ?? 0), name: name.value.trim() },
      });
      name.value = "";
      await refresh();
    });
  }

  return {
    title: "History",
    element: el(
      "div",
      { class: "stack" },
      field("Version", slider),
      words,
      el("label", { class: "check" }, asDiff, "Show what has changed since"),
      el("div", { class: "row wrap" }, present, restore),
      mayEdit && el("form", { class: "row", onsubmit: nameVersion }, name, nameIt),
      named,
      mayEdit && undo,
    ),
    refresh,
    concerns: ({ version }) => version !== undefined,
    leave: () => lookAt(undefined),
    isAlwaysFresh: false,
  };
}

function textDiff({ text = [] }: Diff): HTMLElement {
  return el(
    "pre",
    { class: "text-picture", tabindex: 0 },
    ...text.map(({ kind, text, userId }) => {
      if (kind === "same") return el("span", {}, text);
      return el(
        kind === "inserted" ? "ins" : "del",
        { title: userId && `${kind} by ${nameOfUser(userId)}` },
        text,
      );
    }),
  );
}

function changesOf({ changes = [] }: Diff, type: string): HTMLElement | undefined {
  // Of a comment its words are told; who wrote it and when stands beside it.
  const told = changes.filter(({ target }) => !/^comments\/[^/]+\/(?!body$)/.test(target));
  if (told.length === 0) {
    return type === "text" ? undefined : el("p", { class: "empty" }, "Nothing has changed since.");
  }
  const shown = (value: unknown) =>
    value === undefined || value === null ? "–" : JSON.stringify(value).slice(0, 200);
  const rows = told.slice(0, CHANGES_MAX).map(({ target, before, after, userId }) =>
    el(
      "tr",
      {},
      el("td", {}, /^comments\//.test(target) ? "a comment" : el("code", {}, target)),
      el("td", {}, el("del", {}, shown(before))),
      el("td", {}, el("ins", {}, shown(after))),
      el("td", {}, userId ? nameOfUser(userId) : ""),
    )
  );
  return table("Changes", ["What", "Before", "After", "By"], rows);
}
