/** A document's content in memory: a Yjs document of one type (SPEC §1). */
import type { Random } from "../../runtime/random.ts";
import { StateSyncError } from "../errors.ts";
import type { DocumentType } from "../records.ts";
import type { ContentParts } from "../store.ts";
import { readCanonical, writeCells, writeObjects } from "./canonical.ts";
import type { Attributes, Segment, TextDelta } from "./delta.ts";
import { type Inspection, inspectUpdate, touchOfApplied } from "./inspect.ts";
import { isSameJson } from "./json.ts";
import { KeyIndex } from "./key_index.ts";
import { isKind } from "./names.ts";
import type { Plan } from "./plan.ts";
import { GONE, itemsOf, oldText, segmentsOf } from "./segments.ts";
import { diffTexts } from "./text_diff.ts";
import { changeText, checkCuts } from "./text_change.ts";
import { OBJECT_TEXT, partsOf, type TextTouch, type Touch } from "./touch.ts";
import { canIntegrate, isSuspicious, MAX_COMPARISONS } from "./trial.ts";
import * as Y from "./yjs.ts";

export type { Inspection };

/** Client id while foreign edits are applied: one that no client has, so that Yjs does not take it for a second client of the
 *  same name. */
const NOBODY = -1;

type ChangedType = Y.AbstractType<Y.YEvent<Y.AbstractType<unknown>>>;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** The content of one document. Its methods that change it return the Yjs update (v1) that they made, or undefined where
 *  nothing changed; whoever cannot keep that update lets the content go and loads it anew. So it is after an exception of
 *  `applyRemote` or `apply` that is no StateSyncError. */
export class Content {
  private readonly doc: Y.Doc;
  private made: Uint8Array | undefined;
  private readonly indexes = new Map<string, KeyIndex>();
  private cachedVector: Uint8Array | undefined;

  private constructor(readonly type: DocumentType, parts: ContentParts, private readonly random: Random) {
    this.doc = openDoc(type, parts, true);
    this.doc.clientID = newClientId(this.doc, random);
    this.doc.on("update", (update: Uint8Array) => {
      this.made = update;
      this.cachedVector = undefined;
    });
    this.doc.on("afterTransaction", ({ changed }: Y.Transaction) => {
      for (const [root, index] of this.indexes) {
        index.add(changed.get(this.doc.getMap(root) as unknown as ChangedType));
      }
    });
  }

  /** The content of a new document; `random` gives the client ids of edits made here. */
  static create(type: DocumentType, random: Random): Content {
    return Content.load(type, { snapshot: undefined, updates: [] }, random);
  }

  /** The content that was kept.
   *  @throws {Error} if what was kept is damaged. */
  static load(type: DocumentType, parts: ContentParts, random: Random): Content {
    return new Content(type, parts, random);
  }

  /** The canonical form (SPEC §1.2). Walks through all of the content. */
  canonical(): Uint8Array {
    return encoder.encode(canonicalOf(this.doc, this.type));
  }

  /** Makes the content what the canonical form says, by the least edit; comments stay. Empty bytes are empty content.
   *  @throws {StateSyncError} `invalid`, naming what is wrong; nothing is changed then. */
  setCanonical(bytes: Uint8Array): Uint8Array | undefined {
    let text: string;
    try {
      text = utf8.decode(bytes);
    } catch (cause) {
      throw new StateSyncError("invalid", "content is no UTF-8", { cause });
    }
    return this.apply(this.planCanonical(text));
  }

  private planCanonical(text: string): Plan {
    if (this.type === "text") {
      return {
        properties: new Map(),
        texts: new Map([["content", diffTexts(this.text("content"), text)]]),
        emptied: [],
      };
    }
    const { properties, texts } = readCanonical(this.type, text);
    const root = this.type === "sheet" ? "cells" : "objects";
    const writes = new Map<string, unknown>();
    for (const key of this.doc.getMap(root).keys()) {
      if (!properties.has(key)) writes.set(`${root}/${key}`, undefined);
    }
    for (const [key, value] of properties) writes.set(`${root}/${key}`, value);
    const deltas = new Map<string, TextDelta>();
    const emptied: string[] = [];
    for (const name of this.doc.share.keys()) {
      if (name.startsWith(OBJECT_TEXT) && !texts.has(name.slice(OBJECT_TEXT.length))) emptied.push(name);
    }
    for (const [id, value] of texts) {
      const name = OBJECT_TEXT + id;
      deltas.set(name, diffTexts(this.text(name), value));
    }
    return { properties: writes, texts: deltas, emptied: this.type === "sheet" ? [] : emptied };
  }

  /** Yjs state vector. The array is the same until the next change, and shared: not to be changed. */
  stateVector(): Uint8Array {
    return this.cachedVector ??= Y.encodeStateVector(this.doc);
  }

