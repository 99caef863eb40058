/** Names that begin with a zero byte are the product's own: workers keep what is theirs under `\\0aetherflow/`. Whoever is not
 *  the administrator, or root, does not meet them, whatever was granted: a request that names one is refused, and a range
 *  of everything begins after them.
 *
 *      "" "\\0"                    "\\x01"
 *       ├── names of the product ──┼── everybody's ──►
 *       └ a range from here on ···►└ begins here */
import { compareBytes, type KeyRange } from "../key.ts";

/** The first name that is everybody's. */
export const FIRST_NAME: Readonly<Uint8Array<ArrayBuffer>> = Uint8Array.of(1);

/** Whether a key is one of the product's own. */
export function isOwnName(key: Uint8Array): boolean {
  return key[0] === 0;
}

/** Whether a range begins where the first key would, and ends after the product's own. */
export function isFromFirst({ start, end }: KeyRange): boolean {
  return (start.length === 0 || (start.length === 1 && start[0] === 0)) &&
    (end === undefined || compareBytes(end, FIRST_NAME) > 0);
}

/** Whether a request names what is the product's own. */
export function namesOwn(key: Uint8Array, range: KeyRange | "single"): boolean {
  if (range === "single") return isOwnName(key);
  return (range.start.length === 0 || isOwnName(range.start)) && !isFromFirst(range);
}
