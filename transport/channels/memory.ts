/** A channel inside one thread: tests of everything above a channel, and services that share a process. */
import {
  type Channel,
  type ChannelClose,
  ChannelError,
  type ChannelStats,
  type ChannelStream,
  type StreamHandler,
} from "./channel.ts";

/** How a pair behaves. */
export interface MemoryChannelOptions {
  /** Bytes of one stream that may wait unreported at its receiver. Default 256 KiB. */
  readonly streamWindowBytes?: number;
  /** The same for all streams of one direction together. Default 4 MiB. */
  readonly channelWindowBytes?: number;
  /** Bytes buffered for sending above which `write` returns false; `onDrain` comes at half of it. Default 256 KiB. */
  readonly highWaterBytes?: number;
  /** Streams that one side may have open at a time. Default 1024. */
  readonly maxStreams?: number;
  /** Largest chunk handed to `onData`; small values show code that counts on chunk borders. Default unlimited. */
  readonly maxChunkBytes?: number;
}

/** Two ends of one channel, `[client, server]`.
 *
 *  Delivery is asynchronous, in order and in microtasks only, so a run depends on nothing but the calls made. Windows,
 *  stream limit, reset, stop and close follow `Channel`. What is written is handed over without a copy. */
export function createMemoryChannelPair(options: MemoryChannelOptions = {}): [Channel, Channel] {
  const limits: Limits = {
    streamWindowBytes: atLeastOne("streamWindowBytes", options.streamWindowBytes, 256 * 1024),
    channelWindowBytes: atLeastOne("channelWindowBytes", options.channelWindowBytes, 4 * 1024 * 1024),
    highWaterBytes: atLeastOne("highWaterBytes", options.highWaterBytes, 256 * 1024),
    maxStreams: atLeastOne("maxStreams", options.maxStreams, 1024),
    maxChunkBytes: atLeastOne("maxChunkBytes", options.maxChunkBytes, Infinity),
  };
  const client = new MemoryChannel("memory:server", limits, 0);
  const server = new MemoryChannel("memory:client", limits, 1);
  client.other = server;
  server.other = client;
  return [client, server];
}

type Limits = Required<MemoryChannelOptions>;

class MemoryChannel implements Channel {
  other!: MemoryChannel;
  isOpen = true;
  readonly closed: Promise<ChannelClose>;
  readonly limits: Limits;
  /** Bytes this side may still send, over all streams. */
  windowBytes: number;
  /** Bytes the application here reported as used, not yet told to the other side. */
  windowToReturn = 0;
  /** Streams of the other side that ended here, not yet told to it. */
  slotsToReturn = 0;
  bytesSent = 0;
  chunksSent = 0;

  readonly #streams = new Map<number, MemoryStream>();
  /** Streams with something to say, in the order in which they said it. */
  readonly #dirty = new Set<MemoryStream>();
  /** Streams that wait for the window of the channel. */
  readonly #blocked = new Set<MemoryStream>();
  #accept: ((stream: ChannelStream) => StreamHandler) | undefined;
  #openStreams = 0;
  #nextId: number;
  #flushing = false;
  #settle!: (close: ChannelClose) => void;

