/** A whiteboard's objects in the shared document: one flat map of `<object>/<property>`, and a text for each object. */
import * as Y from "yjs";
import { asRecord } from "../unknown_value.ts";

/** One object as it is drawn. What others wrote may be anything: places and sizes are finite here, and bounded. */
export interface BoardObject {
  readonly id: string;
  readonly kind: string;
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly text: string;
  /** All other properties. */
  readonly properties: Readonly<Record<string, unknown>>;
}

/** Values of properties to set; null takes one away. */
export type Properties = Readonly<Record<string, unknown>>;

/** The paper, in its own units: objects outside of it are drawn at its edge. */
export const BOARD = { width: 3_000, height: 2_000 } as const;
/** Size of an object that has none. */
const DEFAULT_SIZE = { width: 120, height: 80 } as const;

/** Origin of what this page changes, for undoing. */
const ORIGIN = "board";

/** Reads and changes the objects of a document. */
export class BoardModel {
  readonly undoManager: Y.UndoManager;
  readonly #doc: Y.Doc;
  readonly #objects: Y.Map<unknown>;
  /** Texts that are shown, to find whose one changed. */
  readonly #textOwners = new Map<unknown, string>();

  constructor(doc: Y.Doc) {
    this.#doc = doc;
    this.#objects = doc.getMap("objects");
    this.undoManager = new Y.UndoManager(this.#objects, { trackedOrigins: new Set([ORIGIN]) });
  }

  /** Ids of the objects that exist. */
  ids(): string[] {
    const ids: string[] = [];
    for (const key of this.#objects.keys()) {
      if (key.endsWith("/kind")) ids.push(key.slice(0, -"/kind".length));
    }
    return ids;
  }

  /** The objects with these ids that exist, as they are now. */
  read(ids: Iterable<string>): Map<string, BoardObject> {
    const wanted = new Set(ids);
    const properties = new Map<string, Record<string, unknown>>();
    for (const [key, value] of this.#objects.entries()) {
      const slash = key.indexOf("/");
      const id = key.slice(0, slash);
      if (!wanted.has(id)) continue;
      const found = properties.get(id) ?? {};
      found[key.slice(slash + 1)] = value;
      properties.set(id, found);
    }
    const objects = new Map<string, BoardObject>();
    for (const [id, found] of properties) {
      if (found.kind !== undefined) objects.set(id, objectOf(id, found, this.#textOf(id)));
    }
    return objects;
  }

  /** One object, if it exists. */
  get(id: string): BoardObject | undefined {
    return this.read([id]).get(id);
  }

  /** Begins a step: what follows is undone apart from what was before. Changes without a pause between them are one. */
  step(): void {
    this.undoManager.stopCapturing();
  }

  /** Makes an object, as a step, and returns its id. */
  create(kind: string, properties: Properties): string {
    this.step();
    const id = crypto.randomUUID();
    this.set(id, { kind, ...properties });
    return id;
  }

  set(id: string, properties: Properties): void {
    this.#change(() => {
      for (const [name, value] of Object.entries(properties)) {
        const key = `${id}/${name}`;
        if (value === null || value === undefined) this.#objects.delete(key);
        else if (this.#objects.get(key) !== value) this.#objects.set(key, value);
      }
    });
  }

  /** Removes an object, as a step. */
  remove(id: string): void {
    this.step();
    this.#change(() => {
      for (const key of [...this.#objects.keys()]) if (key.startsWith(`${id}/`)) this.#objects.delete(key);
      const text = this.#shownText(id);
      if (text !== undefined) {
        this.undoManager.addToScope(text);
        text.delete(0, text.length);
      }
    });
  }

  /** Makes the text of an object another one by the least edit: what others type meanwhile stays. */
  setText(id: string, next: string): void {
    const text = this.#doc.getText(`text:${id}`);
    this.#textOwners.set(text, id);
    this.undoManager.addToScope(text);
    const before = text.toString();
    let start = 0;
    while (start < before.length && start < next.length && before[start] === next[start]) start++;
    let end = 0;
    const room = Math.min(before.length, next.length) - start;
    while (end < room && before[before.length - 1 - end] === next[next.length - 1 - end]) end++;
    this.#change(() => {
      text.delete(start, before.length - start - end);
      text.insert(start, next.slice(start, next.length - end));
    });
  }

  /** Calls with the ids of the objects that each change touched; returns what ends that. */
  observe(onChange: (ids: ReadonlySet<string>) => void): () => void {
    const afterTransaction = (transaction: Y.Transaction) => {
      const ids = new Set<string>();
      for (const [type, keys] of transaction.changed) {
        const owner = this.#textOwners.get(type);
        if (owner !== undefined) ids.add(owner);
        if (type as unknown !== this.#objects) continue;
        for (const key of keys) if (key !== null) ids.add(key.slice(0, key.indexOf("/")));
      }
      if (ids.size > 0) onChange(ids);
    };
    this.#doc.on("afterTransaction", afterTransaction);
    return () => this.#doc.off("afterTransaction", afterTransaction);
  }

  #change(change: () => void): void {
    this.#doc.transact(change, ORIGIN);
  }

  #textOf(id: string): string {
    return this.#shownText(id)?.toString() ?? "";
  }

  /** The text of an object if it has one; asking for it makes it otherwise. */
  #shownText(id: string): Y.Text | undefined {
    const name = `text:${id}`;
    if (!this.#doc.share.has(name)) return undefined;
    const text = this.#doc.getText(name);
    this.#textOwners.set(text, id);
    return text;
  }
}

/** The objects of a content in the canonical form: `{"objects":{"<id>":{"kind":…}}}`. */
export function objectsOfContent(content: string): BoardObject[] {
  const objects = asRecord(asRecord(JSON.parse(content || "{}")).objects);
  return inOrder(
    Object.entries(objects).map(([id, properties]) => {
      const record = asRecord(properties);
      return objectOf(id, record, typeof record.text === "string" ? record.text : "");
    }),
  );
}

/** Objects in the order in which they are drawn: lowest first. */
export function inOrder(objects: Iterable<BoardObject>): BoardObject[] {
  const level = ({ properties: { z } }: BoardObject) => typeof z === "number" ? z : 0;
  return [...objects].sort((a, b) => level(a) - level(b) || (a.id < b.id ? -1 : 1));
}

function objectOf(id: string, properties: Readonly<Record<string, unknown>>, text: string): BoardObject {
  const { kind, x, y, width, height } = properties;
  return {
    id,
    kind: typeof kind === "string" ? kind : "",
    x: bounded(x, 0, BOARD.width),
    y: bounded(y, 0, BOARD.height),
    width: bounded(width, DEFAULT_SIZE.width, BOARD.width),
    height: bounded(height, DEFAULT_SIZE.height, BOARD.height),
    text,
    properties,
  };
}

function bounded(value: unknown, otherwise: number, max: number): number {
  if (typeof value !== "number" || !Number.isFinite(value)) return otherwise;
  return Math.min(Math.max(value, 0), max);
}
