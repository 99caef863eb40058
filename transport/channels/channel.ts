/** What RPC needs of a connection: ordered byte streams with flow control.
 *
 *  A channel is one live, authenticated connection to one peer. Everything is callback-driven, because a promise per
 *  chunk would cost more than the chunk. Callbacks run on the turn that the bytes arrived on; they must not throw. */
export interface Channel {
  /** Who is at the other end, for logs: `127.0.0.1:7401`, `memory:server`. */
  readonly peer: string;
  /** True until the channel is closed by either side or lost. */
  readonly isOpen: boolean;
  /** Opens a bidirectional stream. The peer hears of it with the first bytes written.
   *  @throws {ChannelError} `closed` after the channel ended; `stream_limit` when the peer allows no more streams now. */
  openStream(handler: StreamHandler): ChannelStream;
  /** Streams of ours that the peer allows us to open now. */
  readonly streamCredit: number;
  /** Says who handles the streams the peer opens; set once, before the turn ends in which the channel was obtained. */
  onStream(accept: (stream: ChannelStream) => StreamHandler): void;
  /** Ends the channel: unfinished streams end with a reset at both ends. Idempotent. */
  close(code: number, reason: string): void;
  /** Settles, never rejects, when the channel has ended. */
  readonly closed: Promise<ChannelClose>;
  /** Figures for metrics. */
  stats(): ChannelStats;
}

/** One bidirectional stream of a channel. */
export interface ChannelStream {
  /** Unique in the channel. */
  readonly id: number;
  /** Queues `bytes` (ownership passes to the channel; do not change them) and, with `fin`, ends our half.
   *  Never blocks and never drops; returns false when more is buffered than the stream's high-water mark: the caller
   *  then stops until `onDrain`. Chunks written in one turn share datagrams. Ignored after `reset` or channel close. */
  write(bytes: Uint8Array, fin: boolean): boolean;
  /** Gives up our half: what is not yet delivered may be lost; the peer gets `onReset(code)`. */
  reset(code: number): void;
  /** Tells the peer that we read no more; it gets `onStop(code)`. Further bytes are discarded. */
  stop(code: number): void;
  /** Says that `byteCount` received bytes were used, which gives the peer that much more credit.
   *  Received bytes that are never reported stop the peer after the stream window. */
  consumed(byteCount: number): void;
}

/** What happens on a stream. Each half ends exactly once: by `fin`, by `onReset`, or by both when the channel ends. */
export interface StreamHandler {
  /** The next bytes, in order; `fin` with the last ones (which may be empty). The array is the handler's to keep. */
  onData(bytes: Uint8Array, fin: boolean): void;
  /** The peer gave up its half, or the channel ended before the half did (`code` is then the channel's close code). */
  onReset(code: number): void;
  /** The peer reads no more, or the channel ended: nothing we write matters. */
  onStop(code: number): void;
  /** Buffered bytes fell below the low-water mark after `write` had returned false. */
  onDrain(): void;
}

/** How a channel ended. */
export interface ChannelClose {
  /** 0 is a normal close; other codes are those of CHANNEL_CLOSE. */
  readonly code: number;
  readonly reason: string;
  /** Which side ended it; `lost` when the peer stopped answering or does not know the connection any more. */
  readonly by: "local" | "peer" | "lost";
}

/** Figures of one channel; counters count from its start. */
export interface ChannelStats {
  /** Smoothed round trip, and the shortest seen. */
  readonly rttMs: number;
  readonly minRttMs: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly packetsSent: number;
  readonly packetsReceived: number;
  readonly packetsLost: number;
  /** Packets whose content was sent again, lost or only late. */
  readonly packetsResent: number;
  readonly congestionWindowBytes: number;
  readonly bytesInFlight: number;
  readonly datagramBytesMax: number;
}

/** Why a channel refused. */
export class ChannelError extends Error {
  override readonly name = "ChannelError";
  constructor(readonly code: "closed" | "stream_limit", message: string, options?: ErrorOptions) {
    super(message, options);
  }
}
