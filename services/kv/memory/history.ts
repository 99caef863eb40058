/** Rows in the order in which they were written, since the last compaction: a ring of row numbers.
 *
 *  Indexes are absolute: they count from the first row ever written in this process and stay valid while rows leave at
 *  the front. */
export class History {
  #ring: Int32Array = new Int32Array(1_024);
  #start = 0;
  #end = 0;

  /** Index of the oldest row. */
  get start(): number {
    return this.#start;
  }

  /** Index after the newest row. */
  get end(): number {
    return this.#end;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** Row at an index of `start <= index < end`. */
  at(index: number): number {
    return this.#ring[index % this.#ring.length]!;
  }

  /** Oldest row; there must be one. */
  get first(): number {
    return this.at(this.#start);
  }

  push(row: number): void {
    if (this.length === this.#ring.length) this.#grow();
    this.#ring[this.#end++ % this.#ring.length] = row;
  }

  /** Takes the newest row away; there must be one. */
  pop(): number {
    return this.at(--this.#end);
  }

  /** Takes the oldest row away; there must be one. */
  shift(): number {
    return this.at(this.#start++);
  }

  #grow(): void {
    const larger = new Int32Array(this.#ring.length * 2);
    for (let i = this.#start; i < this.#end; i++) larger[i % larger.length] = this.at(i);
    this.#ring = larger;
  }
}