  /** A Yjs update (v1) that makes the content from nothing. */
  encodeState(): Uint8Array {
    return Y.encodeStateAsUpdate(this.doc);
  }

  /** What somebody with that state vector (which was checked) lacks, as a Yjs update (v1). */
  diff(stateVector: Uint8Array): Uint8Array {
    return Y.encodeStateAsUpdate(this.doc, stateVector);
  }

  /** Says what a client's update (which was checked) would do, before it is applied.
   *  @throws {StateSyncError} `hostile` for one that would do harm. */
  inspect(update: Uint8Array): Inspection {
    const inspection = inspectUpdate(this.doc, this.type, update);
    const { structs } = inspection;
    if (isSuspicious(this.doc, structs) && !canIntegrate(this.copy(), structs)) {
      throw new StateSyncError(
        "hostile",
        `${structs.length} structs take more than ${MAX_COMPARISONS} comparisons`,
      );
    }
    return inspection;
  }

  private copy(): Y.Doc {
    const snapshot = { offset: 0, version: 0, state: this.encodeState() };
    return openDoc(this.type, { snapshot, updates: [] }, true);
  }

  /** Applies an update that was checked and inspected, and of which nothing is missing. Returns what of it was new. */
  applyRemote(update: Uint8Array): Uint8Array | undefined {
    const { doc } = this;
    const own = doc.clientID;
    const state = Y.getState(doc.store, own);
    doc.clientID = NOBODY;
    applyUpdates(doc, [update]);
    if (doc.store.pendingStructs !== null || doc.store.pendingDs !== null) {
      throw new Error("an update was applied of which something is missing");
    }
    // Clocks of the own id that another took are not to be counted on.
    doc.clientID = Y.getState(doc.store, own) === state ? own : newClientId(doc, this.random);
    return this.takeMade();
  }

  /** What an edit touched that is part of this content: at any time later too, also from an update that was kept. */
  touchOf(update: Uint8Array): Touch {
    return touchOfApplied(this.doc, this.type, update);
  }

  /** Carries out what was planned on this content, with no change of it between.
   *  @throws {StateSyncError} `invalid` where a text would be cut within a character; nothing is changed then. */
  apply(plan: Plan): Uint8Array | undefined {
    for (const [root, delta] of plan.texts) if (delta.length > 0) checkCuts(textRoot(this.doc, root), delta);
    transactOnce(this.doc, () => {
      for (const [target, value] of plan.properties) this.write(target, value);
      for (const [root, delta] of plan.texts) {
        if (delta.length > 0) changeText(textRoot(this.doc, root), delta);
      }
      for (const root of plan.emptied) {
        const length = this.textLength(root);
        if (length > 0) textRoot(this.doc, root).delete(0, length);
      }
    });
    return this.takeMade();
  }

  private write(target: string, value: unknown): void {
    const slash = target.indexOf("/");
    const map = this.doc.getMap(target.slice(0, slash));
    const key = target.slice(slash + 1);
    const present = map.get(key);
    if (value === undefined) {
      if (map.has(key)) map.delete(key);
    } else if (!isSameJson(present, value)) {
      map.set(key, value);
    }
  }

  private takeMade(): Uint8Array | undefined {
    const { made } = this;
    this.made = undefined;
    return made;
  }

  /** The value of a target (see Touch); undefined where there is none. Not to be changed. */
  value(target: string): unknown {
    const slash = target.indexOf("/");
    return this.doc.getMap(target.slice(0, slash)).get(target.slice(slash + 1));
  }

  /** Targets of what is there of one object, cell or comment (`root` is `objects`, `cells`, `comments`). The first call walks
   *  through all of that root. */
  targetsOf(root: string, id: string): string[] {
    let index = this.indexes.get(root);
    const map = this.doc.getMap(root);
    if (index === undefined) this.indexes.set(root, index = new KeyIndex(map._map.keys()));
    return index.keysOf(id).filter((key) => map.has(key)).map((key) => `${root}/${key}`);
  }

  /** Code units of a text; what is embedded counts as one. */
  textLength(root: string): number {
    return this.doc.share.has(root) ? textRoot(this.doc, root).length : 0;
  }

  /** A text; for what is embedded it has half of a character. */
  text(root: string): string {
    if (!this.doc.share.has(root)) return "";
    let result = "";
    for (const item of itemsOf(textRoot(this.doc, root))) {
      if (item.deleted || !item.countable) continue;
      result += item.content instanceof Y.ContentString ? item.content.str : GONE.repeat(item.length);
    }
    return result;
  }

  /** A text in runs of one style each, as Yjs has them. */
  runs(root: string): { readonly insert: string | object; readonly attributes?: Attributes }[] {
    return this.doc.share.has(root) ? textRoot(this.doc, root).toDelta() : [];
  }

