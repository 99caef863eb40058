/** One socket's worth of Quantum: finds the connection of a datagram, runs handshakes, answers strangers without
 *  remembering them, and lets connections take turns at the socket. SPEC §2, §10.
 *
 *      client   connect() ──► ClientHandshake ──SYN|ACK──► Connection ──► Farewell ──► gone
 *      server   SYN ──► HalfOpen ──first packet that opens──► Connection ──► Farewell ──► gone
 */

import { Buffer } from "node:buffer";
import { CLOSE_CODE, DROP_REASONS, type DropReason, QuantumError } from "../errors.ts";
import {
  AMPLIFICATION_FACTOR,
  BASE_DATAGRAM_BYTES,
  CLOSE_REPEATS,
  MAX_DATAGRAM_BYTES,
  MAX_RESETS_PER_SECOND,
  MAX_RESPONSES_QUEUED,
  MAX_RETRIES_ANSWERED,
  SEEN_SYN_MS,
  SYN_FRESH_MS,
  SYN_RETRY_MAX_MS,
  SYN_RETRY_MS,
} from "../params.ts";
import type {
  Address,
  ConnectionHandle,
  ConnectionStats,
  EndpointStats,
  QuantumEndpoint,
  QuantumEvent,
  Random,
  Transmit,
} from "../types.ts";
import {
  AT,
  checkHeader,
  FLAG,
  GUUID_BYTES,
  HEADER_BYTES,
  kindOfFlags,
  readU32,
  TAG_BYTES,
  writeHeader,
} from "../wire/header.ts";
import {
  readTransportParams,
  TRANSPORT_PARAMS_BYTES_MAX,
  type TransportParams,
  writeTransportParams,
} from "../wire/transport_params.ts";
import {
  Connection,
  type ConnectionEnd,
  type ConnectionOwner,
  type ConnectionSetup,
  openPacket,
} from "./connection.ts";
import { createGuuid, GuuidTable, guuidWallMs } from "./guuid.ts";
import {
  createKeyPair,
  deriveSecretKeys,
  deriveSessionKeys,
  handshakeMac,
  type KeyPair,
  PacketCipher,
  PUBLIC_KEY_BYTES,
  type SecretKeys,
  TOKEN_BYTES,
  TokenMint,
  verifyHandshakeMac,
} from "./keys.ts";
import { type QuantumOptions, type ResolvedOptions, resolveOptions } from "./options.ts";
import { Fifo } from "./queue.ts";

export type { QuantumOptions } from "./options.ts";

/** Makes an endpoint.
 *  @throws {RangeError} if an option is out of range. */
export function createQuantumEndpoint(options: QuantumOptions, random: Random): QuantumEndpoint {
  return new Endpoint(resolveOptions(options), random);
}

/** A client's handshake under way. */
interface ClientHandshake {
  readonly kind: "client";
  readonly handle: ConnectionHandle;
  readonly guuid: Uint8Array;
  readonly peer: Address;
  readonly keyPair: KeyPair;
  readonly deadline: number;
  syn: Uint8Array;
  retriesAnswered: number;
  sentAt: number;
  sends: number;
  waitMs: number;
  timeoutAt: number;
}

/** A server's memory of a SYN it answered. */
interface HalfOpen {
  readonly kind: "half_open";
  readonly guuid: Uint8Array;
  readonly peer: Address;
  readonly synTag: Uint8Array;
  readonly synack: Uint8Array;
  readonly opener: PacketCipher;
  readonly sealer: PacketCipher;
  readonly peerParams: TransportParams;
  readonly answeredAt: number;
  answers: number;
  bytesReceived: number;
  bytesSent: number;
  timeoutAt: number;
}

/** What is left of a connection for a while, so that late packets of the peer are neither news nor reset. SPEC §10.3. */
interface Farewell {
  readonly kind: "farewell";
  readonly guuid: Uint8Array;
  readonly peer: Address;
  readonly packet: Uint8Array | undefined;
  readonly probeTimeoutMs: number;
  readonly until: number;
  repeats: number;
  arrivals: number;
  timeoutAt: number;
}

type Entry = ClientHandshake | HalfOpen | Farewell | Connection;

