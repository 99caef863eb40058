/** Running hash of everything that happened in a world. Two runs with one hash took the same path. */
export class Trace {
  #low = 0x9e3779b9;
  #high = 0x85ebca6b;
  /** Events recorded. */
  count = 0;

  /** Records one event: what happened, when, and the numbers that describe it. */
  record(kind: string, nowMs: number, ...values: number[]): void {
    this.count++;
    for (let i = 0; i < kind.length; i++) this.#mix(kind.charCodeAt(i));
    this.#mixNumber(nowMs);
    for (const value of values) this.#mixNumber(value);
  }

  /** Folds a datagram in: its length, head and tail. A sealed datagram's tag, at the tail, depends on every byte. */
  bytes(bytes: Uint8Array): void {
    this.#mix(bytes.length);
    const head = Math.min(bytes.length, EDGE_BYTES);
    for (let i = 0; i < head; i++) this.#mix(bytes[i] as number);
    for (let i = Math.max(head, bytes.length - EDGE_BYTES); i < bytes.length; i++) {
      this.#mix(bytes[i] as number);
    }
  }

  /** 16 hexadecimal digits. */
  digest(): string {
    return hex(this.#high) + hex(this.#low);
  }

  #mixNumber(value: number): void {
    scratch[0] = value;
    this.#mix(scratchWords[0] as number);
    this.#mix(scratchWords[1] as number);
  }

  #mix(word: number): void {
    this.#low = Math.imul(this.#low ^ word, 0x01000193);
    this.#high = Math.imul(this.#high ^ (word + (this.#low >>> 15)), 0x5bd1e995);
  }
}

const EDGE_BYTES = 64;
const scratch = new Float64Array(1);
const scratchWords = new Uint32Array(scratch.buffer);

function hex(word: number): string {
  return (word >>> 0).toString(16).padStart(8, "0");
}
