/** One established connection: packets, acknowledgement, streams, loss recovery, closing.
 *
 *      open ──close()──► flushing ──all sent and acknowledged, or deadline──► over (by local)
 *        │                   │
 *        ├──CLOSE arrives────┴──────────────────────────────────────────────► over (by peer)
 *        └──idle, reset, violation, packet numbers used up──────────────────► over (by lost or local)
 *
 *  The endpoint owns the socket's side of things; what it has to provide is `ConnectionOwner`. */

import { CLOSE_CODE, type DropReason, QuantumError } from "../errors.ts";
import {
  ACK_EVERY,
  ACK_EVERY_BULK,
  BASE_DATAGRAM_BYTES,
  CLOSE_FLUSH_MAX_MS,
  CLOSE_FLUSH_MIN_MS,
  CREDIT_FRACTION,
  GRANULARITY_MS,
  MAX_CLOSE_REASON_BYTES,
  MAX_DATAGRAM_QUEUE_BYTES,
  MAX_DATAGRAMS_QUEUED,
  MAX_PROBE_BACKOFF,
  MAX_PROBE_INTERVAL_MS,
  MAX_REASSEMBLY_PIECES,
  MAX_SACK_BLOCKS,
  PACKET_THRESHOLD,
  PERSISTENT_CONGESTION_THRESHOLD,
  STREAM_QUANTUM_BYTES,
} from "../params.ts";
import type { Address, ConnectionHandle, ConnectionStats, QuantumEvent } from "../types.ts";
import {
  BAD_FRAME,
  CONTROL_FRAME_BYTES_MAX,
  END_OF_FRAMES,
  FRAME,
  FrameReader,
  STREAM_FIN,
  streamHeaderBytes,
  writeClose,
  writeDatagram,
  writeFrame1,
  writeFrame2,
  writeReset,
  writeStreamHeader,
} from "../wire/frames.ts";
import {
  AT,
  FLAG,
  HEADER_BYTES,
  readU16,
  readU32,
  SACK_BLOCK_BYTES,
  TAG_BYTES,
  writeHeader,
} from "../wire/header.ts";
import type { TransportParams } from "../wire/transport_params.ts";
import { varintBytes } from "../wire/varint.ts";
import { type CongestionController, Cubic } from "./congestion.ts";
import type { PacketCipher } from "./keys.ts";
import type { ResolvedOptions } from "./options.ts";
import { Pacer } from "./pacer.ts";
import { IdMap } from "./id_map.ts";
import { PathMtu, truesizeBytes } from "./path_mtu.ts";
import { Fifo } from "./queue.ts";
import { ReceivedPackets } from "./received.ts";
import { RttEstimator } from "./rtt.ts";
import { SentLedger, type SentPacket } from "./sent.ts";
import { CONTROL, Stream } from "./stream.ts";

/** What a connection needs of its endpoint. */
export interface ConnectionOwner {
  readonly options: ResolvedOptions;
  /** A buffer for one datagram, whose content is given away. */
  allocate(bytes: number): Uint8Array;
  /** Room for one payload before it is sealed; valid until the next packet. */
  readonly scratch: Uint8Array;
  emit(event: QuantumEvent): void;
  drop(reason: DropReason): void;
  /** The connection has something to send, perhaps. */
  wake(connection: Connection): void;
  /** The connection is over. `farewell` is the sealed CLOSE packet, if one is to be sent; drop the rest for `lingerMs`. */
  over(connection: Connection, end: ConnectionEnd, now: number): void;
}

/** How a connection ended. */
export interface ConnectionEnd {
  readonly code: number;
  readonly reason: string;
  readonly by: "local" | "peer" | "lost";
  readonly farewell: Uint8Array | undefined;
  readonly probeTimeoutMs: number;
}

/** What the handshake left. */
export interface ConnectionSetup {
  readonly handle: ConnectionHandle;
  readonly side: "client" | "server";
  readonly guuid: Uint8Array;
  readonly peer: Address;
  readonly isLoopback: boolean;
  readonly sealer: PacketCipher;
  readonly opener: PacketCipher;
  readonly peerParams: TransportParams;
  /** Round trip of the handshake; undefined if something was sent twice. */
  readonly rttMs: number | undefined;
}

// A packet that has this little room left is sent rather than given a sliver of a stream.
const MIN_FRAGMENT_BYTES = 64;
const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder();
const reader = new FrameReader();
const aadScratch = new Uint8Array(HEADER_BYTES + MAX_SACK_BLOCKS * SACK_BLOCK_BYTES);

/** See the head of this file. */
export class Connection {
  readonly kind = "connection";
  readonly handle: ConnectionHandle;
  readonly guuid: Uint8Array;
  readonly peer: Address;
  /** In the endpoint's queue of connections with something to send. */
  awake = false;
  /** When `onTimeout` is needed next. */
  timeoutAt = Infinity;

  readonly #owner: ConnectionOwner;
  readonly #options: ResolvedOptions;
  readonly #sealer: PacketCipher;
  readonly #opener: PacketCipher;
  readonly #parity: number;
  readonly #isLoopback: boolean;
  readonly #peerParams: TransportParams;
  readonly #idleMs: number;
  #state: "open" | "flushing" | "over" = "open";
  #closeCode = 0;
  #closeReason = "";
  #flushUntil = Infinity;

  // Receiving packets. SPEC §3.
  readonly #received = new ReceivedPackets();
  #ackNow = false;
  #ackAt = Infinity;
  #unackedPackets = 0;
  #unackedBulk = 0;
  #largestDatagram = BASE_DATAGRAM_BYTES;
  #largestReceivedAt = 0;
  #lastReceivedAt: number;

  // Sending packets. SPEC §6-§8.
  readonly #sent = new SentLedger();
  readonly #rtt = new RttEstimator();
  readonly #congestion: CongestionController;
  readonly #pacer = new Pacer();
  readonly #mtu: PathMtu;
  #largestAcked = -1;
  #peerNext = 0;
  #peerHasGaps = false;
  #bytesInFlight = 0;
  #truesizeInFlight = 0;
  #windowLimited = false;
  #lossAt = Infinity;
  #lastElicitingAt = 0;
  #probeCount = 0;
  #probesToSend = 0;
  #pacedUntil = Infinity;
  #pingWaits = false;

  // Streams and flow control. SPEC §5.
  readonly #streams = new IdMap<Stream>();
  readonly #ready = new Fifo<Stream>();
  readonly #resend = new Fifo<Stream>();
  readonly #control = new Fifo<Stream>();
  #unsentBytes = 0;
  #sendLimit: number;
  #sentBytes = 0;
  #localNext = 0;
  #localLimit: number;
  #remoteNext = 0;
  #remoteLimit: number;
  #remoteEnded = 0;
  #remoteLimitWaits = false;
  #receivedBytes = 0;
  #receiveLimit: number;
  #consumedBytes = 0;
  #receiveLimitWaits = false;
  #piecesHeld = 0;

