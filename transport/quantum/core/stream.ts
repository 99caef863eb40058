/** The two halves of a stream. SPEC §5. They keep bytes and offsets; the connection decides and talks. */

const NO_CHUNKS: Uint8Array[] = [];
const EMPTY = new Uint8Array(0);

/** Control frames that wait to be sent for a stream; bits of `Stream.control`. */
export const CONTROL = { reset: 1, stop: 2, maxStreamData: 4 } as const;

/** One bidirectional stream. */
export class Stream {
  readonly send: SendHalf;
  readonly receive: ReceiveHalf;
  /** Control frames that wait. */
  control = 0;
  /** Whether the stream is in the connection's queues of new bytes, of bytes to send again, of control frames. */
  inReady = false;
  inResend = false;
  inControl = false;
  /** New bytes sent since the stream's turn began. SPEC §5.8. */
  turnBytes = 0;
  /** Code of the STOP frame. */
  stopCode = 0;

  constructor(
    readonly id: number,
    readonly isLocal: boolean,
    sendLimit: number,
    receiveLimit: number,
    /** Whether the owner knows of the stream: its own from the start, the peer's from the first frame. */
    public announced: boolean,
  ) {
    this.send = new SendHalf(sendLimit);
    this.receive = new ReceiveHalf(receiveLimit);
  }
}

/** What we send: bytes are kept from `write` until acknowledged. Offsets are of the stream.
 *
 *      0 ........ acked ........ sent ........ written
 *        released       in flight       unsent
 */
export class SendHalf {
  written = 0;
  finWritten = false;
  sent = 0;
  finSent = false;
  acked = 0;
  finAcked = false;
  /** MAX_STREAM_DATA of the peer. */
  limit: number;
  /** Whether `write` reported false and `drain` is owed. */
  aboveHighWater = false;
  /** -1, or the code with which the half was given up. */
  resetCode = -1;
  resetAcked = false;
  // Chunk `#head` begins at `#headOffset`; `#cursor` is where the last copy ended, at or behind the head.
  #chunks = NO_CHUNKS;
  #head = 0;
  #headOffset = 0;
  #cursor = 0;
  #cursorOffset = 0;
  // Pairs start, end: acknowledged beyond `acked`; lost and to be sent again.
  #ackedRanges: number[] | undefined;
  #lost: number[] | undefined;
  #finLost = false;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** Bytes written and never sent. */
  get unsent(): number {
    return this.written - this.sent;
  }

  /** Whether this half is over: all acknowledged, or given up and that acknowledged. */
  get isDone(): boolean {
    return this.resetCode >= 0 ? this.resetAcked : this.finAcked && this.acked === this.written;
  }

  /** Whether new bytes, or a fin, may go within the stream's own limit. */
  get hasNew(): boolean {
    if (this.sent < this.written) return this.sent < this.limit;
    return this.finWritten && !this.finSent;
  }

  /** Whether something lost waits. */
  get hasLost(): boolean {
    return this.#lost !== undefined || this.#finLost;
  }

