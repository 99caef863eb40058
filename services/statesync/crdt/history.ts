/** A document's past: what changed between versions and by whom, taking back one person's edits, and going back. All of it works
 *  on a copy that is made from what was kept, and takes the time and memory of loading that; nothing here is bounded by
 *  itself. */
import type { Random } from "../../runtime/random.ts";
import type { DocumentType } from "../records.ts";
import type { ContentParts, StoredUpdate } from "../store.ts";
import { applyUpdates, canonicalOf, type Content, newClientId, openDoc, textRoot } from "./content.ts";
import type { Attributes, DeltaStep, TextDelta } from "./delta.ts";
import { isSameJson } from "./json.ts";
import { collect, ownerOf, partsOfText, type Ranges } from "./segments.ts";
import { type IdRange, OBJECT_TEXT, type TextTouch } from "./touch.ts";
import * as Y from "./yjs.ts";

/** A piece of a text, as TextPiece of the contract. */
export interface Piece {
  readonly kind: "same" | "inserted" | "deleted";
  readonly text: string;
  /** Who inserted or deleted it; empty for `same`. */
  readonly userId: string;
}

/** A property that is another one, as PropertyChange of the contract. */
export interface Changed {
  /** `<object>/<property>`, `<object>/text`, `<cell>/<property>`, `comments/<comment>/<field>`. */
  readonly target: string;
  /** Undefined: there was none. */
  readonly before: unknown;
  readonly after: unknown;
  /** Who changed it last. */
  readonly userId: string;
}

/** What changed between two versions. */
export interface Difference {
  /** The whole text of a text document, in its order; empty for others. */
  readonly text: readonly Piece[];
  /** By target. */
  readonly changes: readonly Changed[];
}

/** Compares the content `from` with what `between`, the edits that follow it, made of it. */
export function diffVersions(
  type: DocumentType,
  from: ContentParts,
  between: readonly StoredUpdate[],
): Difference {
  const doc = openDoc(type, from, false);
  const before = valuesOf(doc, type);
  const touches = between.map(({ update }) => touchedBy(update));
  applyUpdates(doc, between.map(({ update }) => update));
  const userOf = (place: number | undefined) => place === undefined ? "" : between[place]?.userId ?? "";
  const text = type === "text" ? piecesOf(textRoot(doc, "content"), touches, userOf) : [];
  return { text, changes: changesOf(doc, before, valuesOf(doc, type), touches, userOf) };
}

type UserOf = (place: number | undefined) => string;

/** All that an update brings and removes, wherever. */
function touchedBy(update: Uint8Array): TextTouch {
  const { structs, ds } = Y.decodeUpdate(update);
  const inserted: IdRange[] = structs.map(({ id: { client, clock }, length }) => (
    { client, from: clock, to: clock + length }
  ));
  const removed: IdRange[] = [];
  for (const [client, ranges] of ds.clients) {
    for (const { clock, len } of ranges) removed.push({ client, from: clock, to: clock + len });
  }
  return { inserted, removed };
}

const KINDS = { kept: "same", inserted: "inserted", removed: "deleted" } as const;

function piecesOf(text: Y.Text, touches: readonly TextTouch[], userOf: UserOf): Piece[] {
  const pieces: Piece[] = [];
  for (const { kind, text: part, by } of partsOfText(text, touches)) {
    const piece: Piece = { kind: KINDS[kind], text: part, userId: userOf(by) };
    const last = pieces.at(-1);
    if (last !== undefined && last.kind === piece.kind && last.userId === piece.userId) {
      pieces[pieces.length - 1] = { ...last, text: last.text + part };
    } else {
      pieces.push(piece);
    }
  }
  return pieces;
}

/** Values by root and key, and texts of objects by root with an empty key. */
function valuesOf(doc: Y.Doc, type: DocumentType): Map<string, Map<string, unknown>> {
  const maps = type === "text" ? ["comments"] : [type === "sheet" ? "cells" : "objects", "comments"];
  const values = new Map(maps.map((root) => [root, new Map<string, unknown>(doc.getMap(root).entries())]));
  if (type === "text" || type === "sheet") return values;
  for (const root of [...doc.share.keys()]) {
    const text = root.startsWith(OBJECT_TEXT) ? textRoot(doc, root).toString() : "";
    if (text !== "") values.set(root, new Map([["", text]]));
  }
  return values;
}

