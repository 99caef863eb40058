/** The order of texts by their UTF-8 bytes, which is the order of their code points: not that of `<`, which puts what lies
 *  beyond U+FFFF before U+E000. */
export function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i), y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

/** Surrogates last. */
function rank(unit: number): number {
  return unit >= 0xD800 && unit <= 0xDFFF ? unit + 0x10000 : unit;
}
