/** Whether an update takes too much work to integrate. Where several structs were put at one place, Yjs compares a new one with
 *  them one after the other; an update of many structs that all say so takes the square of their number. Most cannot, by their
 *  size alone; the others are tried on a copy. */
import * as Y from "./yjs.ts";

/** Comparisons that one update may need: at about 100 ns each, the document worker stands still for less than half a second. */
export const MAX_COMPARISONS = 4_000_000;

/** Whether an update of so many new structs may need more, whatever it says. */
export function isSuspicious(doc: Y.Doc, newStructs: number): boolean {
  if (newStructs < SAFE_STRUCTS) return false;
  let structs = newStructs;
  for (const own of doc.store.clients.values()) structs += own.length;
  return newStructs * structs > MAX_COMPARISONS;
}

/** Updates of fewer structs are not counted: with 400,000 of them in the document they stay below the bound. */
const SAFE_STRUCTS = 10;

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
