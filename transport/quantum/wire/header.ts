/** The header of SPEC §1: fixed offsets, read and written in place. */

import { MAX_DATAGRAM_BYTES, MAX_SACK_BLOCKS } from "../params.ts";

/** Bytes before the payload. */
export const HEADER_BYTES = 32;
/** Bytes of the tag that ends every payload. */
export const TAG_BYTES = 16;
/** Bytes of one SACK block. */
export const SACK_BLOCK_BYTES = 8;
/** Bytes of a connection GUUID. */
export const GUUID_BYTES = 16;
/** The only version spoken. */
export const VERSION = 2;

/** Flag bits of the header. FEC, URG and ECE are reserved: SPEC §12. */
export const FLAG = {
  SYN: 0x01,
  ACK: 0x02,
  FIN: 0x04,
  RST: 0x08,
  FEC: 0x10,
  PSH: 0x20,
  URG: 0x40,
  ECE: 0x80,
} as const;

/** Offsets of the header's fields. */
export const AT = { flags: 5, guuid: 6, sequence: 22, ack: 26, payloadBytes: 30 } as const;

/** What a datagram is, by its flags. SPEC §1.4. */
export type DatagramKind = "syn" | "synack" | "retry" | "reset" | "session";

/** Says what kind of datagram has these flags, or undefined if none has. */
export function kindOfFlags(flags: number): DatagramKind | undefined {
  if ((flags & ~(FLAG.PSH | FLAG.FIN)) === FLAG.ACK) return "session";
  if (flags === FLAG.SYN) return "syn";
  if (flags === (FLAG.SYN | FLAG.ACK)) return "synack";
  if (flags === (FLAG.SYN | FLAG.RST)) return "retry";
  if (flags === FLAG.RST) return "reset";
  return undefined;
}

/** Checks magic, version and lengths. Returns the number of SACK blocks, or why the datagram is no good. SPEC §1.1-§1.3. */
export function checkHeader(bytes: Uint8Array): number | "malformed" | "version" {
  const length = bytes.length;
  if (length < HEADER_BYTES + TAG_BYTES || length > MAX_DATAGRAM_BYTES) return "malformed";
  if (
    bytes[0] !== 0x51 || bytes[1] !== 0x55 || bytes[2] !== 0x4e || bytes[3] !== 0x54 || bytes[4] !== VERSION
  ) return "version";
  const payloadBytes = readU16(bytes, AT.payloadBytes);
  if (payloadBytes < TAG_BYTES) return "malformed";
  const sackBytes = length - HEADER_BYTES - payloadBytes;
  if (sackBytes < 0 || sackBytes % SACK_BLOCK_BYTES !== 0) return "malformed";
  const blocks = sackBytes / SACK_BLOCK_BYTES;
  return blocks > MAX_SACK_BLOCKS ? "malformed" : blocks;
}

/** Writes a whole header at the start of `bytes`. `guuid` is 16 bytes, `sequence` and `ack` are 32-bit, `payloadBytes` 16-bit. */
export function writeHeader(
  bytes: Uint8Array,
  flags: number,
  guuid: Uint8Array,
  sequence: number,
  ack: number,
  payloadBytes: number,
): void {
  bytes[0] = 0x51;
  bytes[1] = 0x55;
  bytes[2] = 0x4e;
  bytes[3] = 0x54;
  bytes[4] = VERSION;
  bytes[AT.flags] = flags;
  for (let i = 0; i < GUUID_BYTES; i++) bytes[AT.guuid + i] = guuid[i]!;
  writeU32(bytes, AT.sequence, sequence);
  writeU32(bytes, AT.ack, ack);
  bytes[AT.payloadBytes] = payloadBytes >>> 8;
  bytes[AT.payloadBytes + 1] = payloadBytes;
}

/** Says whether the GUUID field of the datagram is `guuid`. */
export function guuidEquals(bytes: Uint8Array, guuid: Uint8Array): boolean {
  // From the end: the last bytes are the random ones, the first are a time that neighbours share.
  for (let i = GUUID_BYTES - 1; i >= 0; i--) if (bytes[AT.guuid + i] !== guuid[i]) return false;
  return true;
}

/** Reads 16 bits, big-endian. */
export function readU16(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

/** Reads 32 bits, big-endian, as 0..2^32-1. */
export function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
}

/** Writes 32 bits, big-endian. */
export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
