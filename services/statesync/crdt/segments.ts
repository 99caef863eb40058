/** What became of a text since an old version: one walk over its structs, which keep the places of what was removed. */
import type { Restyled, Segment } from "./delta.ts";
import { isSameJson } from "./json.ts";
import type { IdRange, TextTouch } from "./touch.ts";
import type * as Y from "./yjs.ts";
import { ContentFormat, ContentString, Item } from "./yjs.ts";

/** Stands, in texts of the old version, for a code unit that is no text now: removed since, or something embedded. It is half of
 *  a character, which no text that was passed in has. */
export const GONE = "\ud800";

/** What became of a text since the first of `touches`, which are all edits of it since, in their order. Takes time that grows
 *  with the structs of the text. */
export function segmentsOf(text: Y.Text, touches: readonly TextTouch[]): Segment[] {
  return new Walk(touches).segments(text);
}

/** The text of the old version, as far as it is there. */
export function oldText(text: Y.Text, touches: readonly TextTouch[]): string {
  return new Walk(touches).old(text);
}

/** A piece of a text as it was or is. */
export interface TextPart {
  readonly kind: Segment["kind"];
  readonly text: string;
  /** Place of the edit that did it; -1 for what is kept. */
  readonly by: number;
}

/** The text before the first of `touches` and now, in pieces; of what is removed there is text only where the document does not
 *  collect it. */
export function partsOfText(text: Y.Text, touches: readonly TextTouch[]): TextPart[] {
  return new Walk(touches).parts(text);
}

/** Who did something to a range of clocks. */
export interface Owned {
  readonly from: number;
  readonly to: number;
  readonly by: number;
}

/** Ranges by client, in the order of clocks. */
export type Ranges = ReadonlyMap<number, readonly Owned[]>;

class Walk {
  private readonly inserted: Ranges;
  private readonly removed: Ranges;
  private readonly result: Segment[] = [];
  /** Attributes here in the old version and now, and who last changed each. */
  private readonly before = new Map<string, unknown>();
  private readonly now = new Map<string, unknown>();
  private readonly changedBy = new Map<string, number>();

  constructor(touches: readonly TextTouch[]) {
    this.inserted = collect(touches.map((touch) => touch.inserted));
    this.removed = collect(touches.map((touch) => touch.removed));
  }

  segments(text: Y.Text): Segment[] {
    for (const item of itemsOf(text)) {
      if (item.content instanceof ContentFormat) {
        this.mark(item, item.content);
        continue;
      }
      for (const piece of this.piecesOf(item)) this.push(piece.kind, piece.to - piece.from, piece.by);
    }
    return this.result;
  }

  old(text: Y.Text): string {
    let result = "";
    for (const item of itemsOf(text)) {
      if (item.content instanceof ContentFormat) continue;
      for (const { kind, from, to } of this.piecesOf(item)) {
        if (kind === "inserted") continue;
        const start = from - item.id.clock, end = to - item.id.clock;
        result += kind === "kept" && item.content instanceof ContentString
          ? item.content.str.slice(start, end)
          : GONE.repeat(end - start);
      }
    }
    return result;
  }

  parts(text: Y.Text): TextPart[] {
    const parts: TextPart[] = [];
    for (const item of itemsOf(text)) {
      if (!(item.content instanceof ContentString)) continue;
      const { clock } = item.id;
      for (const { kind, from, to, by } of this.piecesOf(item)) {
        parts.push({ kind, text: item.content.str.slice(from - clock, to - clock), by });
      }
    }
    return parts;
  }

  /** The pieces of a struct that count in the old version or now. */
  private *piecesOf(
    item: Y.Item,
  ): Iterable<{ kind: Segment["kind"]; from: number; to: number; by: number }> {
    const { client, clock } = item.id;
    const end = clock + item.length;
    for (const { from, to, by: insertedBy } of cut(this.inserted.get(client), clock, end)) {
      if (insertedBy !== undefined) {
        if (!item.deleted) yield { kind: "inserted", from, to, by: insertedBy };
      } else if (!item.deleted) {
        yield { kind: "kept", from, to, by: -1 };
      } else {
        for (const piece of cut(this.removed.get(client), from, to)) {
          if (piece.by !== undefined) yield { kind: "removed", from: piece.from, to: piece.to, by: piece.by };
        }
      }
    }
  }