  // Unreliable datagrams. SPEC §9.
  readonly #datagrams = new Fifo<{ readonly bytes: Uint8Array; readonly expiresAt: number }>();
  #datagramBytes = 0;

  // Figures.
  #statBytesSent = 0;
  #statBytesReceived = 0;
  #statPacketsSent = 0;
  #statPacketsReceived = 0;
  #statPacketsLost = 0;
  #statPacketsResent = 0;

  constructor(owner: ConnectionOwner, setup: ConnectionSetup, now: number) {
    const options = owner.options;
    const peer = setup.peerParams;
    this.#owner = owner;
    this.#options = options;
    this.handle = setup.handle;
    this.guuid = setup.guuid;
    this.peer = setup.peer;
    this.#sealer = setup.sealer;
    this.#opener = setup.opener;
    this.#parity = setup.side === "client" ? 0 : 1;
    this.#isLoopback = setup.isLoopback;
    this.#peerParams = peer;
    this.#sendLimit = peer.connectionWindowBytes;
    this.#localLimit = peer.streamsOpenMax;
    this.#remoteLimit = options.streamsOpenMax;
    this.#receiveLimit = options.connectionWindowBytes;
    this.#idleMs = Math.min(options.idleTimeoutMs || Infinity, peer.idleTimeoutMs || Infinity);
    this.#lastReceivedAt = now;
    const ownMax = setup.isLoopback ? options.loopbackBytesMax : options.networkBytesMax;
    this.#mtu = new PathMtu(setup.isLoopback, Math.min(ownMax, peer.datagramBytesMax), now);
    this.#congestion = new Cubic(BASE_DATAGRAM_BYTES, setup.isLoopback);
    if (setup.rttMs !== undefined) this.#rtt.update(setup.rttMs, 0);
    // SPEC §2.6: the client's first packet proves its address.
    if (setup.side === "client") {
      this.#pingWaits = true;
      this.#probesToSend = 1;
    }
    this.#schedule(now);
  }

  // ------------------------------------------------------------------ commands

  /** Whether streams may be opened and written. */
  get isOpen(): boolean {
    return this.#state === "open";
  }

  /** Streams that may be opened now. */
  get streamCredit(): number {
    return this.#state === "open" ? this.#localLimit - this.#localNext : 0;
  }

  /** See QuantumEndpoint.openStream. */
  openStream(): number {
    if (this.#state !== "open") {
      throw new QuantumError("closed", "Cannot open stream: the connection is closed");
    }
    if (this.#localNext >= this.#localLimit) {
      throw new QuantumError(
        "stream_limit",
        `Cannot open stream: the peer allows ${this.#localLimit} in all for now`,
      );
    }
    const id = 2 * this.#localNext++ + this.#parity;
    this.#streams.set(id, this.#newStream(id, true));
    return id;
  }