  constructor(readonly peer: string, limits: Limits, firstId: number) {
    this.limits = limits;
    this.windowBytes = limits.channelWindowBytes;
    this.#nextId = firstId;
    this.closed = new Promise((resolve) => this.#settle = resolve);
  }

  get streamCredit(): number {
    return this.isOpen ? this.limits.maxStreams - this.#openStreams : 0;
  }

  openStream(handler: StreamHandler): ChannelStream {
    if (!this.isOpen) throw new ChannelError("closed", "Cannot open a stream: the channel has ended");
    if (this.#openStreams >= this.limits.maxStreams) {
      throw new ChannelError("stream_limit", `Cannot open a stream: ${this.limits.maxStreams} are open`);
    }
    this.#openStreams++;
    const stream = new MemoryStream(this, this.#nextId, true);
    this.#nextId += 2;
    stream.handler = handler;
    this.#streams.set(stream.id, stream);
    return stream;
  }

  onStream(accept: (stream: ChannelStream) => StreamHandler): void {
    this.#accept = accept;
  }

  close(code: number, reason: string): void {
    if (!this.isOpen) return;
    this.#end({ code, reason, by: "local" });
    // What was flushed is with the peer already; the close follows it, what was not flushed is lost.
    queueMicrotask(() => this.other.#end({ code, reason, by: "peer" }));
  }

  stats(): ChannelStats {
    return {
      rttMs: 0,
      minRttMs: 0,
      bytesSent: this.bytesSent,
      bytesReceived: this.other.bytesSent,
      packetsSent: this.chunksSent,
      packetsReceived: this.other.chunksSent,
      packetsLost: 0,
      packetsResent: 0,
      congestionWindowBytes: this.limits.channelWindowBytes,
      bytesInFlight: this.limits.channelWindowBytes - this.windowBytes,
      datagramBytesMax: this.limits.maxChunkBytes,
    };
  }

  /** Notes that `stream` (or, without one, the channel) has something for the other side. */
  wake(stream?: MemoryStream): void {
    if (!this.isOpen) return;
    if (stream !== undefined) this.#dirty.add(stream);
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => this.#flush());
  }

  block(stream: MemoryStream): void {
    this.#blocked.add(stream);
  }

  /** Makes this side's end of a stream that the other side opened. */
  admit(opened: MemoryStream): MemoryStream | undefined {
    if (!this.isOpen || this.#accept === undefined) return undefined;
    const stream = new MemoryStream(this, opened.id, false);
    stream.twin = opened;
    this.#streams.set(stream.id, stream);
    stream.handler = this.#accept(stream);
    return stream;
  }

  /** Forgets a stream whose halves have both ended. */
  forget(stream: MemoryStream): void {
    this.#streams.delete(stream.id);
    this.#blocked.delete(stream);
    if (stream.ours) return;
    this.slotsToReturn++;
    this.wake();
  }

  #flush(): void {
    this.#flushing = false;
    if (!this.isOpen) return;
    const other = this.other;
    if (this.slotsToReturn > 0) {
      other.#openStreams -= this.slotsToReturn;
      this.slotsToReturn = 0;
    }
    if (this.windowToReturn > 0) {
      other.windowBytes += this.windowToReturn;
      this.windowToReturn = 0;
      for (const stream of other.#blocked) other.wake(stream);
      other.#blocked.clear();
    }
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const stream of dirty) if (this.isOpen) stream.flush();
  }

  #end(close: ChannelClose): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#dirty.clear();
    this.#blocked.clear();
    queueMicrotask(() => {
      for (const stream of streams) stream.abandon(close.code);
    });
    this.#settle(close);
  }
}

class MemoryStream implements ChannelStream {
  handler!: StreamHandler;
  /** The same stream on the other side; made there when the first bytes arrive. */
  twin: MemoryStream | undefined;
  /** Chunks to send; those before `#head` have gone. */
  #pending: Uint8Array[] = [];
  #head = 0;
  #pendingBytes = 0;
  #windowBytes: number;
  #windowToReturn = 0;
  #finQueued = false;
  #full = false;
  #resetCode: number | undefined;
  #stopCode: number | undefined;
  #sendEnded = false;
  #receiveEnded = false;
  /** True once this side said that it reads no more. */
  #stopped = false;
  #stopHeard = false;

  constructor(readonly channel: MemoryChannel, readonly id: number, readonly ours: boolean) {
    this.#windowBytes = channel.limits.streamWindowBytes;
  }

  write(bytes: Uint8Array, fin: boolean): boolean {
    if (this.#finQueued || this.#resetCode !== undefined || !this.channel.isOpen) return true;
    if (bytes.length > 0) this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    this.#finQueued = fin;
    this.channel.wake(this);
    if (this.#pendingBytes > this.channel.limits.highWaterBytes) this.#full = true;
    return !this.#full;
  }

  reset(code: number): void {
    if (this.#sendEnded || this.#resetCode !== undefined) return;
    this.#resetCode = code;
    this.#dropPending();
    this.channel.wake(this);
  }

  stop(code: number): void {
    if (this.#receiveEnded || this.#stopped) return;
    this.#stopped = true;
    this.#stopCode = code;
    this.channel.wake(this);
  }

  consumed(byteCount: number): void {
    this.#windowToReturn += byteCount;
    this.channel.windowToReturn += byteCount;
    this.channel.wake(this);
  }

  /** Hands what the windows allow to the other side; runs in a microtask of the sending side. */
  flush(): void {
    const twin = this.twin ??= this.channel.other.admit(this);
    if (twin === undefined) return;
    if (this.#windowToReturn > 0) {
      twin.#windowBytes += this.#windowToReturn;
      this.#windowToReturn = 0;
      if (twin.#pendingBytes > 0) this.channel.other.wake(twin);
    }
    if (this.#stopCode !== undefined) {
      const code = this.#stopCode;
      this.#stopCode = undefined;
      twin.#heardStop(code);
    }
    if (this.#sendEnded) return;
    if (this.#resetCode !== undefined) {
      this.#sendEnded = true;
      twin.#heardReset(this.#resetCode);
      this.#forgetIfDone();
      return;
    }
    this.#flushData(twin);
  }

  /** Ends both halves because the channel did. */
  abandon(code: number): void {
    this.#dropPending();
    if (!this.#receiveEnded) {
      this.#receiveEnded = true;
      this.handler.onReset(code);
    }
    if (!this.#sendEnded) {
      this.#sendEnded = true;
      if (!this.#stopHeard) this.handler.onStop(code);
    }
  }

  #flushData(twin: MemoryStream): void {
    const { channel } = this;
    while (!this.#sendEnded && this.#resetCode === undefined && channel.isOpen) {
      const chunk = this.#pending[this.#head];
      if (chunk === undefined) {
        if (!this.#finQueued) break;
        this.#sendEnded = true;
        twin.#heardData(EMPTY, true);
        break;
      }
      const room = Math.min(this.#windowBytes, channel.windowBytes, channel.limits.maxChunkBytes);
      if (room <= 0) {
        if (channel.windowBytes <= 0) channel.block(this);
        break;
      }
      const part = chunk.length <= room ? chunk : chunk.subarray(0, room);
      if (part === chunk) this.#pending[this.#head++] = EMPTY;
      else this.#pending[this.#head] = chunk.subarray(room);
      if (this.#head === this.#pending.length) this.#dropSent();
      this.#pendingBytes -= part.length;
      this.#windowBytes -= part.length;
      channel.windowBytes -= part.length;
      channel.bytesSent += part.length;
      channel.chunksSent++;
      this.#sendEnded = this.#finQueued && this.#pendingBytes === 0;
      twin.#heardData(part, this.#sendEnded);
    }
    if (this.#full && !this.#sendEnded && this.#pendingBytes <= channel.limits.highWaterBytes / 2) {
      this.#full = false;
      if (!this.#finQueued) this.handler.onDrain();
    }
    this.#forgetIfDone();
  }

  #heardData(bytes: Uint8Array, fin: boolean): void {
    if (this.#receiveEnded || !this.channel.isOpen) return;
    if (fin) this.#receiveEnded = true;
    // Nobody reads any more: the bytes must not hold the window.
    if (this.#stopped) this.consumed(bytes.length);
    else this.handler.onData(bytes, fin);
    if (fin) this.#forgetIfDone();
  }

  #heardReset(code: number): void {
    if (this.#receiveEnded || !this.channel.isOpen) return;
    this.#receiveEnded = true;
    this.handler.onReset(code);
    this.#forgetIfDone();
  }

  #heardStop(code: number): void {
    if (this.#sendEnded || this.#stopHeard || !this.channel.isOpen) return;
    this.#stopHeard = true;
    this.handler.onStop(code);
  }

  #forgetIfDone(): void {
    if (this.#sendEnded && this.#receiveEnded) this.channel.forget(this);
  }

  #dropPending(): void {
    this.#dropSent();
    this.#pendingBytes = 0;
  }

  #dropSent(): void {
    this.#pending = [];
    this.#head = 0;
  }
}

const EMPTY = new Uint8Array(0);

function atLeastOne(name: string, value: number | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  if (!(value >= 1)) throw new RangeError(`Cannot make a channel: ${name} must be at least 1, got ${value}`);
  return value;
}