const NO_BYTES = new Uint8Array(0);
const SLAB_BYTES = 256 * 1024;
// Small datagrams are cut from one buffer, which saves most of the cost of making one; larger ones have their own.
const SLAB_DATAGRAM_BYTES_MAX = 4096;
// Large buffers kept for use again: more than the socket budget lets be in flight.
const USED_BUFFERS_MAX = 16;

/** Packets of many connections. */
interface PacketCounts {
  packetsSent: number;
  packetsReceived: number;
  packetsLost: number;
  packetsResent: number;
}

class Endpoint implements QuantumEndpoint, ConnectionOwner {
  readonly options: ResolvedOptions;
  readonly scratch = new Uint8Array(MAX_DATAGRAM_BYTES);
  readonly #random: Random;
  readonly #keys: SecretKeys;
  readonly #mint: TokenMint;
  readonly #ownParams: TransportParams;
  readonly #table = new GuuidTable<Entry>();
  readonly #entries = new Set<Entry>();
  readonly #byHandle = new Map<ConnectionHandle, ClientHandshake | Connection>();
  readonly #farewells = new Set<Farewell>();
  readonly #seen = new Map<string, number>();
  readonly #events = new Fifo<QuantumEvent>();
  readonly #responses = new Fifo<Transmit>();
  readonly #awake = new Fifo<Connection>();
  readonly #dropped: Record<DropReason, number>;
  #halfOpen = 0;
  #handles = 0;
  // No entry's timeout is earlier; it may be later, which costs one idle call of handleTimeout.
  #timeoutAt = Infinity;
  #resetTokens = MAX_RESETS_PER_SECOND;
  #resetTokensAt = 0;
  #slab = new Uint8Array(0);
  #slabAt = 0;
  readonly #used: ArrayBuffer[] = [];
  #datagramsReceived = 0;
  #bytesReceived = 0;
  #datagramsSent = 0;
  #bytesSent = 0;
  #resetsSent = 0;
  #retriesSent = 0;
  /** Packets of connections that have ended. */
  readonly #ended: PacketCounts = { packetsSent: 0, packetsReceived: 0, packetsLost: 0, packetsResent: 0 };

