import type { BoltSink, BoltSource } from "../mod.ts";

/** A file in memory: written by the writer, read by the reader. */
export class MemoryFile implements BoltSink, BoltSource {
  reads = 0;

  constructor(public bytes: Uint8Array = new Uint8Array(0)) {}

  get size(): number {
    return this.bytes.length;
  }

  write(at: number, bytes: Uint8Array): Promise<void> {
    if (at + bytes.length > this.bytes.length) {
      const larger = new Uint8Array(at + bytes.length);
      larger.set(this.bytes);
      this.bytes = larger;
    }
    this.bytes.set(bytes, at);
    return Promise.resolve();
  }

  read(at: number, into: Uint8Array): Promise<void> {
    this.reads++;
    if (at < 0 || at + into.length > this.bytes.length) throw new Error(`read outside the file at ${at}`);
    into.set(this.bytes.subarray(at, at + into.length));
    return Promise.resolve();
  }
}
