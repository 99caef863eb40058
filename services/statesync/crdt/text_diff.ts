/** The least edit that makes one text of another. */
import type { DeltaStep, TextDelta } from "./delta.ts";

/** Differences looked for between two sequences, at most: the work is their square, and their number times the length. Texts
 *  that differ more are compared by lines, and then as wholes. */
const MAX_DIFFERENCES = 256;

/** Returns the change from `before` to `after`, which is well-formed; parts of characters are never kept. Takes time that grows
 *  with the lengths, times 256 at most. */
export function diffTexts(before: string, after: string): TextDelta {
  const start = samePrefix(before, after);
  const end = sameSuffix(before, after, start);
  const oldMiddle = before.slice(start, before.length - end);
  const newMiddle = after.slice(start, after.length - end);
  const steps = diffMiddle(oldMiddle, newMiddle);
  if (steps.length === 0) return [];
  return start === 0 ? steps : [{ keep: start }, ...steps];
}

function samePrefix(a: string, b: string): number {
  const limit = Math.min(a.length, b.length);
  let at = 0;
  while (at < limit && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  return at > 0 && isHigh(a.charCodeAt(at - 1)) ? at - 1 : at;
}

function sameSuffix(a: string, b: string, start: number): number {
  const limit = Math.min(a.length, b.length) - start;
  let count = 0;
  while (count < limit && a.charCodeAt(a.length - 1 - count) === b.charCodeAt(b.length - 1 - count)) count++;
  return count > 0 && isLow(a.charCodeAt(a.length - count)) ? count - 1 : count;
}

function isHigh(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff;
}

function isLow(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff;
}

/** Compares what is left of two texts between what they begin and end with: by characters, by lines, or not. */
function diffMiddle(before: string, after: string): DeltaStep[] {
  if (before === "" || after === "") return replace(before.length, after);
  const characters = shortestPath([...before], [...after]);
  if (characters !== undefined) return toSteps(characters);
  const lines = shortestPath(linesOf(before), linesOf(after));
  return lines === undefined ? replace(before.length, after) : toSteps(lines);
}

function replace(length: number, text: string): DeltaStep[] {
  const steps: DeltaStep[] = [];
  if (length > 0) steps.push({ remove: length });
  if (text !== "") steps.push({ insert: text });
  return steps;
}

function linesOf(text: string): string[] {
  return text.split(/(?<=\n)/);
}

/** One run of a comparison. */
interface Run {
  readonly kind: "keep" | "remove" | "insert";
  readonly text: string;
}

function toSteps(runs: readonly Run[]): DeltaStep[] {
  const steps: DeltaStep[] = [];
  for (const { kind, text } of runs) {
    if (kind === "insert") steps.push({ insert: text });
    else steps.push(kind === "keep" ? { keep: text.length } : { remove: text.length });
  }
  while (steps.length > 0 && "keep" in steps.at(-1)!) steps.pop();
  return steps;
}

/** Myers' greedy search for the least number of insertions and removals; undefined where it is above the bound. */
function shortestPath(a: readonly string[], b: readonly string[]): Run[] | undefined {
  if (Math.abs(a.length - b.length) > MAX_DIFFERENCES) return undefined;
  const offset = MAX_DIFFERENCES + 1;
  const furthest = new Int32Array(2 * offset + 1);
  const trace: Int32Array[] = [];
  for (let d = 0; d <= MAX_DIFFERENCES; d++) {
    trace.push(furthest.slice(offset - d - 1, offset + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const isDown = k === -d || (k !== d && furthest[offset + k - 1]! < furthest[offset + k + 1]!);
      let x = isDown ? furthest[offset + k + 1]! : furthest[offset + k - 1]! + 1;
      let y = x - k;
      while (x < a.length && y < b.length && a[x] === b[y]) x++, y++;
      furthest[offset + k] = x;
      if (x >= a.length && y >= b.length) return walkBack(a, b, trace);
    }
  }
  return undefined;
}

/** Follows the search back from its end. `trace[d]` has the furthest places before round d, for diagonals -d-1 to d+1. */
function walkBack(a: readonly string[], b: readonly string[], trace: readonly Int32Array[]): Run[] {
  const parts: [Run["kind"], string][] = [];
  let x = a.length, y = b.length;
  for (let d = trace.length - 1; d >= 0; d--) {
    const reached = trace[d]!;
    const at = (k: number) => reached[k + d + 1]!;
    const k = x - y;
    const isDown = k === -d || (k !== d && at(k - 1) < at(k + 1));
    const fromK = isDown ? k + 1 : k - 1;
    const fromX = d === 0 ? 0 : at(fromK);
    const fromY = d === 0 ? 0 : fromX - fromK;
    while (x > fromX && y > fromY) {
      x--, y--;
      parts.push(["keep", a[x]!]);
    }
    if (d === 0) break;
    if (isDown) parts.push(["insert", b[--y]!]);
    else parts.push(["remove", a[--x]!]);
  }
  return joinRuns(parts.reverse());
}

/** Joins what is alike, and puts what is removed before what is inserted in its place. */
function joinRuns(parts: readonly (readonly [Run["kind"], string])[]): Run[] {
  const runs: Run[] = [];
  let kept = "", removed = "", inserted = "";
  const flush = () => {
    if (removed !== "") runs.push({ kind: "remove", text: removed });
    if (inserted !== "") runs.push({ kind: "insert", text: inserted });
    removed = inserted = "";
  };
  for (const [kind, text] of parts) {
    if (kind === "keep") {
      flush();
      kept += text;
      continue;
    }
    if (kept !== "") runs.push({ kind: "keep", text: kept });
    kept = "";
    if (kind === "remove") removed += text;
    else inserted += text;
  }
  flush();
  if (kept !== "") runs.push({ kind: "keep", text: kept });
  return runs;
}