function changesOf(
  doc: Y.Doc,
  before: ReadonlyMap<string, ReadonlyMap<string, unknown>>,
  after: ReadonlyMap<string, ReadonlyMap<string, unknown>>,
  touches: readonly TextTouch[],
  userOf: UserOf,
): Changed[] {
  const changes: Changed[] = [];
  const inserted = collect(touches.map((touch) => touch.inserted));
  const removed = collect(touches.map((touch) => touch.removed));
  for (const root of new Set([...before.keys(), ...after.keys()])) {
    const old = before.get(root), now = after.get(root);
    for (const key of new Set([...old?.keys() ?? [], ...now?.keys() ?? []])) {
      if (isSameJson(old?.get(key), now?.get(key))) continue;
      const isText = root.startsWith(OBJECT_TEXT);
      const target = isText
        ? `${root.slice(OBJECT_TEXT.length)}/text`
        : root === "comments"
        ? `${root}/${key}`
        : key;
      const by = isText
        ? lastTouch(textRoot(doc, root), inserted, removed)
        : writer(doc.getMap(root)._map.get(key), inserted, removed);
      changes.push({ target, before: old?.get(key), after: now?.get(key), userId: userOf(by) });
    }
  }
  return changes.sort((a, b) => (a.target < b.target ? -1 : 1));
}

function writer(item: Y.Item | undefined, inserted: Ranges, removed: Ranges): number | undefined {
  if (item === undefined) return undefined;
  const { client, clock } = item.lastId;
  return ownerOf((item.deleted ? removed : inserted).get(client), clock);
}

function lastTouch(text: Y.Text, inserted: Ranges, removed: Ranges): number | undefined {
  let last: number | undefined;
  for (let item = text._start; item !== null; item = item.right) {
    const by = writer(item, inserted, removed);
    if (by !== undefined && (last === undefined || by > last)) last = by;
  }
  return last;
}

/** That edits were taken back: what an undo made is no edit to take back itself. */
export interface Undone {
  /** Offset of the entry that it made. */
  readonly offset: number;
  /** Whose edits. */
  readonly userId: string;
  /** How many. */
  readonly count: number;
}

/** Which edits to take back. */
export interface UndoRequest {
  /** The content at the present version, in parts: edits are taken back as far as `updates` reach. */
  readonly parts: ContentParts;
  readonly userId: string;
  /** Edits of theirs that follow one another within 500 ms are one. */
  readonly count: number;
  /** Earlier undos among the updates. */
  readonly undone: readonly Undone[];
}

/** Time between two edits of one user that are taken back as one, in milliseconds. */
const ONE_EDIT_MS = 500;

/** Takes back the last edits of one user on the live content and leaves those of others: what they wrote over a property or into
 *  a text stays. `undone` counts the edits, also those of which nothing is left to take back. */
export function undoEdits(
  content: Content,
  request: UndoRequest,
  random: Random,
): { readonly update: Uint8Array | undefined; readonly undone: number } {
  const { parts } = request;
  const doc = openDoc(content.type, { snapshot: parts.snapshot, updates: [] }, false);
  const past = replay(doc, request);
  const edits = past.edits.slice(-request.count);
  const made: Uint8Array[] = [];
  doc.clientID = newClientId(doc, random);
  doc.on("update", (update: Uint8Array) => made.push(update));
  const undo = new Y.UndoManager(doc);
  undo.redoStack = past.undos.map(stackItem);
  for (const edit of edits.toReversed()) {
    // One at a time: the library goes on to the next one where there is nothing to take back.
    undo.undoStack = [stackItem(edit)];
    undo.undo();
  }
  undo.destroy();
  const update = made.length === 0 ? undefined : content.applyRemote(Y.mergeUpdates(made));
  return { update, undone: edits.length };
}

type IdSet = Y.Transaction["deleteSet"];

/** One edit: what it brought and what it removed. */
interface UserEdit {
  readonly inserted: IdSet[];
  readonly removed: IdSet[];
}

function stackItem({ inserted, removed }: UserEdit): Y.UndoManager["undoStack"][number] {
  return { insertions: Y.mergeDeleteSets(inserted), deletions: Y.mergeDeleteSets(removed), meta: new Map() };
}

/** Applies the updates and returns, in their order, the user's edits that were not taken back, and what undos made. */
function replay(
  doc: Y.Doc,
  { parts, userId, undone }: UndoRequest,
): { edits: UserEdit[]; undos: UserEdit[] } {
  const undos = new Map(undone.map((undo) => [undo.offset, undo]));
  const edits: UserEdit[] = [];
  const made: UserEdit[] = [];
  let lastAtMs = -Infinity;
  for (const { offset, update, userId: author, atMs } of parts.updates) {
    const { inserted, removed } = applyNoting(doc, update);
    const undo = undos.get(offset);
    if (undo !== undefined) {
      linkCopies(doc, inserted);
      made.push({ inserted: [inserted], removed: [removed] });
      if (undo.userId === userId) edits.splice(Math.max(0, edits.length - undo.count));
      if (author === userId || undo.userId === userId) lastAtMs = -Infinity;
    } else if (author === userId) {
      if (atMs - lastAtMs > ONE_EDIT_MS || edits.length === 0) edits.push({ inserted: [], removed: [] });
      edits.at(-1)!.inserted.push(inserted);
      edits.at(-1)!.removed.push(removed);
      lastAtMs = atMs;
    }
  }
  return { edits, undos: made };
}

