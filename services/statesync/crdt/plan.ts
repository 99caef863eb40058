/** What an operation is to do to a content as it is: the step between an edit that somebody meant and a change (SPEC §2.1). */
import { StateSyncError } from "../errors.ts";
import type { Content } from "./content.ts";
import type { TextDelta } from "./delta.ts";
import type { CellChange, CommentChange, Edit, ObjectChange } from "./operation.ts";
import { diffTexts } from "./text_diff.ts";
import { composeEdits, type TextEdit } from "./text_edits.ts";
import { OBJECT_TEXT } from "./touch.ts";

/** What is to be done. */
export interface Plan {
  /** Values to write, undefined to take away, by target (see Touch). */
  readonly properties: ReadonlyMap<string, unknown>;
  /** Changes of texts, by root. */
  readonly texts: ReadonlyMap<string, TextDelta>;
  /** Roots of texts to empty: those of removed objects. */
  readonly emptied: readonly string[];
}

/** Whether there is nothing to be done. What is to be done may be there already. */
export function isEmptyPlan({ properties, texts, emptied }: Plan): boolean {
  return properties.size === 0 && emptied.length === 0 &&
    [...texts.values()].every((delta) => delta.length === 0);
}

/** Says what an edit, made with the present content in view, is to do.
 *  @throws {StateSyncError} `noObject`, `exists`, or `invalid` for positions outside of the text. */
export function planEdit(content: Content, edit: Edit): Plan {
  const intent = intentOf(content, edit);
  for (const need of intent.needs) checkNeed(content, need);
  const texts = new Map<string, TextDelta>();
  if (intent.text !== undefined) {
    const { root, edits } = intent.text;
    const whole = edits[0]?.isWhole === true ? edits[0].insert : undefined;
    texts.set(
      root,
      whole === undefined
        ? composeEdits(content.textLength(root), edits)
        : diffTexts(content.text(root), whole),
    );
  }
  return { properties: intent.properties, texts, emptied: intent.emptied };
}

/** What an edit means for a content, before it is asked whether it can be. */
export interface Intent {
  readonly properties: ReadonlyMap<string, unknown>;
  readonly text: { readonly root: string; readonly edits: readonly TextEdit[] } | undefined;
  readonly emptied: readonly string[];
  readonly needs: readonly Need[];
  /** What is to be there, or is taken away as a whole: `objects/<id>`, `comments/<id>`. */
  readonly changed: string | undefined;
  readonly removed: string | undefined;
  /** Either all of its writes are made or none: the writes of a move. */
  readonly isAtomic: boolean;
}

/** Something that must be there, or must not be. */
export interface Need {
  /** The target by which it is there; of a text document's text its root. */
  readonly mark: string;
  readonly isThere: boolean;
  /** What a person calls it. */
  readonly name: string;
}

/** Checks what an edit needs.
 *  @throws {StateSyncError} `noObject` or `exists`. */
export function checkNeed(content: Content, { mark, isThere, name }: Need): void {
  const there = mark === "content" ? content.textLength(mark) > 0 : (content.value(mark) ?? null) !== null;
  if (there !== isThere) throw new StateSyncError(isThere ? "noObject" : "exists", name);
}

/** Says what an edit means. */
export function intentOf(content: Content, { type, change }: Edit): Intent {
  switch (change.kind) {
    case "text": {
      const needs = type === "create" ? [{ mark: "content", isThere: false, name: "the text" }] : [];
      return { ...NOTHING, text: { root: "content", edits: change.edits }, needs, isAtomic: type === "move" };
    }
    case "object":
      return objectIntent(content, type, change);
    case "cells":
      return cellsIntent(content, type, change);
    case "comment":
      return commentIntent(content, type, change);
  }
}

const NOTHING: Intent = {
  properties: new Map(),
  text: undefined,
  emptied: [],
  needs: [],
  changed: undefined,
  removed: undefined,
  isAtomic: false,
};

function objectIntent(content: Content, type: Edit["type"], change: ObjectChange): Intent {
  const { objectId } = change;
  const place = `objects/${objectId}`;
  const needs = [{ mark: `${place}/kind`, isThere: type !== "create", name: `object ${objectId}` }];
  if (type === "delete") {
    const properties = removals(content, "objects", objectId);
    return { ...NOTHING, properties, emptied: [OBJECT_TEXT + objectId], needs, removed: place };
  }
  const properties = new Map<string, unknown>();
  if (type === "create" && !content.hasObject(objectId)) {
    // What an object of that id left behind is none of the new one.
    for (const target of content.targetsOf("objects", objectId)) properties.set(target, undefined);
  }
  for (const [name, value] of change.properties) properties.set(`${place}/${name}`, value);
  const text = change.text.length === 0 ? undefined : { root: OBJECT_TEXT + objectId, edits: change.text };
  return { ...NOTHING, properties, text, needs, changed: place };
}

function commentIntent(content: Content, type: Edit["type"], { commentId, fields }: CommentChange): Intent {
  const place = `comments/${commentId}`;
  const needs = [{ mark: `${place}/author`, isThere: type !== "create", name: `comment ${commentId}` }];
  if (type === "delete") {
    return { ...NOTHING, properties: removals(content, "comments", commentId), needs, removed: place };
  }
  const properties = new Map<string, unknown>();
  for (const [field, value] of fields) properties.set(`${place}/${field}`, value);
  return { ...NOTHING, properties, needs, changed: place };
}

function removals(content: Content, root: string, id: string): Map<string, unknown> {
  return new Map(content.targetsOf(root, id).map((target) => [target, undefined]));
}

function cellsIntent(content: Content, type: Edit["type"], { cells }: CellChange): Intent {
  const properties = new Map<string, unknown>();
  const needs: Need[] = [];
  for (const { cell, properties: values, to } of cells) {
    if (type === "create") needs.push({ mark: `cells/${cell}/value`, isThere: false, name: `cell ${cell}` });
    if (type === "delete") {
      for (const target of cellTargets(content, properties, cell)) properties.set(target, undefined);
    } else if (type === "move") {
      moveCell(content, properties, cell, to);
    } else {
      for (const [name, value] of values) properties.set(`cells/${cell}/${name}`, value);
    }
  }
  return { ...NOTHING, properties, needs, isAtomic: type === "move" };
}

/** Moves a cell over what there is and what earlier edits of the operation make of it. */
function moveCell(content: Content, properties: Map<string, unknown>, cell: string, to: string): void {
  if (cell === to) return;
  const moved = cellTargets(content, properties, cell).map((target) => {
    const value = properties.has(target) ? properties.get(target) : content.value(target);
    return [target, value] as const;
  });
  for (const target of cellTargets(content, properties, to)) properties.set(target, undefined);
  for (const [target, value] of moved) {
    properties.set(`cells/${to}/${target.slice(`cells/${cell}/`.length)}`, value);
    properties.set(target, undefined);
  }
}

function cellTargets(content: Content, properties: ReadonlyMap<string, unknown>, cell: string): string[] {
  const prefix = `cells/${cell}/`;
  const targets = new Set(content.targetsOf("cells", cell));
  for (const target of properties.keys()) if (target.startsWith(prefix)) targets.add(target);
  return [...targets];
}
