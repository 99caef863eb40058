/** gRPC's header fields as text. */

const UNITS_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};
const TIMEOUT = /^(\d{1,8})([HMSmun])$/;

/** Milliseconds of a `grpc-timeout`; undefined when it is not well-formed. */
export function parseTimeout(text: string): number | undefined {
  const match = TIMEOUT.exec(text);
  return match === null ? undefined : Number(match[1]) * UNITS_MS[match[2]!]!;
}

const UNSAFE = /^ | $|[^\x20-\x24\x26-\x7e]/;
const encoder = new TextEncoder();

/** A status message as `grpc-message` has it: UTF-8 whose bytes outside printable ASCII, and `%`, are percent-encoded, and
 *  blanks at its ends, where a field value may have none. */
export function encodeStatusMessage(text: string): string {
  if (!UNSAFE.test(text)) return text;
  let out = "";
  const bytes = encoder.encode(text);
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!;
    const isEdge = i === 0 || i === bytes.length - 1;
    out += byte >= (isEdge ? 0x21 : 0x20) && byte <= 0x7e && byte !== 0x25
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

/** True for the content types of gRPC with protobuf messages. */
export function isGrpc(contentType: unknown): boolean {
  return contentType === "application/grpc" ||
    (typeof contentType === "string" && /^application\/grpc(\+proto)?(;|$)/.test(contentType));
}
