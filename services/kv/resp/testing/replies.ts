/** Cuts a stream of replies, RESP2 or RESP3, into whole ones. */

const CR = 13;
/** Marks of replies that hold others, and how many for each counted one. */
const NESTED: Readonly<Record<string, number>> = { "*": 1, "~": 1, ">": 1, "%": 2 };

/** Takes bytes, gives replies. */
export class ReplySplitter {
  /** Whole replies, as bytes. */
  readonly ready: Uint8Array[] = [];
  #buffer: Uint8Array = new Uint8Array(0);

  push(bytes: Uint8Array): void {
    const joined = new Uint8Array(this.#buffer.length + bytes.length);
    joined.set(this.#buffer);
    joined.set(bytes, this.#buffer.length);
    let from = 0;
    for (;;) {
      const end = endOf(joined, from);
      if (end === undefined) break;
      this.ready.push(joined.slice(from, end));
      from = end;
    }
    this.#buffer = joined.subarray(from);
  }
}

/** Where the reply at `at` ends; undefined when it is not whole. */
function endOf(bytes: Uint8Array, at: number): number | undefined {
  const line = bytes.indexOf(CR, at);
  if (line < 0 || line + 1 >= bytes.length) return undefined;
  const mark = String.fromCharCode(bytes[at]!);
  const next = line + 2;
  const each = NESTED[mark];
  if (each === undefined && mark !== "$" && mark !== "=") return next;
  const count = Number(String.fromCharCode(...bytes.subarray(at + 1, line)));
  if (count < 0) return next;
  if (each === undefined) return next + count + 2 <= bytes.length ? next + count + 2 : undefined;
  let end: number | undefined = next;
  for (let i = 0; i < count * each && end !== undefined; i++) end = endOf(bytes, end);
  return end;
}