  /** See QuantumEndpoint.write. */
  write(id: number, bytes: Uint8Array, fin: boolean): boolean {
    const stream = this.#streams.get(id);
    if (stream === undefined || this.#state !== "open") return false;
    const send = stream.send;
    if (send.finWritten || send.resetCode >= 0) return false;
    const finOnly = fin && bytes.length === 0 && send.unsent === 0;
    send.write(bytes, fin);
    this.#unsentBytes += bytes.length;
    if (finOnly) {
      // A bare fin needs no credit, so it must not wait behind bytes that do.
      send.queueFin();
      this.#enqueueResend(stream);
    } else this.#enqueueReady(stream);
    this.#owner.wake(this);
    if (send.unsent <= this.#options.writeHighWaterBytes) return true;
    send.aboveHighWater = !fin;
    return false;
  }

  /** See QuantumEndpoint.resetStream. */
  resetStream(id: number, code: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined || this.#state !== "open") return;
    this.#resetSend(stream, code);
    this.#owner.wake(this);
  }

  /** See QuantumEndpoint.stopStream. */
  stopStream(id: number, code: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined || this.#state !== "open") return;
    const receive = stream.receive;
    if (receive.isDone || receive.discards) return;
    receive.discards = true;
    this.#piecesHeld -= receive.pieceCount;
    receive.dropPieces();
    // Nothing that arrived will be reported as used any more: give its credit back. SPEC §5.6.
    this.#consume(receive.highest - receive.consumed);
    receive.consumed = receive.highest;
    stream.stopCode = code;
    this.#enqueueControl(stream, CONTROL.stop);
    this.#owner.wake(this);
  }

  /** See QuantumEndpoint.consumed. */
  consumed(id: number, byteCount: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    const receive = stream.receive;
    const count = Math.min(byteCount, receive.delivered - receive.consumed);
    if (!(count > 0)) return;
    receive.consumed += count;
    this.#consume(count);
    this.#offerStreamCredit(stream);
    if (this.#receiveLimitWaits || stream.inControl) this.#owner.wake(this);
  }

  /** See QuantumEndpoint.sendDatagram. */
  sendDatagram(bytes: Uint8Array, expiresAt: number): boolean {
    if (this.#state !== "open") return false;
    if (
      bytes.length >
        this.#mtu.current - HEADER_BYTES - TAG_BYTES - 8 * SACK_BLOCK_BYTES - 2 * CONTROL_FRAME_BYTES_MAX
    ) {
      return false;
    }
    if (
      this.#datagrams.length >= MAX_DATAGRAMS_QUEUED ||
      this.#datagramBytes + bytes.length > MAX_DATAGRAM_QUEUE_BYTES
    ) return false;
    this.#datagrams.push({ bytes, expiresAt });
    this.#datagramBytes += bytes.length;
    this.#owner.wake(this);
    return true;
  }

  /** Begins to close: flush, then CLOSE. SPEC §10.1. */
  close(code: number, reason: string, now: number): void {
    if (this.#state !== "open") return;
    this.#state = "flushing";
    this.#closeCode = code;
    this.#closeReason = reason;
    const patience = Math.min(Math.max(3 * this.#probeTimeout(), CLOSE_FLUSH_MIN_MS), CLOSE_FLUSH_MAX_MS);
    this.#flushUntil = now + patience;
    this.#datagrams.clear();
    this.#datagramBytes = 0;
    this.#finishFlush(now);
    this.#schedule(now);
  }

  /** Figures. */
  stats(): ConnectionStats {
    return {
      rttMs: this.#rtt.smoothed,
      minRttMs: this.#rtt.min,
      bytesSent: this.#statBytesSent,
      bytesReceived: this.#statBytesReceived,
      packetsSent: this.#statPacketsSent,
      packetsReceived: this.#statPacketsReceived,
      packetsLost: this.#statPacketsLost,
      packetsResent: this.#statPacketsResent,
      congestionWindowBytes: Math.floor(this.#congestion.windowBytes),
      bytesInFlight: this.#bytesInFlight,
      datagramBytesMax: this.#mtu.current,
      streamsOpen: this.#streams.size,
    };
  }

  // ------------------------------------------------------------------ receiving

  /** Takes a session packet whose header was checked. */
  onDatagram(bytes: Uint8Array, sackBlocks: number, now: number): void {
    const sequence = readU32(bytes, AT.sequence);
    // The cheap half of the replay check; the other half comes after authentication. SPEC §3.4.
    if (sequence < this.#received.next) return this.#owner.drop("replay");
    const plain = openPacket(this.#opener, bytes, sackBlocks);
    if (plain === undefined) return this.#owner.drop("authentication");
    this.onPacket(bytes, sackBlocks, plain, now);
  }

  /** Takes an authentic session packet. `plain` is its opened payload and now belongs to the connection. */
  onPacket(bytes: Uint8Array, sackBlocks: number, plain: Uint8Array, now: number): void {
    const sequence = readU32(bytes, AT.sequence);
    if (this.#received.isReplay(sequence)) return this.#owner.drop("replay");
    this.#statPacketsReceived++;
    this.#statBytesReceived += bytes.length;
    this.#lastReceivedAt = now;
    const isLargest = sequence > this.#received.largest;
    const arrival = this.#received.add(sequence);
    if (isLargest) this.#largestReceivedAt = now;
    if (bytes.length > this.#largestDatagram) this.#largestDatagram = bytes.length;

    reader.reset(plain, plain.length);
    let type = reader.next();
    let ackDelayMs = 0;
    if (type === FRAME.ACK_DELAY) {
      ackDelayMs = Math.min(reader.value / 1000, this.#peerParams.ackDelayMaxMs);
      type = reader.next();
    }
    if (!this.#onAcknowledgement(bytes, sackBlocks, ackDelayMs, now)) return;
    let eliciting = false;
    while (type !== END_OF_FRAMES) {
      if (type === BAD_FRAME) return this.#fail(CLOSE_CODE.frame, "malformed or unknown frame", now);
      if (type >= FRAME.RESET && type !== FRAME.CLOSE || type === FRAME.PING) eliciting = true;
      if (!this.#onFrame(type, plain, sequence, now)) return;
      type = reader.next();
    }
    if (eliciting) this.#noteEliciting(bytes, arrival === "out_of_order", now);
    else if (arrival === "out_of_order" && this.#received.rangeCount > 0 && this.#unackedPackets > 0) {
      this.#ackNow = true;
    }
    this.#finishFlush(now);
    this.#schedule(now);
    this.#owner.wake(this);
  }

  /** A verified stateless reset that answers our packet `sequence`. SPEC §10.6. */
  onReset(sequence: number, now: number): boolean {
    if (this.#sent.get(sequence) === undefined && sequence < this.#largestAcked) return false;
    if (sequence >= this.#sent.next) return false;
    this.#end("lost", CLOSE_CODE.reset, "the peer does not know this connection any more", undefined, now);
    return true;
  }

  #noteEliciting(bytes: Uint8Array, outOfOrder: boolean, now: number): void {
    this.#unackedPackets++;
    if (bytes.length * 2 >= this.#largestDatagram) this.#unackedBulk++;
    if (
      outOfOrder || (bytes[AT.flags]! & FLAG.PSH) !== 0 ||
      this.#unackedBulk >= ACK_EVERY_BULK || this.#unackedPackets >= ACK_EVERY
    ) this.#ackNow = true;
    else if (this.#ackAt === Infinity) this.#ackAt = now + this.#options.ackDelayMaxMs;
  }

  /** Handles one frame; false when the connection ended. */
  #onFrame(type: number, plain: Uint8Array, sequence: number, now: number): boolean {
    switch (type) {
      case FRAME.STREAM:
        return this.#onStreamFrame(plain, now);
      case FRAME.PADDING:
      case FRAME.PING:
      case FRAME.ACK_DELAY:
        return true;
      case FRAME.ACK_FLOOR:
        if (reader.value > sequence + 1) {
          return this.#violation(CLOSE_CODE.protocol, "floor above the packet", now);
        }
        this.#received.raiseFloor(reader.value);
        return true;
      case FRAME.RESET:
        return this.#onResetFrame(now);
      case FRAME.STOP:
        return this.#onStopFrame(now);
      case FRAME.MAX_DATA:
        if (reader.value > this.#sendLimit) this.#sendLimit = reader.value;
        return true;
      case FRAME.MAX_STREAM_DATA: {
        const stream = this.#streamOf(reader.stream, now);
        if (stream === null) return false;
        if (stream !== undefined && reader.value > stream.send.limit) {
          stream.send.limit = reader.value;
          this.#enqueueReady(stream);
        }
        return true;
      }
      case FRAME.MAX_STREAMS:
        if (reader.value > this.#localLimit) this.#localLimit = reader.value;
        return true;
      case FRAME.DATAGRAM:
        if (this.#state === "open") {
          const bytes = plain.subarray(reader.dataStart, reader.dataEnd);
          this.#owner.emit({ type: "datagram", connection: this.handle, bytes });
        }
        return true;
      case FRAME.CLOSE: {
        const reason = fromUtf8.decode(
          plain.subarray(
            reader.dataStart,
            Math.min(reader.dataEnd, reader.dataStart + MAX_CLOSE_REASON_BYTES),
          ),
        );
        this.#end("peer", reader.value, reason, undefined, now);
        return false;
      }
      default:
        return this.#violation(CLOSE_CODE.frame, "unknown frame", now);
    }
  }

  #onStreamFrame(plain: Uint8Array, now: number): boolean {
    const stream = this.#streamOf(reader.stream, now);
    if (stream === null) return false;
    if (stream === undefined) return true;
    const receive = stream.receive;
    if (receive.isDone) return true;
    const offset = reader.offset;
    const count = reader.dataEnd - reader.dataStart;
    const end = offset + count;
    if (
      receive.finalSize >= 0
        ? end > receive.finalSize || reader.fin && end !== receive.finalSize
        : reader.fin && end < receive.highest
    ) {
      return this.#violation(CLOSE_CODE.finalSize, "bytes beyond the final size", now);
    }
    if (end > receive.highest && !this.#charge(stream, end, now)) return false;
    if (reader.fin) receive.finalSize = end;
    if (receive.discards || this.#state !== "open") {
      this.#discard(stream);
      return true;
    }
    if (offset > receive.delivered) {
      if (count === 0) return true;
      const before = receive.pieceCount;
      receive.keep(offset, plain.subarray(reader.dataStart, reader.dataEnd));
      this.#piecesHeld += receive.pieceCount - before;
      if (this.#piecesHeld > MAX_REASSEMBLY_PIECES) {
        return this.#violation(CLOSE_CODE.flowControl, "too many pieces out of order", now);
      }
      this.#announce(stream);
      return true;
    }
    const isNew = end > receive.delivered;
    if (!isNew && !(reader.fin && receive.finalSize === receive.delivered)) {
      // An empty first frame opens the stream; anything else here is a duplicate.
      this.#announce(stream);
      return true;
    }
    this.#deliver(stream, plain.subarray(reader.dataStart + receive.delivered - offset, reader.dataEnd));
    if (receive.pieceCount > 0) {
      const before = receive.pieceCount;
      let next = receive.takeNext();
      while (next !== undefined) {
        this.#deliver(stream, next);
        next = receive.takeNext();
      }
      this.#piecesHeld -= before - receive.pieceCount;
    }
    return true;
  }

  /** Gives the owner the next bytes. */
  #deliver(stream: Stream, bytes: Uint8Array): void {
    const receive = stream.receive;
    receive.delivered += bytes.length;
    const fin = receive.delivered === receive.finalSize;
    this.#announce(stream);
    if (fin) receive.isDone = true;
    this.#owner.emit({ type: "data", connection: this.handle, stream: stream.id, bytes, fin });
    if (fin) this.#endIfDone(stream);
  }

  /** After STOP, or while flushing: bytes count as used, and the half ends when all of it was seen. */
  #discard(stream: Stream): void {
    const receive = stream.receive;
    this.#consume(receive.highest - receive.consumed);
    receive.consumed = receive.highest;
    if (receive.finalSize < 0 || receive.highest < receive.finalSize) return;
    receive.delivered = receive.highest;
    receive.isDone = true;
    this.#tell({
      type: "data",
      connection: this.handle,
      stream: stream.id,
      bytes: new Uint8Array(0),
      fin: true,
    });
    this.#endIfDone(stream);
  }

  /** Counts bytes up to `end` against both windows; false when the peer overran one. */
  #charge(stream: Stream, end: number, now: number): boolean {
    const receive = stream.receive;
    this.#receivedBytes += end - receive.highest;
    receive.highest = end;
    if (end > receive.limit || this.#receivedBytes > this.#receiveLimit) {
      return this.#violation(CLOSE_CODE.flowControl, "more bytes than allowed", now);
    }
    return true;
  }

  #onResetFrame(now: number): boolean {
    const stream = this.#streamOf(reader.stream, now);
    if (stream === null) return false;
    if (stream === undefined) return true;
    const receive = stream.receive;
    const finalSize = reader.finalSize;
    if (receive.finalSize >= 0 ? finalSize !== receive.finalSize : finalSize < receive.highest) {
      return this.#violation(CLOSE_CODE.finalSize, "reset changes the final size", now);
    }
    if (receive.isDone) return true;
    const code = reader.value;
    if (finalSize > receive.highest && !this.#charge(stream, finalSize, now)) return false;
    receive.finalSize = finalSize;
    receive.isDone = true;
    this.#piecesHeld -= receive.pieceCount;
    receive.dropPieces();
    this.#announce(stream);
    this.#tell({ type: "reset", connection: this.handle, stream: stream.id, code });
    this.#endIfDone(stream);
    return true;
  }

  #onStopFrame(now: number): boolean {
    const stream = this.#streamOf(reader.stream, now);
    if (stream === null) return false;
    if (stream === undefined || stream.send.isDone || stream.send.resetCode >= 0) return true;
    const code = reader.value;
    this.#announce(stream);
    this.#resetSend(stream, code);
    this.#tell({ type: "stop", connection: this.handle, stream: stream.id, code });
    return true;
  }

  /** Finds the stream of a frame, opening the peer's up to it. Undefined: ended already. Null: violation. */
  #streamOf(id: number, now: number): Stream | undefined | null {
    const stream = this.#streams.get(id);
    if (stream !== undefined) return stream;
    const index = Math.floor(id / 2);
    if (id % 2 === this.#parity) {
      if (index < this.#localNext) return undefined;
      this.#violation(CLOSE_CODE.protocol, "frame for a stream that we did not open", now);
      return null;
    }
    if (index < this.#remoteNext) return undefined;
    if (index >= this.#remoteLimit) {
      this.#violation(CLOSE_CODE.streamLimit, "more streams than allowed", now);
      return null;
    }
    let opened: Stream | undefined;
    for (; this.#remoteNext <= index; this.#remoteNext++) {
      const openId = 2 * this.#remoteNext + 1 - this.#parity;
      opened = this.#newStream(openId, false);
      this.#streams.set(openId, opened);
    }
    return opened;
  }

  #newStream(id: number, isLocal: boolean): Stream {
    return new Stream(
      id,
      isLocal,
      this.#peerParams.streamWindowBytes,
      this.#options.streamWindowBytes,
      isLocal,
    );
  }

  #announce(stream: Stream): void {
    if (stream.announced) return;
    stream.announced = true;
    this.#tell({ type: "stream", connection: this.handle, stream: stream.id });
  }

  /** An event of a stream; after close() nobody wants them. */
  #tell(event: QuantumEvent): void {
    if (this.#state === "open") this.#owner.emit(event);
  }

  /** Removes a stream of which both halves are over. SPEC §5.6, §5.7. */
  #endIfDone(stream: Stream): void {
    const receive = stream.receive;
    if (!receive.isDone || !stream.send.isDone) return;
    if (!this.#streams.delete(stream.id)) return;
    const unreported = receive.highest - receive.consumed;
    if (unreported > 0) {
      receive.consumed = receive.highest;
      this.#consume(unreported);
    }
    if (stream.isLocal) return;
    this.#remoteEnded++;
    const max = this.#options.streamsOpenMax;
    if (this.#remoteEnded + max - this.#remoteLimit >= max / CREDIT_FRACTION) {
      this.#remoteLimit = this.#remoteEnded + max;
      this.#remoteLimitWaits = true;
    }
  }

  #consume(byteCount: number): void {
    this.#consumedBytes += byteCount;
    const limit = this.#consumedBytes + this.#options.connectionWindowBytes;
    if (limit - this.#receiveLimit < this.#options.connectionWindowBytes / CREDIT_FRACTION) return;
    this.#receiveLimit = limit;
    this.#receiveLimitWaits = true;
  }

  #offerStreamCredit(stream: Stream): void {
    const receive = stream.receive;
    if (receive.finalSize >= 0) return;
    const limit = receive.consumed + this.#options.streamWindowBytes;
    if (limit - receive.limit < this.#options.streamWindowBytes / CREDIT_FRACTION) return;
    receive.limit = limit;
    this.#enqueueControl(stream, CONTROL.maxStreamData);
  }

  #resetSend(stream: Stream, code: number): void {
    const send = stream.send;
    if (send.isDone || send.resetCode >= 0) return;
    this.#unsentBytes -= send.unsent;
    send.reset(code);
    this.#enqueueControl(stream, CONTROL.reset);
  }

  #enqueueReady(stream: Stream): void {
    if (stream.inReady || !stream.send.hasNew) return;
    stream.inReady = true;
    this.#ready.push(stream);
  }

  #enqueueResend(stream: Stream): void {
    if (stream.inResend || !stream.send.hasLost) return;
    stream.inResend = true;
    this.#resend.push(stream);
  }

  #enqueueControl(stream: Stream, bit: number): void {
    stream.control |= bit;
    if (stream.inControl) return;
    stream.inControl = true;
    this.#control.push(stream);
  }

  // ------------------------------------------------------------------ acknowledgements and loss

  /** Takes the ack field and SACK blocks; false when the connection ended over them. */
  #onAcknowledgement(bytes: Uint8Array, blocks: number, ackDelayMs: number, now: number): boolean {
    const sent = this.#sent;
    const ack = readU32(bytes, AT.ack);
    if (ack > sent.next) return this.#violation(CLOSE_CODE.protocol, "acknowledges what was not sent", now);
    const inFlightBefore = this.#bytesInFlight;
    let largest = ack - 1;
    let newest: SentPacket | undefined;
    let ackedBytes = 0;
    const outstandingBefore = sent.outstanding;
    for (let sequence = sent.base; sequence < ack && sent.outstanding > 0; sequence++) {
      const packet = sent.get(sequence);
      if (packet === undefined) continue;
      this.#onPacketAcked(packet, now);
      ackedBytes += packet.isMtuProbe ? 0 : packet.bytes;
      if (newest !== undefined) sent.recycle(newest);
      newest = packet;
    }
    let at = HEADER_BYTES + readU16(bytes, AT.payloadBytes);
    let previousEnd = ack;
    for (let block = 0; block < blocks; block++, at += SACK_BLOCK_BYTES) {
      const start = readU32(bytes, at);
      const end = readU32(bytes, at + 4);
      if (start <= previousEnd || end < start || end >= sent.next) {
        return this.#violation(CLOSE_CODE.protocol, "malformed acknowledgement", now);
      }
      previousEnd = end + 1;
      largest = end;
      for (let sequence = Math.max(start, sent.base); sequence <= end && sent.outstanding > 0; sequence++) {
        const packet = sent.get(sequence);
        if (packet === undefined) continue;
        this.#onPacketAcked(packet, now);
        ackedBytes += packet.isMtuProbe ? 0 : packet.bytes;
        if (newest !== undefined) sent.recycle(newest);
        newest = packet;
      }
    }
    if (ack >= this.#peerNext) {
      this.#peerNext = ack;
      this.#peerHasGaps = blocks > 0;
    }
    if (largest > this.#largestAcked) this.#largestAcked = largest;
    if (newest !== undefined) {
      if (newest.sequence === largest) this.#rtt.update(Math.max(now - newest.sentAt, 0.001), ackDelayMs);
      this.#probeCount = 0;
      if (ackedBytes > 0) {
        const limited = this.#windowLimited || inFlightBefore >= this.#congestion.windowBytes;
        this.#congestion.onAcked(ackedBytes, newest.sentAt, limited, this.#rtt.smoothed, now);
      }
      sent.recycle(newest);
    }
    if (outstandingBefore > 0) {
      sent.settle();
      this.#detectLoss(now);
    }
    return this.#state !== "over";
  }

  #onPacketAcked(packet: SentPacket, now: number): void {
    this.#leaveFlight(packet);
    if (packet.isMtuProbe) {
      this.#mtu.onProbeAcked(packet.bytes, now);
      this.#congestion.onDatagramSize(this.#mtu.current);
    } else this.#mtu.onAcked(packet.bytes);
    for (let i = 0; i < packet.frameCount; i++) {
      const stream = packet.streams[i];
      if (stream === undefined) continue;
      const kind = packet.kinds[i]!;
      if ((kind & 0xfc) === FRAME.STREAM) {
        stream.send.onAcked(packet.firsts[i]!, packet.seconds[i]!, (kind & STREAM_FIN) !== 0);
        if (stream.send.isDone) this.#endIfDone(stream);
      } else if (kind === FRAME.RESET) {
        stream.send.resetAcked = true;
        this.#endIfDone(stream);
      }
    }
  }

  /** Declares packets lost. SPEC §6.2. */
  #detectLoss(now: number): void {
    const sent = this.#sent;
    this.#lossAt = Infinity;
    if (sent.outstanding === 0) return;
    const delay = this.#rtt.lossDelayMs();
    const pto = this.#rtt.probeTimeoutMs(this.#peerParams.ackDelayMaxMs);
    let lostBytes = 0;
    let newestLostAt = -Infinity;
    let runStartAt = NaN;
    let persistent = false;
    const end = this.#largestAcked;
    for (let sequence = sent.base; sequence < end; sequence++) {
      const packet = sent.get(sequence);
      if (packet === undefined) {
        runStartAt = NaN;
        continue;
      }
      if (end - sequence < PACKET_THRESHOLD && packet.sentAt + delay > now) {
        this.#lossAt = Math.min(this.#lossAt, packet.sentAt + delay);
        continue;
      }
      if (!packet.isMtuProbe) {
        lostBytes += packet.bytes;
        newestLostAt = packet.sentAt;
        if (Number.isNaN(runStartAt)) runStartAt = packet.sentAt;
        else if (packet.sentAt - runStartAt > PERSISTENT_CONGESTION_THRESHOLD * pto) persistent = true;
      }
      this.#onPacketLost(packet, now);
      sent.recycle(packet);
    }
    sent.settle();
    if (lostBytes === 0) return;
    this.#congestion.onLost(lostBytes, newestLostAt, now);
    if (persistent && this.#rtt.sampled) this.#congestion.onPersistentCongestion();
  }

  #onPacketLost(packet: SentPacket, now: number): void {
    this.#leaveFlight(packet);
    if (packet.isMtuProbe) {
      this.#mtu.onProbeLost(now);
      return;
    }
    this.#statPacketsLost++;
    if (this.#mtu.onLost(packet.bytes, now)) this.#congestion.onDatagramSize(this.#mtu.current);
    this.#requeue(packet);
  }

  #leaveFlight(packet: SentPacket): void {
    this.#sent.remove(packet);
    this.#bytesInFlight -= packet.bytes;
    this.#truesizeInFlight -= packet.truesize;
  }

  /** Puts what a packet carried back into the queues. SPEC §6.3. */
  #requeue(packet: SentPacket): void {
    this.#statPacketsResent++;
    for (let i = 0; i < packet.frameCount; i++) {
      const kind = packet.kinds[i]!;
      const stream = packet.streams[i];
      if (stream === undefined) {
        if (kind === FRAME.MAX_DATA) this.#receiveLimitWaits = true;
        else if (kind === FRAME.MAX_STREAMS) this.#remoteLimitWaits = true;
        continue;
      }
      if ((kind & 0xfc) === FRAME.STREAM) {
        stream.send.onLost(packet.firsts[i]!, packet.seconds[i]!, (kind & STREAM_FIN) !== 0);
        this.#enqueueResend(stream);
      } else if (kind === FRAME.RESET) {
        if (!stream.send.resetAcked) this.#enqueueControl(stream, CONTROL.reset);
      } else if (kind === FRAME.STOP) {
        if (!stream.receive.isDone) this.#enqueueControl(stream, CONTROL.stop);
      } else if (kind === FRAME.MAX_STREAM_DATA) {
        if (stream.receive.finalSize < 0) this.#enqueueControl(stream, CONTROL.maxStreamData);
      }
    }
  }

  // ------------------------------------------------------------------ timers

  /** Runs what is due. */
  onTimeout(now: number): void {
    if (this.#state === "over") return;
    if (now >= this.#lastReceivedAt + this.#idleMs) {
      this.#end("lost", CLOSE_CODE.idle, "the peer fell silent", undefined, now);
      return;
    }
    if (now >= this.#lossAt) this.#detectLoss(now);
    else if (now >= this.#probeAt()) this.#onProbeTimeout(now);
    if (now >= this.#keepAliveAt()) this.#pingWaits = true;
    if (now >= this.#pacedUntil) this.#pacedUntil = Infinity;
    this.#finishFlush(now);
    this.#schedule(now);
    this.#owner.wake(this);
  }

  #onProbeTimeout(now: number): void {
    this.#probeCount++;
    this.#probesToSend = this.#probeCount === 1 ? 1 : 2;
    if (this.#probeCount >= 3 && this.#mtu.fallBack(now)) this.#congestion.onDatagramSize(this.#mtu.current);
    // The oldest packets' frames go out again; the packets stay outstanding, they may yet be acknowledged.
    let wanted = this.#probesToSend;
    for (let sequence = this.#sent.base; sequence < this.#sent.next && wanted > 0; sequence++) {
      const packet = this.#sent.get(sequence);
      if (packet === undefined || packet.isMtuProbe) continue;
      this.#requeue(packet);
      wanted--;
    }
    this.#pingWaits = true;
    this.#lastElicitingAt = now;
  }

  #probeTimeout(): number {
    return this.#rtt.probeTimeoutMs(this.#peerParams.ackDelayMaxMs);
  }

  #probeAt(): number {
    if (this.#sent.outstanding === 0) return Infinity;
    const first = this.#probeTimeout();
    const backedOff = first * 2 ** Math.min(this.#probeCount, MAX_PROBE_BACKOFF);
    return this.#lastElicitingAt + Math.max(first, Math.min(backedOff, MAX_PROBE_INTERVAL_MS));
  }

  #keepAliveAt(): number {
    const interval = this.#options.keepAliveMs;
    // While something is outstanding, probes keep asking.
    if (interval === 0 || this.#pingWaits || this.#sent.outstanding > 0) return Infinity;
    return this.#lastReceivedAt + interval;
  }

  #schedule(now: number): void {
    if (this.#state === "over") {
      this.timeoutAt = Infinity;
      return;
    }
    let at = this.#lastReceivedAt + this.#idleMs;
    at = Math.min(at, this.#lossAt < Infinity ? this.#lossAt : this.#probeAt());
    at = Math.min(at, this.#keepAliveAt(), this.#ackAt, this.#pacedUntil, this.#flushUntil);
    // Of path probes only the future ones: one that is due and waits for room is sent when room comes.
    if (this.#mtu.probeAt > now) at = Math.min(at, this.#mtu.probeAt);
    this.timeoutAt = at;
  }

  // ------------------------------------------------------------------ sending

  /** The next datagram, or undefined when nothing may or need be sent at `now`. */
  pollTransmit(now: number): Uint8Array | undefined {
    if (this.#state === "over") return undefined;
    const datagram = this.#nextDatagram(now);
    this.#schedule(now);
    return datagram;
  }

  #nextDatagram(now: number): Uint8Array | undefined {
    if (this.#sent.next >= this.#options.packetNumberLimit) {
      this.#fail(CLOSE_CODE.packetNumbers, "packet numbers used up", now);
      return undefined;
    }
    const ackDue = this.#ackNow || now >= this.#ackAt;
    if (now >= this.#mtu.probeAt && this.#probesToSend === 0 && this.#state === "open") {
      // Before data: a sender that never pauses would never find out that it may use larger datagrams.
      const probe = this.#buildMtuProbe(now);
      if (probe !== undefined) return probe;
    }
    if (this.#wantsToSend()) {
      const probing = this.#probesToSend > 0 && !this.#sent.isExhausted;
      const room = probing ? this.#mtu.current : this.#room(now);
      if (room > 0) {
        const datagram = this.#buildPacket(room, probing, ackDue, now);
        if (datagram !== undefined) return datagram;
      } else if (ackDue) return this.#buildAck(now);
      else return undefined;
    } else if (ackDue) return this.#buildAck(now);
    if (!this.#wantsToSend()) this.#windowLimited = false;
    return undefined;
  }

  #wantsToSend(): boolean {
    return this.#resend.length > 0 || this.#control.length > 0 || this.#datagrams.length > 0 ||
      this.#pingWaits || this.#receiveLimitWaits || this.#remoteLimitWaits ||
      this.#ready.length > 0 && this.#sentBytes < this.#sendLimit;
  }

  /** Bytes that the next datagram may have; 0 = wait. SPEC §7. */
  #room(now: number): number {
    if (this.#sent.isFull) return 0;
    const full = this.#mtu.current;
    let needed = full;
    if (this.#resend.length === 0 && this.#control.length === 0 && this.#datagrams.length === 0) {
      needed = Math.min(full, this.#unsentBytes + this.#ready.length * CONTROL_FRAME_BYTES_MAX + 256);
    }
    if (this.#bytesInFlight > 0) {
      // SPEC §7.7: with little room and much to send, wait rather than send a small packet.
      if (this.#bytesInFlight + needed > this.#congestion.windowBytes) {
        this.#windowLimited = true;
        return 0;
      }
      if (
        this.#isLoopback &&
        this.#truesizeInFlight + truesizeBytes(needed) > this.#peerParams.socketBudgetBytes
      ) return 0;
    }
    if (!this.#isLoopback) {
      const readyAt = this.#pacer.readyAt(this.#congestion.pacingRate(this.#rtt.smoothed), full, now);
      if (readyAt > now) {
        this.#pacedUntil = readyAt;
        return 0;
      }
    }
    return needed;
  }

  /** Whether this packet leaves no room for another though there is more to send. SPEC §3.8. */
  #fillsWindow(bytes: number): boolean {
    if (this.#ready.length === 0 && this.#resend.length === 0) return false;
    const full = this.#mtu.current;
    if (this.#bytesInFlight + bytes + full > this.#congestion.windowBytes) return true;
    return this.#isLoopback &&
      this.#truesizeInFlight + truesizeBytes(bytes) + truesizeBytes(full) >
        this.#peerParams.socketBudgetBytes;
  }

  #buildPacket(room: number, probing: boolean, ackDue: boolean, now: number): Uint8Array | undefined {
    const packet = this.#sent.blank();
    const plain = this.#owner.scratch;
    const sackBlocks = this.#received.sackBlocks;
    const limit = room - HEADER_BYTES - TAG_BYTES - sackBlocks * SACK_BLOCK_BYTES;
    let at = this.#writePrelude(plain, now);
    if (this.#pingWaits) {
      plain[at++] = FRAME.PING;
      packet.push(FRAME.PING, undefined, 0, 0);
      this.#pingWaits = false;
    }
    at = this.#writeConnectionCredit(packet, plain, at);
    at = this.#writeControl(packet, plain, at, limit);
    at = this.#writeDatagrams(packet, plain, at, limit, now);
    at = this.#writeResends(packet, plain, at, limit);
    at = this.#writeReady(packet, plain, at, limit);
    if (packet.frameCount === 0) {
      // Everything queued had become pointless.
      this.#sent.recycle(packet);
      return ackDue ? this.#buildAck(now) : undefined;
    }
    if (probing) this.#probesToSend--;
    if (this.#probesToSend > 0) this.#pingWaits = true;
    const bytes = HEADER_BYTES + at + TAG_BYTES + sackBlocks * SACK_BLOCK_BYTES;
    const flags = FLAG.ACK | (probing || this.#fillsWindow(bytes) ? FLAG.PSH : 0);
    return this.#track(packet, this.#seal(flags, at), now);
  }

  #buildAck(now: number): Uint8Array {
    return this.#seal(FLAG.ACK, this.#writePrelude(this.#owner.scratch, now));
  }

  #buildMtuProbe(now: number): Uint8Array | undefined {
    const size = this.#sent.isFull ? 0 : this.#mtu.nextProbeBytes(now);
    if (size === 0) return undefined;
    if (
      this.#isLoopback && this.#truesizeInFlight > 0 &&
      this.#truesizeInFlight + truesizeBytes(size) > this.#peerParams.socketBudgetBytes
    ) return undefined;
    this.#mtu.onProbeSent();
    const packet = this.#sent.blank();
    const plain = this.#owner.scratch;
    const at = this.#writePrelude(plain, now);
    plain[at] = FRAME.PING;
    const end = size - HEADER_BYTES - TAG_BYTES - this.#received.sackBlocks * SACK_BLOCK_BYTES;
    plain.fill(FRAME.PADDING, at + 1, end);
    packet.push(FRAME.PING, undefined, 0, 0);
    packet.isMtuProbe = true;
    return this.#track(packet, this.#seal(FLAG.ACK | FLAG.PSH, end), now);
  }

  /** ACK_DELAY and ACK_FLOOR. */
  #writePrelude(plain: Uint8Array, now: number): number {
    let at = 0;
    const waited = now - this.#largestReceivedAt;
    if (this.#unackedPackets > 0 && waited >= GRANULARITY_MS) {
      at = writeFrame1(plain, at, FRAME.ACK_DELAY, Math.round(waited * 1000));
    }
    // SPEC §3.5: the peer reports a gap below everything outstanding, so nothing will ever fill it.
    if (this.#peerHasGaps) {
      const floor = this.#sent.outstanding === 0 ? this.#sent.next : this.#sent.base;
      if (floor > this.#peerNext) at = writeFrame1(plain, at, FRAME.ACK_FLOOR, floor);
    }
    return at;
  }

  #writeConnectionCredit(packet: SentPacket, plain: Uint8Array, at: number): number {
    if (this.#receiveLimitWaits) {
      this.#receiveLimitWaits = false;
      at = writeFrame1(plain, at, FRAME.MAX_DATA, this.#receiveLimit);
      packet.push(FRAME.MAX_DATA, undefined, 0, 0);
    }
    if (this.#remoteLimitWaits) {
      this.#remoteLimitWaits = false;
      at = writeFrame1(plain, at, FRAME.MAX_STREAMS, this.#remoteLimit);
      packet.push(FRAME.MAX_STREAMS, undefined, 0, 0);
    }
    return at;
  }

  #writeControl(packet: SentPacket, plain: Uint8Array, at: number, limit: number): number {
    while (this.#control.length > 0 && at + 3 * CONTROL_FRAME_BYTES_MAX <= limit) {
      const stream = this.#control.shift()!;
      const bits = stream.control;
      stream.control = 0;
      stream.inControl = false;
      if (bits & CONTROL.reset) {
        at = writeReset(plain, at, stream.id, stream.send.resetCode, stream.send.written);
        packet.push(FRAME.RESET, stream, 0, 0);
      }
      if (bits & CONTROL.stop) {
        at = writeFrame2(plain, at, FRAME.STOP, stream.id, stream.stopCode);
        packet.push(FRAME.STOP, stream, 0, 0);
      }
      if (bits & CONTROL.maxStreamData && stream.receive.finalSize < 0 && !stream.receive.discards) {
        at = writeFrame2(plain, at, FRAME.MAX_STREAM_DATA, stream.id, stream.receive.limit);
        packet.push(FRAME.MAX_STREAM_DATA, stream, 0, 0);
      }
    }
    return at;
  }

  #writeDatagrams(packet: SentPacket, plain: Uint8Array, at: number, limit: number, now: number): number {
    let next = this.#datagrams.peek();
    while (next !== undefined) {
      const bytes = next.bytes;
      const fits = at + 1 + varintBytes(bytes.length) + bytes.length <= limit;
      // The size fell since it was queued: it will never fit.
      const never = bytes.length + CONTROL_FRAME_BYTES_MAX > limit && packet.frameCount === 0;
      if (!fits && !never && next.expiresAt > now) break;
      this.#datagrams.shift();
      this.#datagramBytes -= bytes.length;
      if (fits && next.expiresAt > now) {
        at = writeDatagram(plain, at, bytes);
        packet.push(FRAME.DATAGRAM, undefined, 0, 0);
      }
      next = this.#datagrams.peek();
    }
    return at;
  }

  #writeResends(packet: SentPacket, plain: Uint8Array, at: number, limit: number): number {
    while (this.#resend.length > 0) {
      const stream = this.#resend.peek()!;
      const send = stream.send;
      while (send.hasLost) {
        const hasRange = send.nextLost();
        if (!hasRange && !send.hasLost) break;
        const start = hasRange ? send.lostStart : send.written;
        const end = hasRange ? send.lostEnd : start;
        const room = limit - at - streamHeaderBytes(stream.id, start, end - start);
        if (room < Math.min(end - start, MIN_FRAGMENT_BYTES)) return at;
        const count = Math.min(end - start, room);
        const fin = send.finBelongsAt(start + count);
        at = writeStreamHeader(plain, at, stream.id, start, count, fin);
        if (count > 0) send.copy(start, count, plain, at);
        at += count;
        send.tookLost(count, fin);
        packet.push(fin ? FRAME.STREAM | STREAM_FIN : FRAME.STREAM, stream, start, count);
      }
      this.#resend.shift();
      stream.inResend = false;
    }
    return at;
  }

  #writeReady(packet: SentPacket, plain: Uint8Array, at: number, limit: number): number {
    const lowWater = this.#options.writeLowWaterBytes;
    while (this.#ready.length > 0) {
      const stream = this.#ready.peek()!;
      const send = stream.send;
      const credit = this.#sendLimit - this.#sentBytes;
      let count = Math.min(send.written, send.limit) - send.sent;
      if (count > credit) count = credit;
      if (count <= 0 && (send.sent < send.written || !send.hasNew)) {
        if (send.hasNew) return at; // the connection's credit is used up
        this.#ready.shift();
        stream.inReady = false;
        continue;
      }
      const room = limit - at - streamHeaderBytes(stream.id, send.sent, count);
      if (room < Math.min(count, MIN_FRAGMENT_BYTES)) return at;
      if (count > room) count = room;
      const offset = send.sent;
      const end = offset + count;
      const fin = send.finWritten && end === send.written;
      at = writeStreamHeader(plain, at, stream.id, offset, count, fin);
      if (count > 0) send.copy(offset, count, plain, at);
      at += count;
      send.sent = end;
      if (fin) send.finSent = true;
      this.#sentBytes += count;
      this.#unsentBytes -= count;
      packet.push(fin ? FRAME.STREAM | STREAM_FIN : FRAME.STREAM, stream, offset, count);
      stream.turnBytes += count;
      if (!send.hasNew || stream.turnBytes >= STREAM_QUANTUM_BYTES) {
        stream.turnBytes = 0;
        this.#ready.shift();
        if (send.hasNew) this.#ready.push(stream);
        else stream.inReady = false;
      }
      if (send.aboveHighWater && send.unsent <= lowWater) {
        send.aboveHighWater = false;
        this.#tell({ type: "drain", connection: this.handle, stream: stream.id });
      }
    }
    return at;
  }

  /** Makes a datagram of the first `plainBytes` of the scratch buffer, and notes that it acknowledges. */
  #seal(flags: number, plainBytes: number): Uint8Array {
    const blocks = this.#received.sackBlocks;
    const sealedBytes = plainBytes + TAG_BYTES;
    const sackAt = HEADER_BYTES + sealedBytes;
    const datagram = this.#owner.allocate(sackAt + blocks * SACK_BLOCK_BYTES);
    const sequence = this.#sent.next++;
    writeHeader(datagram, flags, this.guuid, sequence, this.#received.next, sealedBytes);
    if (blocks > 0) this.#received.writeSack(datagram, sackAt);
    const aad = associatedData(datagram, sealedBytes, blocks);
    this.#sealer.seal(sequence, aad, this.#owner.scratch.subarray(0, plainBytes), datagram, HEADER_BYTES);
    this.#ackNow = false;
    this.#ackAt = Infinity;
    this.#unackedPackets = 0;
    this.#unackedBulk = 0;
    this.#statPacketsSent++;
    this.#statBytesSent += datagram.length;
    return datagram;
  }

  #track(packet: SentPacket, datagram: Uint8Array, now: number): Uint8Array {
    packet.sequence = this.#sent.next - 1;
    packet.sentAt = now;
    packet.bytes = datagram.length;
    packet.truesize = this.#isLoopback ? truesizeBytes(datagram.length) : 0;
    this.#sent.enter(packet);
    this.#bytesInFlight += packet.bytes;
    this.#truesizeInFlight += packet.truesize;
    this.#lastElicitingAt = now;
    if (!packet.isMtuProbe) {
      this.#congestion.onSent(packet.bytes, this.#bytesInFlight, now);
      if (!this.#isLoopback) this.#pacer.spend(packet.bytes);
    }
    return datagram;
  }

  // ------------------------------------------------------------------ ending

  /** Sends CLOSE once everything is flushed, or the deadline passed. SPEC §10.1. */
  #finishFlush(now: number): void {
    if (this.#state !== "flushing") return;
    const flushed = this.#unsentBytes === 0 && this.#sent.outstanding === 0 &&
      this.#resend.length === 0 && this.#control.length === 0;
    if (!flushed && now < this.#flushUntil) return;
    const farewell = this.#farewell(this.#closeCode, this.#closeReason, now);
    this.#end("local", this.#closeCode, this.#closeReason, farewell, now);
  }

  /** The peer did what it must not: closes at once. Returns false, for the caller to pass on. */
  #violation(code: number, reason: string, now: number): false {
    this.#fail(code, reason, now);
    return false;
  }

  #fail(code: number, reason: string, now: number): void {
    if (this.#state === "over") return;
    this.#end("local", code, reason, this.#farewell(code, reason, now), now);
  }

  #farewell(code: number, reason: string, now: number): Uint8Array {
    const text = utf8.encode(reason).subarray(0, MAX_CLOSE_REASON_BYTES);
    const at = writeClose(this.#owner.scratch, this.#writePrelude(this.#owner.scratch, now), code, text);
    return this.#seal(FLAG.ACK | FLAG.FIN, at);
  }

  #end(
    by: ConnectionEnd["by"],
    code: number,
    reason: string,
    farewell: Uint8Array | undefined,
    now: number,
  ): void {
    if (this.#state === "over") return;
    const flushing = this.#state === "flushing";
    this.#state = "over";
    this.timeoutAt = Infinity;
    this.#streams.clear();
    this.#owner.over(this, {
      // Whatever happens during the flush, it was the owner who ended the connection.
      code: flushing ? this.#closeCode : code,
      reason: flushing ? this.#closeReason : reason,
      by: flushing ? "local" : by,
      farewell,
      probeTimeoutMs: this.#probeTimeout(),
    }, now);
  }
}

/** Opens a session packet; undefined if it is not authentic. */
export function openPacket(
  opener: PacketCipher,
  bytes: Uint8Array,
  sackBlocks: number,
): Uint8Array | undefined {
  const sealedBytes = readU16(bytes, AT.payloadBytes);
  return opener.open(
    readU32(bytes, AT.sequence),
    associatedData(bytes, sealedBytes, sackBlocks),
    bytes.subarray(HEADER_BYTES, HEADER_BYTES + sealedBytes),
  );
}

/** Header ‖ SACK blocks; valid until the next call. SPEC §2.7. */
function associatedData(datagram: Uint8Array, sealedBytes: number, blocks: number): Uint8Array {
  if (blocks === 0) return datagram.subarray(0, HEADER_BYTES);
  aadScratch.set(datagram.subarray(0, HEADER_BYTES));
  const at = HEADER_BYTES + sealedBytes;
  aadScratch.set(datagram.subarray(at, at + blocks * SACK_BLOCK_BYTES), HEADER_BYTES);
  return aadScratch.subarray(0, HEADER_BYTES + blocks * SACK_BLOCK_BYTES);
}
