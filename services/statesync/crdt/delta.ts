/** Changes of a text as data, and how one moves over those that others made since (SPEC §3.1, §3.2). Positions are UTF-16 code
 *  units. */
import { isSameJson } from "./json.ts";

/** Attributes of text; null takes one away. */
export type Attributes = Readonly<Record<string, unknown>>;

/** One step of a change, from the start of the text on: pass over text (`attributes`: and style it), remove some, insert some,
 *  or insert what stands at `copy` of the text before the change. What is behind the last step stays. Inserted text without
 *  `attributes` has those of its place. */
export type DeltaStep =
  | { readonly keep: number; readonly attributes?: Attributes | undefined }
  | { readonly remove: number }
  | { readonly insert: string; readonly attributes?: Attributes | undefined }
  | { readonly copy: number; readonly length: number; readonly attributes?: Attributes | undefined };

/** A change of a text. */
export type TextDelta = readonly DeltaStep[];

/** A piece of a text between an old version and the present: it was there and is, was there and is removed, or is new. Pieces
 *  stand in the order of the text. `by` is the place, among the edits since, of the one that did it. */
export type Segment =
  | { readonly kind: "kept"; readonly length: number; readonly styled: readonly Restyled[] }
  | { readonly kind: "removed" | "inserted"; readonly length: number; readonly by: number };

/** An attribute that is another one since. */
export interface Restyled {
  readonly key: string;
  /** Null: it is taken away. */
  readonly value: unknown;
  readonly by: number;
}

/** A range that a stale change and later edits touch, in the old version. */
export interface TextMeeting {
  readonly index: number;
  readonly length: number;
  /** Place of the stale change's step. */
  readonly step: number;
  /** Places of the later edits, ascending. */
  readonly edits: readonly number[];
}

/** Code units of the old version. */
export function oldLength(segments: readonly Segment[]): number {
  return segments.reduce((sum, segment) => segment.kind === "inserted" ? sum : sum + segment.length, 0);
}

/** Moves a change of the old version to the present: what others removed is gone from it, and where both insert at one place,
 *  theirs stays first. */
export function transformDelta(delta: TextDelta, segments: readonly Segment[]): TextDelta {
  const steps: DeltaStep[] = [];
  const cursor = new Cursor(segments);
  for (const step of delta) {
    if ("keep" in step || "remove" in step) {
      for (const part of cursor.take("keep" in step ? step.keep : step.remove)) {
        if (part.kind === "inserted") steps.push({ keep: part.length });
        else if (part.kind === "removed") continue;
        else steps.push("keep" in step ? { ...step, keep: part.length } : { remove: part.length });
      }
      continue;
    }
    const passed = cursor.passInserted();
    if (passed > 0) steps.push({ keep: passed });
    if ("insert" in step) steps.push(step);
    else steps.push(...transformCopy(step, segments));
  }
  return steps;
}

function transformCopy(
  step: { readonly copy: number; readonly length: number; readonly attributes?: Attributes | undefined },
  segments: readonly Segment[],
): DeltaStep[] {
  const steps: DeltaStep[] = [];
  const cursor = new Cursor(segments);
  let present = 0;
  for (const part of cursor.take(step.copy)) if (part.kind !== "removed") present += part.length;
  for (const part of cursor.take(step.length)) {
    if (part.kind === "kept") steps.push({ ...step, copy: present, length: part.length });
    if (part.kind !== "removed") present += part.length;
  }
  return steps;
}

/** Where a place of the old version is now: behind what was inserted there. */
export function transformIndex(index: number, segments: readonly Segment[]): number {
  const cursor = new Cursor(segments);
  let present = 0;
  for (const part of cursor.take(index)) if (part.kind !== "removed") present += part.length;
  return present + cursor.passInserted();
}