  /** What became of a text since the first of `touches`, which are all edits of it since, in their order. */
  segments(root: string, touches: readonly TextTouch[]): Segment[] {
    return this.doc.share.has(root) ? segmentsOf(textRoot(this.doc, root), touches) : [];
  }

  /** A text before the first of `touches`; for what is no text now it has halves of characters. */
  textBefore(root: string, touches: readonly TextTouch[]): string {
    return this.doc.share.has(root) ? oldText(textRoot(this.doc, root), touches) : "";
  }

  /** Whether an object is there (of a sheet: whether the cell has a value). */
  hasObject(id: string): boolean {
    if (this.type === "sheet") return (this.value(`cells/${id}/value`) ?? null) !== null;
    return isKind(this.value(`objects/${id}/kind`));
  }

  /** Who wrote a comment; undefined where there is none. */
  commentAuthor(id: string): string | undefined {
    const author = this.value(`comments/${id}/author`);
    return typeof author === "string" ? author : undefined;
  }

  /** The comments that an edit, not applied yet, touches and that are not `userId`'s: written by another, under another's name
   *  or under none. */
  foreignComments(touch: Touch, userId: string): string[] {
    const foreign = new Set<string>();
    for (const [target, value] of touch.properties) {
      const { root, id, property } = partsOf(target);
      if (root !== "comments") continue;
      const author = this.commentAuthor(id) ?? touch.properties.get(`comments/${id}/author`);
      if (author !== userId) foreign.add(id);
      if (property === "author" && value !== undefined && value !== userId) foreign.add(id);
    }
    return [...foreign];
  }
}

/** A Yjs document with what was kept. With `isCollecting`, what is removed leaves only its place; marks of style keep what they
 *  are, as they have no length in a text and could not be told from it. */
export function openDoc(type: DocumentType, parts: ContentParts, isCollecting: boolean): Y.Doc {
  const doc = new Y.Doc({
    guid: type,
    gc: isCollecting,
    gcFilter: (item) => !(item.content instanceof Y.ContentFormat),
  });
  doc.clientID = NOBODY;
  if (type === "text") doc.getText("content");
  else doc.getMap(type === "sheet" ? "cells" : "objects");
  doc.getMap("comments");
  const updates = parts.updates.map(({ update }) => update);
  applyUpdates(doc, parts.snapshot === undefined ? updates : [parts.snapshot.state, ...updates]);
  return doc;
}

/** Applies updates as one. Yjs would tidy marks of style up after foreign edits, which is an edit of its own and for clients to
 *  make; so they are given out as local ones at the end, without the places of texts that they moved. */
export function applyUpdates(doc: Y.Doc, updates: readonly Uint8Array[]): void {
  transactOnce(doc, (transaction) => {
    for (const update of updates) Y.applyUpdate(doc, update);
    transaction.local = true;
    for (const type of transaction.changed.keys()) {
      if (type._searchMarker) type._searchMarker.length = 0;
    }
  });
}

/** A transaction that leaves nothing of itself behind. Yjs begins a new list of transactions after each one; the list before it is
 *  as old as the last edit, so that by then it lies among what is old, and what it holds would live until all of that is looked
 *  through: two kilobytes an edit. */
function transactOnce(doc: Y.Doc, run: (transaction: Y.Transaction) => void): void {
  const transactions: unknown[] = doc._transactionCleanups;
  doc.transact(run);
  // Another list has taken its place when all of them are done.
  if (doc._transactionCleanups !== transactions) transactions.length = 0;
}

/** A root as a text. What is applied before anybody asks for it is kept under a root without a type, which knows whether there
 *  are marks of style. */
export function textRoot(doc: Y.Doc, name: string): Y.Text {
  const before = doc.share.get(name) as { _hasFormatting?: boolean } | undefined;
  const text = doc.getText(name);
  if (before?._hasFormatting === true && !text._hasFormatting) {
    text._hasFormatting = true;
    text._searchMarker = null;
  }
  return text;
}

/** A client id that the document does not know: 32 random bits, as Yjs has them. */
export function newClientId(doc: Y.Doc, random: Random): number {
  const view = new DataView(new ArrayBuffer(4));
  for (;;) {
    random.fill(new Uint8Array(view.buffer));
    const id = view.getUint32(0);
    if (!doc.store.clients.has(id)) return id;
  }
}

/** The canonical form of a document. */
export function canonicalOf(doc: Y.Doc, type: DocumentType): string {
  const textOf = (root: string) => doc.share.has(root) ? textRoot(doc, root).toString() : "";
  if (type === "text") return textOf("content");
  if (type === "sheet") return writeCells(doc.getMap("cells").entries());
  return writeObjects(doc.getMap("objects").entries(), (id) => textOf(OBJECT_TEXT + id));
}