  private push(kind: Segment["kind"], length: number, by: number): void {
    const last = this.result.at(-1);
    if (kind === "kept") {
      const styled = this.styled();
      if (last?.kind === "kept" && isSameStyle(last.styled, styled)) {
        this.result[this.result.length - 1] = { ...last, length: last.length + length };
      } else {
        this.result.push({ kind, length, styled });
      }
    } else if (last !== undefined && last.kind === kind && last.by === by) {
      this.result[this.result.length - 1] = { ...last, length: last.length + length };
    } else {
      this.result.push({ kind, length, by });
    }
  }

  private mark(item: Y.Item, { key, value }: Y.ContentFormat): void {
    const { client, clock } = item.id;
    const insertedBy = ownerOf(this.inserted.get(client), clock);
    const removedBy = item.deleted ? ownerOf(this.removed.get(client), clock) : undefined;
    const wasThere = insertedBy === undefined && (!item.deleted || removedBy !== undefined);
    if (wasThere) this.before.set(key, value);
    if (!item.deleted) this.now.set(key, value);
    const by = item.deleted ? removedBy : insertedBy;
    if (by !== undefined && (wasThere || !item.deleted)) this.changedBy.set(key, by);
  }

  private styled(): readonly Restyled[] {
    if (this.changedBy.size === 0) return NO_STYLE;
    const styled: Restyled[] = [];
    for (const [key, by] of this.changedBy) {
      const value = this.now.get(key) ?? null;
      if (!isSameJson(this.before.get(key) ?? null, value)) styled.push({ key, value, by });
    }
    return styled.length === 0 ? NO_STYLE : styled;
  }
}

const NO_STYLE: readonly Restyled[] = [];

function isSameStyle(a: readonly Restyled[], b: readonly Restyled[]): boolean {
  return a === b || (a.length === b.length &&
    a.every((style, i) => style.key === b[i]!.key && style.by === b[i]!.by && style.value === b[i]!.value));
}

/** The structs of a text that have a place in it: all but marks of attributes of the whole. */
export function* itemsOf(text: Y.Text): Iterable<Y.Item> {
  for (let item = text._start; item !== null; item = item.right) {
    if (item instanceof Item && (item.countable || item.deleted || item.content instanceof ContentFormat)) {
      yield item;
    }
  }
}

/** Orders ranges by client, each with the place of the edit that it is of. */
export function collect(touches: readonly (readonly IdRange[])[]): Ranges {
  const ranges = new Map<number, Owned[]>();
  touches.forEach((touch, by) => {
    for (const { client, from, to } of touch) {
      const own = ranges.get(client);
      if (own === undefined) ranges.set(client, [{ from, to, by }]);
      else own.push({ from, to, by });
    }
  });
  for (const own of ranges.values()) own.sort((a, b) => a.from - b.from);
  return ranges;
}

/** Cuts a range of clocks where owners change; `by` is undefined where there is none. */
function* cut(
  owned: readonly Owned[] | undefined,
  from: number,
  to: number,
): Iterable<{ from: number; to: number; by: number | undefined }> {
  let at = from;
  if (owned !== undefined) {
    for (let i = firstEndingAfter(owned, from); i < owned.length && owned[i]!.from < to; i++) {
      const range = owned[i]!;
      if (range.from > at) yield { from: at, to: range.from, by: undefined };
      const start = Math.max(at, range.from), end = Math.min(to, range.to);
      if (start < end) yield { from: start, to: end, by: range.by };
      at = Math.max(at, end);
    }
  }
  if (at < to) yield { from: at, to, by: undefined };
}

function firstEndingAfter(owned: readonly Owned[], clock: number): number {
  let low = 0, high = owned.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (owned[middle]!.to <= clock) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Place of the edit that a clock is of. */
export function ownerOf(owned: readonly Owned[] | undefined, clock: number): number | undefined {
  const range = owned?.[firstEndingAfter(owned, clock)];
  return range !== undefined && range.from <= clock ? range.by : undefined;
}
