/** Transport parameters of the handshake. SPEC §2.14. */

import { BASE_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES } from "../params.ts";
import { VarintReader, writeVarint } from "./varint.ts";

/** What one end tells the other about itself. */
export interface TransportParams {
  /** Bytes the peer may send on all streams before more credit comes. */
  readonly connectionWindowBytes: number;
  /** Bytes the peer may send on each stream before more credit comes. */
  readonly streamWindowBytes: number;
  /** Streams the peer may open before more credit comes. */
  readonly streamsOpenMax: number;
  /** Silence after which this end gives up; 0 = never. */
  readonly idleTimeoutMs: number;
  /** Largest datagram this end takes. */
  readonly datagramBytesMax: number;
  /** What this end's socket buffer is trusted to hold. SPEC §7.6. */
  readonly socketBudgetBytes: number;
  /** Longest time this end delays an acknowledgement. */
  readonly ackDelayMaxMs: number;
}

const FIELDS: readonly {
  readonly name: keyof TransportParams;
  readonly min: number;
  readonly max: number;
  readonly absent: number;
}[] = [
  { name: "connectionWindowBytes", min: 0, max: 2 ** 40, absent: 0 },
  { name: "streamWindowBytes", min: 0, max: 2 ** 40, absent: 0 },
  { name: "streamsOpenMax", min: 0, max: 2 ** 20, absent: 0 },
  { name: "idleTimeoutMs", min: 0, max: 3_600_000, absent: 0 },
  {
    name: "datagramBytesMax",
    min: BASE_DATAGRAM_BYTES,
    max: MAX_DATAGRAM_BYTES,
    absent: BASE_DATAGRAM_BYTES,
  },
  { name: "socketBudgetBytes", min: 4096, max: 2 ** 31, absent: 65_536 },
  { name: "ackDelayMaxMs", min: 0, max: 1000, absent: 25 },
];

/** Bytes that the parameters take at most: an id byte and an eight-byte value each, and the end. */
export const TRANSPORT_PARAMS_BYTES_MAX = FIELDS.length * 9 + 1;

/** Writes all parameters and the end mark; returns the offset behind it. */
export function writeTransportParams(bytes: Uint8Array, at: number, params: TransportParams): number {
  FIELDS.forEach((field, index) => {
    bytes[at] = index + 1;
    at = writeVarint(bytes, at + 1, params[field.name]);
  });
  bytes[at] = 0;
  return at + 1;
}

/** Reads parameters from `bytes[at..end)`; undefined if malformed or out of range. The last of repeated ids wins. */
export function readTransportParams(bytes: Uint8Array, at: number, end: number): TransportParams | undefined {
  const values = FIELDS.map((field) => field.absent);
  const reader = new VarintReader();
  reader.reset(bytes, at, end);
  for (;;) {
    const id = reader.varint();
    if (reader.failed) return undefined;
    if (id === 0) break;
    const value = reader.varint();
    if (reader.failed) return undefined;
    const field = FIELDS[id - 1];
    if (field === undefined) continue;
    if (value < field.min || value > field.max) return undefined;
    values[id - 1] = value;
  }
  return Object.fromEntries(
    FIELDS.map((field, index) => [field.name, values[index]!]),
  ) as unknown as TransportParams;
}