  /** Appends a chunk, kept by reference. */
  write(bytes: Uint8Array, fin: boolean): void {
    if (bytes.length > 0) {
      if (this.#chunks === NO_CHUNKS) this.#chunks = [bytes];
      else this.#chunks.push(bytes);
      this.written += bytes.length;
    }
    if (fin) this.finWritten = true;
  }

  /** Gives the half up: nothing is kept, nothing more is sent but RESET. */
  reset(code: number): void {
    this.resetCode = code;
    // The final size is what the peer may have been charged for.
    this.written = this.sent;
    this.#release();
    this.#lost = undefined;
    this.#finLost = false;
    this.aboveHighWater = false;
  }

  /** Copies `count` bytes from `offset` into `out` at `at`. */
  copy(offset: number, count: number, out: Uint8Array, at: number): void {
    let index = this.#cursor;
    let start = this.#cursorOffset;
    if (offset < start) {
      index = this.#head;
      start = this.#headOffset;
    }
    for (;;) {
      const chunk = this.#chunks[index]!;
      const skip = offset - start;
      if (skip < chunk.length) {
        const take = Math.min(chunk.length - skip, count);
        out.set(take === chunk.length ? chunk : chunk.subarray(skip, skip + take), at);
        at += take;
        offset += take;
        count -= take;
        if (count === 0) break;
      }
      start += chunk.length;
      index++;
    }
    this.#cursor = index;
    this.#cursorOffset = start;
  }

  /** The next lost range, as [start, end) in `lostStart` and `lostEnd`; false when there is none but perhaps a fin. */
  nextLost(): boolean {
    const lost = this.#lost;
    if (lost === undefined) return false;
    while (lost.length > 0) {
      let start = Math.max(lost[0]!, this.acked);
      let end = lost[1]!;
      const acked = this.#ackedRanges;
      if (acked !== undefined) {
        // Acknowledged meanwhile through another copy: begin behind it, end before it.
        for (let i = 0; i < acked.length && acked[i]! < end; i += 2) {
          if (acked[i + 1]! <= start) continue;
          if (acked[i]! <= start) start = acked[i + 1]!;
          else {
            end = acked[i]!;
            break;
          }
        }
      }
      if (start < end) {
        lost[0] = start;
        this.lostStart = start;
        this.lostEnd = end;
        return true;
      }
      lost.splice(0, 2);
    }
    this.#lost = undefined;
    return false;
  }
  lostStart = 0;
  lostEnd = 0;

  /** `count` bytes from `lostStart` were put into a packet; with them the fin, if it was lost and they are the last. */
  tookLost(count: number, fin: boolean): void {
    const lost = this.#lost;
    if (lost !== undefined && count > 0) {
      lost[0]! += count;
      if (lost[0]! >= lost[1]!) lost.splice(0, 2);
      if (lost.length === 0) this.#lost = undefined;
    }
    if (fin) this.#finLost = false;
  }

  /** Whether a copy that ends at `end` has to carry the fin. */
  finBelongsAt(end: number): boolean {
    return this.finSent && end === this.written;
  }

  /** Sends the fin through the queue of lost things, which needs no credit. */
  queueFin(): void {
    this.finSent = true;
    this.#finLost = true;
  }

  /** A copy of these bytes was acknowledged. Returns whether anything was new. */
  onAcked(offset: number, count: number, fin: boolean): void {
    if (fin) this.finAcked = true;
    const end = offset + count;
    if (this.resetCode >= 0 || end <= this.acked) return;
    if (offset > this.acked) {
      this.#ackedRanges ??= [];
      addRange(this.#ackedRanges, offset, end);
      return;
    }
    this.acked = end;
    const ranges = this.#ackedRanges;
    if (ranges !== undefined) {
      while (ranges.length > 0 && ranges[0]! <= this.acked) {
        this.acked = Math.max(this.acked, ranges[1]!);
        ranges.splice(0, 2);
      }
      if (ranges.length === 0) this.#ackedRanges = undefined;
    }
    this.#releaseAcked();
  }

  /** A copy of these bytes was lost. */
  onLost(offset: number, count: number, fin: boolean): void {
    if (this.resetCode >= 0) return;
    if (fin && !this.finAcked) this.#finLost = true;
    const start = Math.max(offset, this.acked);
    const end = offset + count;
    if (start >= end) return;
    this.#lost ??= [];
    addRange(this.#lost, start, end);
  }

  #releaseAcked(): void {
    if (this.acked === this.written) return this.#release();
    const chunks = this.#chunks;
    while (this.#head < chunks.length && this.#headOffset + chunks[this.#head]!.length <= this.acked) {
      this.#headOffset += chunks[this.#head]!.length;
      chunks[this.#head++] = EMPTY;
    }
    if (this.#cursor < this.#head) {
      this.#cursor = this.#head;
      this.#cursorOffset = this.#headOffset;
    }
    if (this.#head >= 64 && this.#head * 2 >= chunks.length) {
      chunks.splice(0, this.#head);
      this.#cursor -= this.#head;
      this.#head = 0;
    }
  }

  #release(): void {
    this.#chunks = NO_CHUNKS;
    this.#head = this.#cursor = 0;
    this.#headOffset = this.#cursorOffset = this.written;
  }
}

/** What we receive. */
export class ReceiveHalf {
  /** Bytes given to the owner, in order. */
  delivered = 0;
  /** Highest offset seen: what flow control counts. */
  highest = 0;
  /** -1, or the stream's size, known from fin or RESET. */
  finalSize = -1;
  /** Credit given to the peer. */
  limit: number;
  /** Bytes that the owner reported as used. */
  consumed = 0;
  /** Fin was delivered, or RESET arrived. */
  isDone = false;
  /** STOP was sent: bytes are discarded. */
  discards = false;
  // Sorted, disjoint, all beyond `delivered`.
  #offsets: number[] | undefined;
  #pieces: Uint8Array[] | undefined;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** Pieces kept. */
  get pieceCount(): number {
    return this.#pieces?.length ?? 0;
  }

  /** Keeps bytes that lie beyond `delivered`, as far as they are new. Small views are copied, lest they hold a whole datagram. */
  keep(offset: number, bytes: Uint8Array): void {
    const offsets = this.#offsets ??= [];
    const pieces = this.#pieces ??= [];
    const base = offset;
    const end = offset + bytes.length;
    let i = offsets.length;
    while (i > 0 && offsets[i - 1]! > offset) i--;
    if (i > 0) offset = Math.max(offset, offsets[i - 1]! + pieces[i - 1]!.length);
    while (offset < end) {
      const nextOffset = i < offsets.length ? offsets[i]! : Infinity;
      const stop = Math.min(end, nextOffset);
      if (stop > offset) {
        const view = bytes.subarray(offset - base, stop - base);
        offsets.splice(i, 0, offset);
        pieces.splice(i, 0, view.length * 2 < view.buffer.byteLength ? view.slice() : view);
        i++;
      }
      if (nextOffset === Infinity) break;
      offset = Math.max(stop, nextOffset + pieces[i]!.length);
      i++;
    }
  }

  /** Takes the piece that continues at `delivered`, trimmed to what is new; undefined when there is a gap. */
  takeNext(): Uint8Array | undefined {
    const offsets = this.#offsets;
    const pieces = this.#pieces!;
    if (offsets === undefined) return undefined;
    while (offsets.length > 0 && offsets[0]! <= this.delivered) {
      const offset = offsets.shift()!;
      const piece = pieces.shift()!;
      if (offsets.length === 0) this.dropPieces();
      const skip = this.delivered - offset;
      if (skip < piece.length) return skip === 0 ? piece : piece.subarray(skip);
    }
    return undefined;
  }

  /** Forgets all pieces. */
  dropPieces(): void {
    this.#offsets = undefined;
    this.#pieces = undefined;
  }
}

/** Adds [start, end) to sorted disjoint pairs, joining what touches. */
export function addRange(pairs: number[], start: number, end: number): void {
  let i = pairs.length;
  // Most ranges belong at or near the end.
  while (i > 0 && pairs[i - 1]! >= start) i -= 2;
  let j = i;
  while (j < pairs.length && pairs[j]! <= end) {
    start = Math.min(start, pairs[j]!);
    end = Math.max(end, pairs[j + 1]!);
    j += 2;
  }
  if (j === i + 2) {
    pairs[i] = start;
    pairs[i + 1] = end;
  } else pairs.splice(i, j - i, start, end);
}
