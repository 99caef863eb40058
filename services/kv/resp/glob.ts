/** Patterns of KEYS, SCAN and PSUBSCRIBE: `*`, `?`, `[a-c]`, `[^a]`, `\` before a plain byte. */

const STAR = 42;
const QUESTION = 63;
const OPEN = 91;
const CLOSE = 93;
const CARET = 94;
const BACKSLASH = 92;
const DASH = 45;

/** Whether `text` matches `pattern`. Takes at most their lengths' product of steps, whatever the pattern. As in Redis, an
 *  empty text matches no pattern but the empty one: who means everything looks at `matchesAll` first. */
export function matchesGlob(pattern: Uint8Array, text: Uint8Array): boolean {
  if (text.length === 0) return pattern.length === 0;
  let p = 0;
  let t = 0;
  let starAt = -1;
  let starText = 0;
  while (t < text.length) {
    if (p < pattern.length && pattern[p] === STAR) {
      starAt = ++p;
      starText = t;
      continue;
    }
    const next = p < pattern.length ? matchOne(pattern, p, text[t]!) : -1;
    if (next >= 0) {
      p = next;
      t++;
    } else if (starAt >= 0) {
      // What a star took was too little: it takes one more. Only the last star needs to be looked at again.
      p = starAt;
      t = ++starText;
    } else return false;
  }
  while (p < pattern.length && pattern[p] === STAR) p++;
  return p === pattern.length;
}

/** The bytes that everything that matches begins with. */
export function literalPrefix(pattern: Uint8Array): Uint8Array {
  const end = pattern.findIndex((byte) =>
    byte === STAR || byte === QUESTION || byte === OPEN || byte === BACKSLASH
  );
  return end < 0 ? pattern : pattern.subarray(0, end);
}

/** Whether the pattern matches everything. */
export function matchesAll(pattern: Uint8Array): boolean {
  return pattern.length === 1 && pattern[0] === STAR;
}

/** Where the pattern goes on when its element at `p`, which is no star, takes `byte`; -1 when it does not. */
function matchOne(pattern: Uint8Array, p: number, byte: number): number {
  const mark = pattern[p]!;
  if (mark === QUESTION) return p + 1;
  if (mark === OPEN) return matchClass(pattern, p + 1, byte);
  if (mark === BACKSLASH && p + 1 < pattern.length) return pattern[p + 1] === byte ? p + 2 : -1;
  return mark === byte ? p + 1 : -1;
}

/** As Redis reads it: a class without an end goes to the end of the pattern. */
function matchClass(pattern: Uint8Array, from: number, byte: number): number {
  let p = from;
  const isNegated = pattern[p] === CARET;
  if (isNegated) p++;
  let isHit = false;
  for (;; p++) {
    const mark = pattern[p];
    if (mark === undefined) {
      p--;
      break;
    }
    if (mark === BACKSLASH && p + 1 < pattern.length) {
      p++;
      if (pattern[p] === byte) isHit = true;
    } else if (mark === CLOSE) {
      break;
    } else if (pattern[p + 1] === DASH && p + 2 < pattern.length) {
      const low = Math.min(mark, pattern[p + 2]!);
      const high = Math.max(mark, pattern[p + 2]!);
      p += 2;
      if (byte >= low && byte <= high) isHit = true;
    } else if (mark === byte) isHit = true;
  }
  return isHit !== isNegated ? p + 1 : -1;
}