/** What a change of the old version and later edits both touch. */
export function meetText(delta: TextDelta, segments: readonly Segment[]): TextMeeting[] {
  const meetings: TextMeeting[] = [];
  const runs = removedRuns(segments);
  const meet = (step: number, index: number, length: number, edits: Iterable<number>) => {
    const places = [...new Set(edits)].sort((a, b) => a - b);
    if (places.length > 0) meetings.push({ step, index, length, edits: places });
  };
  const cursor = new Cursor(segments);
  let at = 0;
  delta.forEach((step, i) => {
    if ("keep" in step) {
      const parts = cursor.take(step.keep);
      if (step.attributes !== undefined) meet(i, at, step.keep, meetStyle(step.attributes, parts));
      at += step.keep;
    } else if ("remove" in step) {
      const parts = cursor.take(step.remove);
      meet(i, at, step.remove, meetRemoval(at, step.remove, parts, runs));
      at += step.remove;
    } else if ("insert" in step) {
      meet(i, at, 0, runs.filter((run) => run.from < at && at < run.to).map((run) => run.by));
    }
  });
  return meetings;
}

function* meetStyle(attributes: Attributes, parts: readonly Segment[]): Iterable<number> {
  for (const part of parts) {
    if (part.kind === "removed") yield part.by;
    if (part.kind !== "kept") continue;
    for (const { key, value, by } of part.styled) {
      if (key in attributes && !isSameJson(attributes[key], value)) yield by;
    }
  }
}

function* meetRemoval(
  at: number,
  length: number,
  parts: readonly Segment[],
  runs: readonly Run[],
): Iterable<number> {
  const same = runs.find((run) => run.from === at && run.to === at + length);
  let passed = 0;
  for (const part of parts) {
    if (part.kind === "kept") { for (const { by } of part.styled) yield by; }
    if (part.kind === "inserted") {
      if (passed > 0 && passed < length) yield part.by;
      continue;
    }
    if (part.kind === "removed" && part.by !== same?.by) yield part.by;
    passed += part.length;
  }
}

/** What one edit removed in one go, in the old version. */
interface Run {
  readonly from: number;
  to: number;
  readonly by: number;
}

function removedRuns(segments: readonly Segment[]): Run[] {
  const runs: Run[] = [];
  let at = 0;
  for (const segment of segments) {
    if (segment.kind === "inserted") continue;
    const end = at + segment.length;
    if (segment.kind === "removed") {
      const last = runs.at(-1);
      if (last !== undefined && last.to === at && last.by === segment.by) last.to = end;
      else runs.push({ from: at, to: end, by: segment.by });
    }
    at = end;
  }
  return runs;
}

/** A change without some of its steps: what they would touch stays. */
export function withoutSteps(delta: TextDelta, left: ReadonlySet<number>): TextDelta {
  if (left.size === 0) return delta;
  return delta.flatMap((step, i): DeltaStep[] => {
    if (!left.has(i)) return [step];
    if ("keep" in step) return [{ keep: step.keep }];
    return "remove" in step ? [{ keep: step.remove }] : [];
  });
}

/** Walks along segments by lengths of the old version. */
class Cursor {
  private place = 0;
  private offset = 0;

  constructor(private readonly segments: readonly Segment[]) {}

  /** The next `length` code units of the old version, with what was inserted before them or among them. */
  take(length: number): Segment[] {
    const parts: Segment[] = [];
    let left = length;
    while (left > 0) {
      const segment = this.segments[this.place];
      if (segment === undefined) break;
      const size = segment.length - this.offset;
      if (segment.kind === "inserted") {
        parts.push(segment);
        this.place++;
        continue;
      }
      const taken = Math.min(size, left);
      parts.push({ ...segment, length: taken });
      left -= taken;
      this.offset += taken;
      if (taken === size) {
        this.place++;
        this.offset = 0;
      }
    }
    return parts;
  }

  /** Passes what was inserted here, and returns how much. */
  passInserted(): number {
    let passed = 0;
    if (this.offset > 0) return 0;
    for (
      let segment = this.segments[this.place];
      segment?.kind === "inserted";
      segment = this.segments[this.place]
    ) {
      passed += segment.length;
      this.place++;
    }
    return passed;
  }
}
