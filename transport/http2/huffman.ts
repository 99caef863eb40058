/** The Huffman code of HPACK, RFC 7541 §5.2 and appendix B. Only decoding: what is sent is short, and literals are as good. */

/** Bits of the code of each symbol 0…255 and of the end of string, 256. The code is canonical: codes of one length follow
 *  one another in the order of their symbols, shorter ones first, so the lengths tell everything. */
// deno-fmt-ignore
const CODE_BITS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];
const END_OF_STRING = 256;
const SYMBOLS = 257;

/** Bits of a symbol's code and their number. */
export function huffmanCode(symbol: number): { readonly code: number; readonly bits: number } {
  return { code: CODES[symbol]!, bits: CODE_BITS[symbol]! };
}

/** Decodes `bytes[start..end]` into `to` from 0 on and returns how many bytes came out; -1 when the text is malformed: it has
 *  the end-of-string symbol, or its padding is 8 bits or more or has a zero. `to` needs 8/5 of the input's length. */
export function huffmanDecode(bytes: Uint8Array, start: number, end: number, to: Uint8Array): number {
  let state = 0;
  let length = 0;
  for (let i = start; i < end; i++) {
    const byte = bytes[i]!;
    for (let shift = 4; shift >= 0; shift -= 4) {
      const at = (state << 4) | ((byte >> shift) & 15);
      const symbol = SYMBOL[at]!;
      if (symbol >= 0) to[length++] = symbol;
      state = NEXT[at]!;
      if (state < 0) return -1;
    }
  }
  return MAY_END[state] === 1 ? length : -1;
}

const CODES = canonicalCodes();

/** A state is an inner node of the code's tree; 0 is its root. Index: state * 16 + four bits of input. No code is shorter
 *  than five bits, so four bits end at most one. */
const NEXT = new Int16Array((SYMBOLS - 1) * 16);
const SYMBOL = new Int16Array((SYMBOLS - 1) * 16).fill(-1);
/** 1 for states that up to seven one bits from the root lead to: what padding may look like. */
const MAY_END = new Uint8Array(SYMBOLS - 1);
buildTables();

function canonicalCodes(): number[] {
  const codes = new Array<number>(SYMBOLS).fill(0);
  let next = 0;
  for (let bits = 1; bits <= 30; bits++) {
    next *= 2;
    for (let symbol = 0; symbol < SYMBOLS; symbol++) {
      if (CODE_BITS[symbol] === bits) codes[symbol] = next++;
    }
  }
  return codes;
}

function buildTables(): void {
  // Children of inner nodes: inner nodes as they are, leaves as -1 - symbol.
  const children: [number, number][] = [[0, 0]];
  for (let symbol = 0; symbol < SYMBOLS; symbol++) {
    let node = 0;
    for (let bit = CODE_BITS[symbol]! - 1; bit > 0; bit--) {
      const side = (CODES[symbol]! >>> bit) & 1;
      if (children[node]![side] === 0) children[node]![side] = children.push([0, 0]) - 1;
      node = children[node]![side]!;
    }
    children[node]![CODES[symbol]! & 1] = -1 - symbol;
  }
  for (let state = 0; state < children.length; state++) {
    for (let input = 0; input < 16; input++) {
      const at = state * 16 + input;
      let node = state;
      for (let bit = 3; bit >= 0 && NEXT[at]! >= 0; bit--) {
        node = children[node]![(input >> bit) & 1]!;
        if (node === -1 - END_OF_STRING) NEXT[at] = -1;
        else if (node < 0) {
          SYMBOL[at] = -1 - node;
          node = 0;
        }
      }
      if (NEXT[at]! >= 0) NEXT[at] = node;
    }
  }
  for (let ones = 0, node = 0; ones < 8; ones++, node = children[node]![1]) MAY_END[node] = 1;
}
