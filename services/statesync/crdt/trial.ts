/** Whether an update takes too much work to integrate. Where several structs were put at one place, Yjs compares a new one with
 *  them one after the other; an update of many structs that all say so takes the square of their number. Most cannot, by their
 *  size alone; the others are tried on a copy. */
import * as Y from "./yjs.ts";

/** Comparisons that one update may need: at about 100 ns each, the document worker stands still for less than half a second. */
export const MAX_COMPARISONS = 4_000_000;

/** Whether an update with such new structs, in the order of their integration, may need more. */
export function isSuspicious(doc: Y.Doc, structs: readonly (Y.Item | Y.GC)[]): boolean {
  if (structs.length < SAFE_STRUCTS) return false;
  let total = structs.length;
  for (const own of doc.store.clients.values()) total += own.length;
  return structs.length * total > MAX_COMPARISONS && countUnproven(doc, structs) * total > MAX_COMPARISONS;
}

/** Updates of fewer structs are not counted: with 400,000 of them in the document they stay below the bound. */
const SAFE_STRUCTS = 10;

/** Counts the structs of which it does not follow at once that they are compared with one other at most. */
function countUnproven(doc: Y.Doc, structs: readonly (Y.Item | Y.GC)[]): number {
  const places = new Places(doc);
  let unproven = 0;
  for (const struct of structs) {
    if (struct instanceof Y.Item && !places.put(struct)) unproven++;
  }
  return unproven;
}

const UNKNOWN = "?";

/** Where new structs go, as far as it is known. Yjs compares a struct with what follows its origin, as long as that was put behind
 *  the same origin, or behind something that it was compared with: so it goes no further where nothing else was put directly
 *  behind the origin. At the start of a list or key, whose structs have no origin, only the first of all is certain. */
export class Places {
  /** Id of the struct that follows directly, by id of the origin; UNKNOWN where there are several in an unknown order. */
  private readonly next = new Map<string, string>();
  /** Ids of the last pieces of new structs. */
  private readonly ends = new Set<string>();
  /** New structs that are the first of their list or key, and where there is a new first: `before` a struct, or `in` a list or
   *  key that was empty. */
  private readonly firsts = new Set<string>();
  /** Whether a struct came somewhere to the start of a list, so that what was first may be it no more. */
  private isStartUnknown = false;

  constructor(private readonly doc: Y.Doc) {}

  /** Puts a struct; false if it may be compared with several others. */
  put(item: Y.Item): boolean {
    const { origin, rightOrigin, id: { client, clock }, length } = item;
    const first = `${client}/${clock}`;
    const right = rightOrigin === null ? "" : keyOf(rightOrigin);
    let isProven: boolean;
    if (origin === null) {
      isProven = this.takeFirst(item, right);
      if (isProven) this.firsts.add(first);
      else this.isStartUnknown = true;
    } else {
      const place = keyOf(origin);
      const next = this.next.get(place);
      isProven = next === undefined ? this.isFree(origin, right) : next === right;
      this.next.set(place, isProven ? first : UNKNOWN);
    }
    for (let i = 1; i < length && length <= INNER_PIECES; i++) {
      this.next.set(`${client}/${clock + i - 1}`, `${client}/${clock + i}`);
    }
    this.ends.add(`${client}/${clock + length - 1}`);
    return isProven;
  }

  /** Whether nothing but `right` was put directly behind a piece, before the update. */
  private isFree(id: Y.ID, right: string): boolean {
    if (id.clock >= Y.getState(this.doc.store, id.client)) return this.ends.has(keyOf(id));
    const item = itemAt(this.doc, id);
    if (item === undefined) return true;
    if (id.clock < item.id.clock + item.length - 1) return right === `${id.client}/${id.clock + 1}`;
    const next = item.right;
    return next === null || keyOf(next.id) === right || !Y.compareIDs(next.origin, id);
  }

  /** Whether what is put is the first where it is; what was is no more. */
  private takeFirst({ rightOrigin, parent, parentSub }: Y.Item, right: string): boolean {
    if (rightOrigin !== null) {
      if (this.isStartUnknown) return false;
      if (this.firsts.delete(right)) return true;
      const item = itemAt(this.doc, rightOrigin);
      const place = `before ${right}`;
      if (item === undefined || item.left !== null || item.id.clock !== rightOrigin.clock) return false;
      if (this.firsts.has(place)) return false;
      this.firsts.add(place);
      return true;
    }
    const place = `in ${typeof parent === "string" ? parent : keyOf(parent as Y.ID)} ${parentSub}`;
    if (this.firsts.has(place)) return false;
    this.firsts.add(place);
    const type = typeof parent === "string" ? this.doc.share.get(parent) : typeAt(this.doc, parent as Y.ID);
    return type === undefined || (parentSub === null ? type._start === null : !type._map.has(parentSub));
  }
}

/** Structs of more pieces are not taken apart: what is put within them counts as unproven. */
const INNER_PIECES = 64;

function keyOf({ client, clock }: Y.ID): string {
  return `${client}/${clock}`;
}

/** The struct of the document with that id; undefined where there is none, or it is collected. */
function itemAt(doc: Y.Doc, id: Y.ID): Y.Item | undefined {
  if (id.clock >= Y.getState(doc.store, id.client)) return undefined;
  const struct = Y.getItem(doc.store, id);
  return struct instanceof Y.Item ? struct : undefined;
}

function typeAt(doc: Y.Doc, id: Y.ID): Y.AbstractType<unknown> | undefined {
  const item = itemAt(doc, id);
  return item !== undefined && item.content instanceof Y.ContentType ? item.content.type : undefined;
}

/** Integrates new structs into a copy, as long as they need no more than the bound; says whether they did. They cannot be used
 *  afterwards, nor can the copy. */
export function canIntegrate(copy: Y.Doc, structs: readonly (Y.Item | Y.GC)[]): boolean {
  return copy.transact((transaction) => {
    let left = MAX_COMPARISONS;
    for (const struct of structs) {
      const known = Y.getState(copy.store, struct.id.client);
      if (struct instanceof Y.Item) {
        if (typeof struct.parent === "string") {
          struct.parent = copy.get(struct.parent) as Y.AbstractType<unknown>;
        }
        struct.getMissing(transaction, copy.store);
        left -= comparisons(struct, left);
        if (left <= 0) return false;
      }
      struct.integrate(transaction, known - struct.id.clock);
    }
    return true;
  });
}

/** Structs between those that an item was put between, up to `limit`. */
function comparisons(item: Y.Item, limit: number): number {
  const parent = item.parent as Y.AbstractType<unknown> | null;
  if (parent === null || parent === undefined) return 0;
  let next = item.left !== null ? item.left.right : item.parentSub === null ? parent._start : null;
  let count = 0;
  if (item.left === null && item.parentSub !== null) {
    for (let at = parent._map.get(item.parentSub) ?? null; at !== null && count < limit; at = at.left) {
      count++;
    }
  }
  for (; next !== null && next !== item.right && count < limit; next = next.right) count++;
  return count;
}