  constructor(options: ResolvedOptions, random: Random) {
    this.options = options;
    this.#random = random;
    this.#keys = deriveSecretKeys(options.secret);
    this.#mint = new TokenMint(random);
    this.#dropped = Object.fromEntries(DROP_REASONS.map((reason) => [reason, 0])) as Record<
      DropReason,
      number
    >;
    this.#ownParams = {
      connectionWindowBytes: options.connectionWindowBytes,
      streamWindowBytes: options.streamWindowBytes,
      streamsOpenMax: options.streamsOpenMax,
      idleTimeoutMs: options.idleTimeoutMs,
      datagramBytesMax: options.receiveBytesMax,
      socketBudgetBytes: options.socketBudgetBytes,
      ackDelayMaxMs: options.ackDelayMaxMs,
    };
  }

  // ------------------------------------------------------------------ in

  handleDatagram(bytes: Uint8Array, from: Address, now: number): void {
    this.#datagramsReceived++;
    this.#bytesReceived += bytes.length;
    const blocks = checkHeader(bytes);
    if (typeof blocks === "string") return this.drop(blocks);
    const kind = kindOfFlags(bytes[AT.flags]!);
    if (kind === undefined) return this.drop("flags");
    if (kind !== "session" && blocks !== 0) return this.drop("malformed");
    const entry = this.#table.find(bytes);
    switch (kind) {
      case "session":
        return this.#onSessionPacket(entry, bytes, blocks, from, now);
      case "syn":
        return this.#onSyn(entry, bytes, from, now);
      case "synack":
        return this.#onSynAck(entry, bytes, from, now);
      case "retry":
        return this.#onRetry(entry, bytes, from, now);
      case "reset":
        return this.#onReset(entry, bytes, from, now);
    }
  }

  handleTimeout(now: number): void {
    if (now < this.#timeoutAt) return;
    for (const entry of this.#entries) {
      if (entry.timeoutAt > now) continue;
      if (entry.kind === "connection") entry.onTimeout(now);
      else if (entry.kind === "client") this.#onClientTimeout(entry, now);
      else if (entry.kind === "half_open") this.#remove(entry);
      else this.#onFarewellTimeout(entry, now);
    }
    let earliest = Infinity;
    for (const entry of this.#entries) earliest = Math.min(earliest, entry.timeoutAt);
    this.#timeoutAt = earliest;
  }

  nextTimeout(): number | undefined {
    return this.#timeoutAt === Infinity ? undefined : this.#timeoutAt;
  }

  // ------------------------------------------------------------------ out

  pollTransmit(now: number): Transmit | undefined {
    const response = this.#responses.shift();
    if (response !== undefined) return this.#count(response);
    for (;;) {
      const connection = this.#awake.peek();
      if (connection === undefined) return undefined;
      this.#awake.shift();
      const bytes = connection.pollTransmit(now);
      this.#watch(connection);
      if (bytes !== undefined) {
        // To the end of the queue: connections take turns.
        this.#awake.push(connection);
        return this.#count({ to: connection.peer, bytes });
      }
      connection.awake = false;
      // Its end may have left a farewell.
      const farewell = this.#responses.shift();
      if (farewell !== undefined) return this.#count(farewell);
    }
  }

  pollEvent(): QuantumEvent | undefined {
    return this.#events.shift();
  }

  recycle(bytes: Uint8Array): void {
    if (bytes.byteLength <= SLAB_DATAGRAM_BYTES_MAX || this.#used.length >= USED_BUFFERS_MAX) return;
    this.#used.push(bytes.buffer as ArrayBuffer);
  }

  // ------------------------------------------------------------------ commands

  connect(to: Address, now: number): ConnectionHandle {
    if (this.#byHandle.size + this.#halfOpen >= this.options.connectionsMax) {
      throw new QuantumError(
        "connection_limit",
        `Cannot connect: ${this.options.connectionsMax} connections are open`,
      );
    }
    const guuid = createGuuid(now + this.options.wallOffsetMs, this.#random);
    const keyPair = createKeyPair(this.#random);
    const handshake: ClientHandshake = {
      kind: "client",
      handle: ++this.#handles,
      guuid,
      peer: { hostname: to.hostname, port: to.port },
      keyPair,
      deadline: now + this.options.handshakeTimeoutMs,
      syn: this.#buildSyn(guuid, keyPair.publicKey, NO_BYTES, 0),
      retriesAnswered: 0,
      sentAt: now,
      sends: 0,
      waitMs: SYN_RETRY_MS,
      timeoutAt: now,
    };
    this.#byHandle.set(handshake.handle, handshake);
    this.#add(handshake);
    this.#sendSyn(handshake, now);
    return handshake.handle;
  }

  openStream(handle: ConnectionHandle): number {
    const entry = this.#byHandle.get(handle);
    if (entry === undefined) throw new QuantumError("closed", "Cannot open stream: the connection is closed");
    if (entry.kind === "client") {
      throw new QuantumError("stream_limit", "Cannot open stream: the handshake is under way");
    }
    return entry.openStream();
  }

  streamCredit(handle: ConnectionHandle): number {
    return this.#connection(handle)?.streamCredit ?? 0;
  }

  write(handle: ConnectionHandle, stream: number, bytes: Uint8Array, fin: boolean): boolean {
    return this.#connection(handle)?.write(stream, bytes, fin) ?? false;
  }

  resetStream(handle: ConnectionHandle, stream: number, code: number): void {
    this.#connection(handle)?.resetStream(stream, code);
  }

  stopStream(handle: ConnectionHandle, stream: number, code: number): void {
    this.#connection(handle)?.stopStream(stream, code);
  }

  consumed(handle: ConnectionHandle, stream: number, byteCount: number): void {
    this.#connection(handle)?.consumed(stream, byteCount);
  }

  sendDatagram(handle: ConnectionHandle, bytes: Uint8Array, expiresAtMs: number): boolean {
    return this.#connection(handle)?.sendDatagram(bytes, expiresAtMs) ?? false;
  }

  close(handle: ConnectionHandle, code: number, reason: string, now: number): void {
    const entry = this.#byHandle.get(handle);
    if (entry === undefined) return;
    if (entry.kind === "client") return this.#failHandshake(entry, code, reason, "local");
    entry.close(code, reason, now);
    this.#watch(entry);
    this.wake(entry);
  }

  connectionStats(handle: ConnectionHandle): ConnectionStats | undefined {
    return this.#connection(handle)?.stats();
  }

  stats(): EndpointStats {
    const sums = { ...this.#ended, congestionWindowBytes: 0, bytesInFlight: 0 };
    for (const entry of this.#byHandle.values()) {
      if (entry.kind === "client") continue;
      const stats = entry.stats();
      addPackets(sums, stats);
      sums.congestionWindowBytes += stats.congestionWindowBytes;
      sums.bytesInFlight += stats.bytesInFlight;
    }
    return {
      ...sums,
      datagramsReceived: this.#datagramsReceived,
      bytesReceived: this.#bytesReceived,
      datagramsSent: this.#datagramsSent,
      bytesSent: this.#bytesSent,
      connections: this.#byHandle.size,
      halfOpen: this.#halfOpen,
      resetsSent: this.#resetsSent,
      retriesSent: this.#retriesSent,
      dropped: { ...this.#dropped },
    };
  }

  // ------------------------------------------------------------------ what connections need (ConnectionOwner)

  allocate(bytes: number): Uint8Array {
    if (bytes > SLAB_DATAGRAM_BYTES_MAX) {
      const used = this.#used.pop();
      return used !== undefined && used.byteLength >= bytes
        ? new Uint8Array(used, 0, bytes)
        : new Uint8Array(bytes);
    }
    if (this.#slabAt + bytes > this.#slab.length) {
      this.#slab = new Uint8Array(SLAB_BYTES);
      this.#slabAt = 0;
    }
    const at = this.#slabAt;
    this.#slabAt += bytes;
    return this.#slab.subarray(at, at + bytes);
  }

  emit(event: QuantumEvent): void {
    this.#events.push(event);
  }

  drop(reason: DropReason): void {
    this.#dropped[reason]++;
  }

  wake(connection: Connection): void {
    if (connection.awake) return;
    connection.awake = true;
    this.#awake.push(connection);
  }

  over(connection: Connection, end: ConnectionEnd, now: number): void {
    this.#remove(connection);
    this.#byHandle.delete(connection.handle);
    addPackets(this.#ended, connection.stats());
    this.emit({
      type: "closed",
      connection: connection.handle,
      code: end.code,
      reason: end.reason,
      by: end.by,
    });
    if (end.by === "lost") return;
    if (this.#farewells.size >= this.options.closingMax) this.#remove(this.#farewells.values().next().value!);
    const farewell: Farewell = {
      kind: "farewell",
      guuid: connection.guuid,
      peer: connection.peer,
      packet: end.farewell,
      probeTimeoutMs: end.probeTimeoutMs,
      until: now + 3 * end.probeTimeoutMs,
      repeats: 0,
      arrivals: 0,
      timeoutAt: now + end.probeTimeoutMs,
    };
    this.#farewells.add(farewell);
    this.#add(farewell);
    this.#sayFarewell(farewell);
  }

  // ------------------------------------------------------------------ session packets and closing

  #onSessionPacket(
    entry: Entry | undefined,
    bytes: Uint8Array,
    blocks: number,
    from: Address,
    now: number,
  ): void {
    if (entry === undefined) {
      this.drop("unknown_connection");
      this.#sendReset(bytes, from, now);
      return;
    }
    if (!sameAddress(entry.peer, from)) return this.drop("address");
    if (entry.kind === "connection") {
      entry.onDatagram(bytes, blocks, now);
      this.#watch(entry);
    } else if (entry.kind === "half_open") this.#onFirstPacket(entry, bytes, blocks, now);
    else if (entry.kind === "farewell") {
      this.drop("closing");
      entry.arrivals++;
      // The first, second, fourth, eighth …: a peer that keeps talking hears it, a flood is not echoed.
      if ((entry.arrivals & (entry.arrivals - 1)) === 0) this.#sayFarewell(entry);
    } else this.drop("unexpected");
  }

  #sayFarewell(farewell: Farewell): void {
    // A copy: what was handed out is the driver's.
    if (farewell.packet !== undefined) this.#respond(farewell.peer, farewell.packet.slice());
  }

  #onFarewellTimeout(farewell: Farewell, now: number): void {
    if (now >= farewell.until) return this.#remove(farewell);
    if (farewell.repeats++ < CLOSE_REPEATS) this.#sayFarewell(farewell);
    farewell.timeoutAt = farewell.repeats < CLOSE_REPEATS ? now + farewell.probeTimeoutMs : farewell.until;
  }

  /** Answers a packet of a connection that is not known here. SPEC §10.6. */
  #sendReset(trigger: Uint8Array, to: Address, now: number): void {
    this.#resetTokens += (now - this.#resetTokensAt) * MAX_RESETS_PER_SECOND / 1000;
    this.#resetTokens = Math.min(this.#resetTokens, MAX_RESETS_PER_SECOND);
    this.#resetTokensAt = now;
    if (trigger.length <= HEADER_BYTES + TAG_BYTES && kindOfFlags(trigger[AT.flags]!) === "session") return;
    if (this.#resetTokens < 1) return;
    this.#resetTokens--;
    this.#resetsSent++;
    const reset = new Uint8Array(HEADER_BYTES + TAG_BYTES);
    const guuid = trigger.subarray(AT.guuid, AT.guuid + GUUID_BYTES);
    writeHeader(reset, FLAG.RST, guuid, 0, readU32(trigger, AT.sequence), TAG_BYTES);
    reset.set(handshakeMac(this.#keys.reset, reset, HEADER_BYTES, NO_BYTES), HEADER_BYTES);
    this.#respond(to, reset);
  }

  #onReset(entry: Entry | undefined, bytes: Uint8Array, from: Address, now: number): void {
    if (bytes.length !== HEADER_BYTES + TAG_BYTES) return this.drop("malformed");
    if (entry === undefined) return this.drop("unknown_connection");
    if (entry.kind !== "connection" && entry.kind !== "client") return this.drop("unexpected");
    if (!sameAddress(entry.peer, from)) return this.drop("address");
    if (!verifyHandshakeMac(this.#keys.reset, bytes, NO_BYTES)) return this.drop("mac");
    const sequence = readU32(bytes, AT.ack);
    if (entry.kind === "connection") {
      if (!entry.onReset(sequence, now)) this.drop("unexpected");
    } else if (sequence === readU32(entry.syn, AT.sequence)) {
      this.#failHandshake(entry, CLOSE_CODE.refused, "the peer accepts no connections", "peer");
    } else this.drop("unexpected");
  }

  // ------------------------------------------------------------------ handshake, client

  #buildSyn(guuid: Uint8Array, publicKey: Uint8Array, token: Uint8Array, sequence: number): Uint8Array {
    const syn = new Uint8Array(BASE_DATAGRAM_BYTES);
    writeHeader(syn, FLAG.SYN, guuid, sequence, 0, BASE_DATAGRAM_BYTES - HEADER_BYTES);
    let at = HEADER_BYTES;
    syn.set(publicKey, at);
    at += PUBLIC_KEY_BYTES;
    syn[at++] = token.length;
    syn.set(token, at);
    writeTransportParams(syn, at + token.length, this.#ownParams);
    const end = BASE_DATAGRAM_BYTES - TAG_BYTES;
    syn.set(handshakeMac(this.#keys.syn, syn, end, NO_BYTES), end);
    return syn;
  }

  #sendSyn(handshake: ClientHandshake, now: number): void {
    handshake.sends++;
    handshake.sentAt = now;
    handshake.timeoutAt = Math.min(now + handshake.waitMs, handshake.deadline);
    this.#noteTimeout(handshake.timeoutAt);
    this.#respond(handshake.peer, handshake.syn.slice());
  }

  #onClientTimeout(handshake: ClientHandshake, now: number): void {
    if (now >= handshake.deadline) {
      return this.#failHandshake(handshake, CLOSE_CODE.handshakeTimeout, "the peer does not answer", "lost");
    }
    handshake.waitMs = Math.min(handshake.waitMs * 2, SYN_RETRY_MAX_MS);
    this.#sendSyn(handshake, now);
  }

  #failHandshake(handshake: ClientHandshake, code: number, reason: string, by: ConnectionEnd["by"]): void {
    this.#remove(handshake);
    this.#byHandle.delete(handshake.handle);
    this.emit({ type: "closed", connection: handshake.handle, code, reason, by });
  }

  #onRetry(entry: Entry | undefined, bytes: Uint8Array, from: Address, now: number): void {
    if (entry === undefined) return this.drop("unknown_connection");
    if (entry.kind !== "client") return this.drop("unexpected");
    if (!sameAddress(entry.peer, from)) return this.drop("address");
    if (bytes.length !== HEADER_BYTES + TOKEN_BYTES + TAG_BYTES) return this.drop("malformed");
    const sequence = readU32(entry.syn, AT.sequence);
    if (readU32(bytes, AT.sequence) !== sequence) return this.drop("replay");
    if (!verifyHandshakeMac(this.#keys.retry, bytes, tagOf(entry.syn))) return this.drop("mac");
    if (entry.retriesAnswered >= MAX_RETRIES_ANSWERED) return this.drop("limit");
    entry.retriesAnswered++;
    const token = bytes.subarray(HEADER_BYTES, HEADER_BYTES + TOKEN_BYTES);
    entry.syn = this.#buildSyn(entry.guuid, entry.keyPair.publicKey, token, sequence + 1);
    entry.sends = 0;
    entry.waitMs = SYN_RETRY_MS;
    this.#sendSyn(entry, now);
  }

  #onSynAck(entry: Entry | undefined, bytes: Uint8Array, from: Address, now: number): void {
    if (entry === undefined) return this.drop("unknown_connection");
    // A repeated SYN|ACK finds the connection established: that is no news.
    if (entry.kind !== "client") return this.drop("replay");
    if (!sameAddress(entry.peer, from)) return this.drop("address");
    if (bytes.length < HEADER_BYTES + PUBLIC_KEY_BYTES + 1 + TAG_BYTES) return this.drop("malformed");
    if (!verifyHandshakeMac(this.#keys.synack, bytes, tagOf(entry.syn))) return this.drop("mac");
    const paramsAt = HEADER_BYTES + PUBLIC_KEY_BYTES;
    const peerParams = readTransportParams(bytes, paramsAt, bytes.length - TAG_BYTES);
    if (peerParams === undefined) return this.drop("malformed");
    const peerKey = bytes.subarray(HEADER_BYTES, paramsAt);
    const keys = deriveSessionKeys(this.#keys, entry.keyPair, peerKey, entry.syn, bytes);
    if (keys === undefined) return this.drop("malformed");
    this.#remove(entry);
    this.#establish({
      handle: entry.handle,
      side: "client",
      guuid: entry.guuid,
      peer: entry.peer,
      sealer: new PacketCipher(keys.client),
      opener: new PacketCipher(keys.server),
      peerParams,
      rttMs: entry.sends === 1 ? Math.max(now - entry.sentAt, 0.001) : undefined,
    }, now);
  }

  // ------------------------------------------------------------------ handshake, server

  #onSyn(entry: Entry | undefined, bytes: Uint8Array, from: Address, now: number): void {
    // The order is the point: nothing costly and nothing kept before the MAC. SPEC §2.2.
    if (bytes.length !== BASE_DATAGRAM_BYTES) return this.drop("malformed");
    if (entry !== undefined) return this.#onRepeatedSyn(entry, bytes, from);
    if (!verifyHandshakeMac(this.#keys.syn, bytes, NO_BYTES)) return this.drop("mac");
    if (!this.options.acceptConnections) {
      this.drop("refused");
      return this.#sendReset(bytes, from, now);
    }
    const guuid = bytes.slice(AT.guuid, AT.guuid + GUUID_BYTES);
    const seenKey = Buffer.from(guuid).toString("latin1");
    if (this.#seen.has(seenKey)) return this.drop("replay");
    const tokenAt = HEADER_BYTES + PUBLIC_KEY_BYTES + 1;
    const paramsAt = tokenAt + bytes[tokenAt - 1]!;
    const peerParams = readTransportParams(bytes, paramsAt, bytes.length - TAG_BYTES);
    if (peerParams === undefined) return this.drop("malformed");
    if (
      !this.#mint.verify(bytes.subarray(tokenAt, paramsAt), guuid, from, now) &&
      !this.#trustsFirstSyn(guuid, now)
    ) {
      return this.#sendRetry(bytes, guuid, from, now);
    }
    if (
      this.#halfOpen >= this.options.halfOpenMax ||
      this.#byHandle.size + this.#halfOpen >= this.options.connectionsMax || !this.#remember(seenKey, now)
    ) return this.drop("limit");
    this.#answerSyn(bytes, guuid, peerParams, from, now);
  }

  /** Whether a SYN without a token may create state. SPEC §2.9. */
  #trustsFirstSyn(guuid: Uint8Array, now: number): boolean {
    if (this.#halfOpen >= this.options.retryThreshold) return false;
    return Math.abs(guuidWallMs(guuid) - (now + this.options.wallOffsetMs)) <= SYN_FRESH_MS;
  }

  /** Remembers an accepted GUUID; false when there is no room. SPEC §2.10. */
  #remember(seenKey: string, now: number): boolean {
    // Insertion order is age order.
    for (const [key, at] of this.#seen) {
      if (now - at <= SEEN_SYN_MS) break;
      this.#seen.delete(key);
    }
    if (this.#seen.size >= this.options.seenSynsMax) return false;
    this.#seen.set(seenKey, now);
    return true;
  }

  #answerSyn(
    syn: Uint8Array,
    guuid: Uint8Array,
    peerParams: TransportParams,
    from: Address,
    now: number,
  ): void {
    const keyPair = createKeyPair(this.#random);
    const paramsAt = HEADER_BYTES + PUBLIC_KEY_BYTES;
    const buffer = new Uint8Array(paramsAt + TRANSPORT_PARAMS_BYTES_MAX + TAG_BYTES);
    const end = writeTransportParams(buffer, paramsAt, this.#ownParams);
    const synack = buffer.subarray(0, end + TAG_BYTES);
    const sequence = readU32(syn, AT.sequence);
    writeHeader(synack, FLAG.SYN | FLAG.ACK, guuid, 0, sequence + 1, synack.length - HEADER_BYTES);
    synack.set(keyPair.publicKey, HEADER_BYTES);
    synack.set(handshakeMac(this.#keys.synack, synack, end, tagOf(syn)), end);
    const peerKey = syn.subarray(HEADER_BYTES, HEADER_BYTES + PUBLIC_KEY_BYTES);
    const keys = deriveSessionKeys(this.#keys, keyPair, peerKey, syn, synack);
    if (keys === undefined) return this.drop("malformed");
    const halfOpen: HalfOpen = {
      kind: "half_open",
      guuid,
      peer: { hostname: from.hostname, port: from.port },
      synTag: Uint8Array.from(tagOf(syn)),
      synack,
      opener: new PacketCipher(keys.client),
      sealer: new PacketCipher(keys.server),
      peerParams,
      answeredAt: now,
      answers: 0,
      bytesReceived: syn.length,
      bytesSent: 0,
      timeoutAt: now + this.options.handshakeTimeoutMs,
    };
    this.#halfOpen++;
    this.#add(halfOpen);
    this.#sendSynAck(halfOpen);
  }

  #sendSynAck(halfOpen: HalfOpen): void {
    // SPEC §2.11. True by construction while a SYN is 1200 bytes; checked so that it stays true.
    if (halfOpen.bytesSent + halfOpen.synack.length > AMPLIFICATION_FACTOR * halfOpen.bytesReceived) return;
    halfOpen.answers++;
    halfOpen.bytesSent += halfOpen.synack.length;
    this.#respond(halfOpen.peer, halfOpen.synack.slice());
  }

  #onRepeatedSyn(entry: Entry, bytes: Uint8Array, from: Address): void {
    if (entry.kind !== "half_open") return this.drop("replay");
    if (!sameAddress(entry.peer, from)) return this.drop("address");
    if (!verifyHandshakeMac(this.#keys.syn, bytes, NO_BYTES)) return this.drop("mac");
    if (Buffer.compare(tagOf(bytes), entry.synTag) !== 0) return this.drop("replay");
    entry.bytesReceived += bytes.length;
    this.#sendSynAck(entry);
  }

  #sendRetry(syn: Uint8Array, guuid: Uint8Array, to: Address, now: number): void {
    const retry = new Uint8Array(HEADER_BYTES + TOKEN_BYTES + TAG_BYTES);
    writeHeader(retry, FLAG.SYN | FLAG.RST, guuid, readU32(syn, AT.sequence), 0, TOKEN_BYTES + TAG_BYTES);
    retry.set(this.#mint.make(guuid, to, now), HEADER_BYTES);
    const end = HEADER_BYTES + TOKEN_BYTES;
    retry.set(handshakeMac(this.#keys.retry, retry, end, tagOf(syn)), end);
    this.#retriesSent++;
    this.#respond(to, retry);
  }

  /** The first session packet at a server: if it opens, the peer holds the secret and is where it says. SPEC §2.6. */
  #onFirstPacket(halfOpen: HalfOpen, bytes: Uint8Array, blocks: number, now: number): void {
    halfOpen.bytesReceived += bytes.length;
    const plain = openPacket(halfOpen.opener, bytes, blocks);
    if (plain === undefined) return this.drop("authentication");
    this.#remove(halfOpen);
    const connection = this.#establish({
      handle: ++this.#handles,
      side: "server",
      guuid: halfOpen.guuid,
      peer: halfOpen.peer,
      sealer: halfOpen.sealer,
      opener: halfOpen.opener,
      peerParams: halfOpen.peerParams,
      rttMs: halfOpen.answers === 1 ? Math.max(now - halfOpen.answeredAt, 0.001) : undefined,
    }, now);
    connection.onPacket(bytes, blocks, plain, now);
    this.#watch(connection);
  }

  // ------------------------------------------------------------------ book-keeping

  #establish(setup: Omit<ConnectionSetup, "isLoopback">, now: number): Connection {
    const isLoopback = this.options.loopback && isLoopbackHost(setup.peer.hostname);
    const connection = new Connection(this, { ...setup, isLoopback }, now);
    this.#byHandle.set(connection.handle, connection);
    this.#add(connection);
    this.emit({ type: "connected", connection: setup.handle, side: setup.side, peer: setup.peer });
    this.wake(connection);
    return connection;
  }

  #connection(handle: ConnectionHandle): Connection | undefined {
    const entry = this.#byHandle.get(handle);
    return entry !== undefined && entry.kind === "connection" ? entry : undefined;
  }

  #add(entry: Entry): void {
    this.#table.add(entry);
    this.#entries.add(entry);
    this.#noteTimeout(entry.timeoutAt);
  }

  #remove(entry: Entry): void {
    this.#table.remove(entry);
    if (!this.#entries.delete(entry)) return;
    if (entry.kind === "half_open") this.#halfOpen--;
    else if (entry.kind === "farewell") this.#farewells.delete(entry);
  }

  #watch(connection: Connection): void {
    this.#noteTimeout(connection.timeoutAt);
  }

  #noteTimeout(at: number): void {
    if (at < this.#timeoutAt) this.#timeoutAt = at;
  }

  #respond(to: Address, bytes: Uint8Array): void {
    if (this.#responses.length < MAX_RESPONSES_QUEUED) this.#responses.push({ to, bytes });
  }

  #count(transmit: Transmit): Transmit {
    this.#datagramsSent++;
    this.#bytesSent += transmit.bytes.length;
    return transmit;
  }
}

function sameAddress(a: Address, b: Address): boolean {
  return a.port === b.port && a.hostname === b.hostname;
}

/** Whether both ends of a path to this host are on one machine. */
function isLoopbackHost(hostname: string): boolean {
  return hostname.startsWith("127.") || hostname === "::1";
}

/** Adds a connection's packets to a sum. */
function addPackets(sum: PacketCounts, stats: ConnectionStats): void {
  sum.packetsSent += stats.packetsSent;
  sum.packetsReceived += stats.packetsReceived;
  sum.packetsLost += stats.packetsLost;
  sum.packetsResent += stats.packetsResent;
}

/** The tag that ends a handshake datagram. */
function tagOf(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(bytes.length - TAG_BYTES);
}
