/** What edits touch, as data: which properties with which values, and which places of texts. From it are decided locks, what
 *  somebody who may only comment does, and whether a stale operation meets the edits since (SPEC §3.1). */

import { isCell } from "./names.ts";

/** Clocks `from` up to and without `to` of one client: the name of pieces of content. */
export interface IdRange {
  readonly client: number;
  readonly from: number;
  readonly to: number;
}

/** What an edit does to one text. */
export interface TextTouch {
  /** New pieces, marks of style among them. */
  readonly inserted: readonly IdRange[];
  readonly removed: readonly IdRange[];
}

/** What one edit touches. */
export interface Touch {
  /** Value written, undefined where it is taken away, by target: `objects/<object id>/<property>`, `cells/<cell>/<property>`,
   *  `comments/<comment id>/<field>`. Values are shared with the document: not to be changed. */
  readonly properties: ReadonlyMap<string, unknown>;
  /** By name of the root: `content`, `text:<object id>`. */
  readonly texts: ReadonlyMap<string, TextTouch>;
  /** Whether it touches anything else: roots of other names, nested types, pieces of which nothing is known any more. */
  readonly hasOthers: boolean;
}

/** What of a document an edit is in, as locks and access see it (SPEC §4.2, §6.2). */
export interface Scope {
  /** Ids of the objects, or names of the cells. */
  readonly objects: ReadonlySet<string>;
  /** Whether it touches anything but comments: with no objects, what only a lock of the whole document covers. */
  readonly hasContent: boolean;
  /** Ids of the comments. */
  readonly comments: ReadonlySet<string>;
}

/** Returns what of a document an edit is in. */
export function scopeOf(touch: Touch): Scope {
  const objects = new Set<string>();
  const comments = new Set<string>();
  let hasContent = touch.hasOthers || touch.texts.size > 0;
  for (const target of touch.properties.keys()) {
    const { root, id } = partsOf(target);
    if (root === "comments") {
      comments.add(id);
      continue;
    }
    hasContent = true;
    if (root === "objects" || isCell(id)) objects.add(id);
  }
  for (const root of touch.texts.keys()) {
    if (root.startsWith(OBJECT_TEXT)) objects.add(root.slice(OBJECT_TEXT.length));
  }
  return { objects, hasContent, comments };
}

/** Prefix of the names of the roots that hold texts of objects. */
export const OBJECT_TEXT = "text:";

/** Takes a target apart: `objects/a/style.fill` has root `objects`, id `a`, property `style.fill`. */
export function partsOf(target: string): { root: string; id: string; property: string } {
  const first = target.indexOf("/");
  const second = target.indexOf("/", first + 1);
  if (second < 0) return { root: target.slice(0, first), id: target.slice(first + 1), property: "" };
  return {
    root: target.slice(0, first),
    id: target.slice(first + 1, second),
    property: target.slice(second + 1),
  };
}
