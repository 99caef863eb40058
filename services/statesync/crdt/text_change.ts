/** Makes changes of a Yjs text. */
import { StateSyncError } from "../errors.ts";
import type { Attributes, DeltaStep, TextDelta } from "./delta.ts";
import { itemsOf } from "./segments.ts";
import * as Y from "./yjs.ts";

/** Checks that a change cuts no character in two: Yjs would replace both halves. Walks through the structs of the text.
 *  @throws {StateSyncError} `invalid`, naming the place. */
export function checkCuts(text: Y.Text, delta: TextDelta): void {
  const places: number[] = [];
  let at = 0;
  for (const step of delta) {
    if ("keep" in step) at += step.keep;
    else if ("remove" in step) at += step.remove;
    else if ("copy" in step) places.push(step.copy, step.copy + step.length);
    places.push(at);
  }
  if (places.every((place) => place === 0 || place === text.length)) return;
  places.sort((a, b) => a - b);
  let next = 0;
  let start = 0;
  for (const item of itemsOf(text)) {
    if (item.deleted || !item.countable) continue;
    const end = start + item.length;
    for (; next < places.length && places[next]! < end; next++) {
      const offset = places[next]! - start;
      if (offset > 0 && item.content instanceof Y.ContentString && isWithin(item.content.str, offset)) {
        throw new StateSyncError("invalid", `index ${places[next]} is within a character`);
      }
    }
    start = end;
  }
}

function isWithin(text: string, offset: number): boolean {
  return (text.charCodeAt(offset) & 0xfc00) === 0xdc00 && (text.charCodeAt(offset - 1) & 0xfc00) === 0xd800;
}

/** Makes a change, within a transaction: from its end to its start, so that no step moves the places of the others. */
export function changeText(text: Y.Text, delta: TextDelta): void {
  const present: Run[] = delta.some((step) => "copy" in step) ? text.toDelta() : [];
  const steps: { readonly at: number; readonly step: DeltaStep }[] = [];
  let at = 0;
  for (const step of delta) {
    steps.push({ at, step });
    if ("keep" in step) at += step.keep;
    else if ("remove" in step) at += step.remove;
  }
  for (const { at, step } of steps.reverse()) {
    if ("remove" in step) text.delete(at, step.remove);
    else if ("insert" in step) text.insert(at, step.insert, step.attributes && { ...step.attributes });
    else if ("keep" in step) {
      if (step.attributes !== undefined) text.format(at, step.keep, { ...step.attributes });
    } else {
      for (const run of sliceRuns(present, step.copy, step.length).reverse()) {
        insertRun(text, at, run, step.attributes);
      }
    }
  }
}

/** A run of a text with one style, or something embedded. */
interface Run {
  readonly insert: string | object;
  readonly attributes?: Attributes;
}

function insertRun(
  text: Y.Text,
  at: number,
  { insert, attributes }: Run,
  more: Attributes | undefined,
): void {
  const all = { ...attributes, ...more };
  if (typeof insert === "string") text.insert(at, insert, all);
  else if (!(insert instanceof Y.AbstractType)) text.insertEmbed(at, insert, all);
}

function sliceRuns(runs: readonly Run[], index: number, length: number): Run[] {
  const sliced: Run[] = [];
  let at = 0;
  for (const run of runs) {
    const size = typeof run.insert === "string" ? run.insert.length : 1;
    const from = Math.max(index - at, 0), to = Math.min(index + length - at, size);
    if (from < to) {
      sliced.push(typeof run.insert === "string" ? { ...run, insert: run.insert.slice(from, to) } : run);
    }
    at += size;
  }
  return sliced;
}
