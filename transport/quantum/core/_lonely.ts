/** One established connection without a socket or a peer, for tests: packets go in already opened. */

import type { QuantumEvent } from "../types.ts";
import {
  FLAG,
  HEADER_BYTES,
  readU32,
  SACK_BLOCK_BYTES,
  TAG_BYTES,
  writeHeader,
  writeU32,
} from "../wire/header.ts";
import type { TransportParams } from "../wire/transport_params.ts";
import { Connection, type ConnectionEnd, type ConnectionOwner, openPacket } from "./connection.ts";
import { PacketCipher } from "./keys.ts";
import { type QuantumOptions, resolveOptions } from "./options.ts";

/** A server's connection whose client is the test. */
export class Lonely {
  readonly events: QuantumEvent[] = [];
  readonly connection: Connection;
  end: ConnectionEnd | undefined;
  /** Number of the next packet that the test sends. */
  sequence = 0;
  readonly #opener = new PacketCipher(KEYS);

  constructor(options: Partial<QuantumOptions> = {}, peerParams: Partial<TransportParams> = {}) {
    const owner: ConnectionOwner = {
      options: resolveOptions({ secret: new Uint8Array(32), acceptConnections: true, ...options }),
      scratch: new Uint8Array(65_507),
      allocate: (bytes) => new Uint8Array(bytes),
      emit: (event) => void this.events.push(event),
      drop: () => {},
      wake: () => {},
      over: (_, end) => this.end = end,
    };
    this.connection = new Connection(owner, {
      handle: 1,
      side: "server",
      guuid: new Uint8Array(16),
      peer: { hostname: "10.0.0.1", port: 1 },
      isLoopback: false,
      sealer: new PacketCipher(KEYS),
      opener: new PacketCipher(KEYS),
      peerParams: {
        connectionWindowBytes: 100_000,
        streamWindowBytes: 50_000,
        streamsOpenMax: 64,
        idleTimeoutMs: 30_000,
        datagramBytesMax: 1200,
        socketBudgetBytes: 65_536,
        ackDelayMaxMs: 8,
        ...peerParams,
      },
      rttMs: 10,
    }, 0);
  }

  /** Delivers a payload that acknowledges everything below `ack`, and the blocks. */
  receive(payload: Uint8Array, now = 0, ack = 0, blocks: readonly (readonly [number, number])[] = []): void {
    const sackAt = HEADER_BYTES + payload.length + TAG_BYTES;
    const bytes = new Uint8Array(sackAt + SACK_BLOCK_BYTES * blocks.length);
    writeHeader(bytes, FLAG.ACK, new Uint8Array(16), this.sequence++, ack, payload.length + TAG_BYTES);
    blocks.forEach(([start, end], i) => {
      writeU32(bytes, sackAt + 8 * i, start);
      writeU32(bytes, sackAt + 8 * i + 4, end);
    });
    this.connection.onPacket(bytes, blocks.length, payload, now);
  }

  /** Everything that the connection sends now, opened. */
  sent(
    now = 0,
  ): {
    readonly sequence: number;
    readonly flags: number;
    readonly bytes: number;
    readonly plain: Uint8Array;
  }[] {
    const out = [];
    for (
      let next = this.connection.pollTransmit(now);
      next !== undefined;
      next = this.connection.pollTransmit(now)
    ) {
      const blocks = (next.length - HEADER_BYTES - (next[30]! << 8 | next[31]!)) / SACK_BLOCK_BYTES;
      const plain = openPacket(this.#opener, next, blocks)!;
      out.push({ sequence: readU32(next, 22), flags: next[5]!, bytes: next.length, plain });
    }
    return out;
  }
}

const KEYS = { key: new Uint8Array(32), iv: new Uint8Array(12) };