/** Tells what an undo brought back from what it is a copy of, as the library notes it where it makes the copies: a later undo of
 *  the original has to take the copy. In a text the copy was put before the original, in a map behind it. */
function linkCopies(doc: Y.Doc, inserted: IdSet): void {
  doc.transact((transaction) => {
    for (const [client, ranges] of inserted.clients) {
      const copies = doc.store.clients.get(client)!.filter(({ id, length }) =>
        ranges.some(({ clock, len }) => id.clock >= clock && id.clock + length <= clock + len)
      );
      for (const copy of copies) {
        const original = copy instanceof Y.Item ? originalOf(transaction, copy) : undefined;
        if (original !== undefined && original.redone === null) original.redone = copy.id;
      }
    }
  });
}

function originalOf(transaction: Y.Transaction, copy: Y.Item): Y.Item | undefined {
  if (copy.parentSub !== null) {
    for (let item = copy.left; item !== null; item = item.left) {
      if (isSameContent(item, copy)) return item;
    }
    return undefined;
  }
  if (copy.rightOrigin === null) return undefined;
  const original = Y.getItemCleanStart(transaction, copy.rightOrigin);
  const { client, clock } = copy.rightOrigin;
  if (original.length > copy.length) {
    Y.getItemCleanStart(transaction, Y.createID(client, clock + copy.length));
  }
  return original instanceof Y.Item && isSameContent(original, copy) ? original : undefined;
}

function isSameContent(original: Y.Item, copy: Y.Item): boolean {
  if (!original.deleted || original.length !== copy.length) return false;
  const a = original.content, b = copy.content;
  if (a instanceof Y.ContentString && b instanceof Y.ContentString) return a.str === b.str;
  return a instanceof Y.ContentAny && b instanceof Y.ContentAny && isSameJson(a.arr, b.arr);
}

function applyNoting(doc: Y.Doc, update: Uint8Array): { inserted: IdSet; removed: IdSet } {
  const inserted = Y.createDeleteSet();
  let removed = Y.createDeleteSet();
  doc.once("afterTransaction", ({ beforeState, afterState, deleteSet }: Y.Transaction) => {
    removed = deleteSet;
    for (const [client, end] of afterState) {
      const start = beforeState.get(client) ?? 0;
      if (end > start) inserted.clients.set(client, [{ clock: start, len: end - start }]);
    }
  });
  applyUpdates(doc, [update]);
  return { inserted, removed };
}

/** Makes the live content what it was, with the attributes of its texts; comments stay, and what is embedded in texts goes.
 */
export function restoreContent(content: Content, old: ContentParts): Uint8Array | undefined {
  const doc = openDoc(content.type, old, true);
  const first = content.setCanonical(new TextEncoder().encode(canonicalOf(doc, content.type)));
  const texts = new Map<string, TextDelta>();
  for (const root of [...doc.share.keys()]) {
    if (!isTextRoot(root, content.type) || content.textLength(root) === 0) continue;
    const delta = styleDelta(content.runs(root), textRoot(doc, root).toDelta());
    if (delta.length > 0) texts.set(root, delta);
  }
  const second = texts.size === 0 ? undefined : content.apply({ properties: new Map(), texts, emptied: [] });
  if (first === undefined || second === undefined) return first ?? second;
  return Y.mergeUpdates([first, second]);
}

function isTextRoot(root: string, type: DocumentType): boolean {
  return type === "text" ? root === "content" : type !== "sheet" && root.startsWith(OBJECT_TEXT);
}

/** A run of a text with one style. */
interface Run {
  readonly insert: string | object;
  readonly attributes?: Attributes;
}

/** The change of style that makes one text look as another one of the same characters. */
function styleDelta(now: readonly Run[], wanted: readonly Run[]): TextDelta {
  const runs = wanted.filter(({ insert }) => typeof insert === "string") as {
    insert: string;
    attributes?: Attributes;
  }[];
  const steps: DeltaStep[] = [];
  let place = 0, offset = 0;
  for (const { insert, attributes } of now) {
    let left = typeof insert === "string" ? insert.length : 1;
    while (left > 0) {
      const run = runs[place];
      if (run === undefined) return steps;
      const length = Math.min(left, run.insert.length - offset);
      steps.push({ keep: length, attributes: styleChange(attributes ?? {}, run.attributes ?? {}) });
      left -= length;
      offset += length;
      if (offset === run.insert.length) place++, offset = 0;
    }
  }
  return steps.some((step) => "keep" in step && step.attributes !== undefined) ? steps : [];
}

function styleChange(now: Attributes, wanted: Attributes): Attributes | undefined {
  const change: Record<string, unknown> = {};
  for (const key of new Set([...Object.keys(now), ...Object.keys(wanted)])) {
    if (!isSameJson(now[key], wanted[key])) change[key] = wanted[key] ?? null;
  }
  return Object.keys(change).length === 0 ? undefined : change;
}
