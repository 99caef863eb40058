/** The CALL frame: SPEC §2.2. */
import { Code } from "@connectrpc/connect";
import { FRAME, FRAME_HEADER_BYTES, type FrameWriter, MAX_HEADER_BYTES } from "./frame.ts";
import { checkMetadata, writeMetadata } from "./metadata.ts";

/** First byte of every call: the version of this format. */
export const RPC_VERSION = 1;

const FLAG_DEADLINE = 0x01;
const FLAG_METADATA = 0x02;
const KNOWN_FLAGS = FLAG_DEADLINE | FLAG_METADATA;

/** Longest deadline that fits its field, some 49 days; longer ones are sent as this. */
export const MAX_DEADLINE_MS = 0xffff_ffff;

const MAX_PATH_BYTES = 255;

/** Path of a method as bytes: `/pkg.Service/Method`. @throws {RangeError} when it is over 255 characters. */
export function pathBytes(path: string): Uint8Array {
  if (path.length > MAX_PATH_BYTES) {
    throw new RangeError(`method path is over ${MAX_PATH_BYTES} bytes: ${path}`);
  }
  return new TextEncoder().encode(path);
}

/** Appends a CALL frame. `remainingMs` undefined is no deadline.
 *  @throws {TypeError} or {RangeError} on headers that cannot be sent. */
export function writeCall(
  writer: FrameWriter,
  path: Uint8Array,
  remainingMs: number | undefined,
  headers: HeadersInit | undefined,
): void {
  const mark = writer.beginFrame(FRAME.CALL);
  writer.u8(RPC_VERSION);
  writer.u8((remainingMs === undefined ? 0 : FLAG_DEADLINE) | (headers === undefined ? 0 : FLAG_METADATA));
  writer.u8(path.length);
  writer.bytes(path);
  if (remainingMs !== undefined) {
    writer.u32(Math.min(MAX_DEADLINE_MS, Math.max(0, Math.ceil(remainingMs))));
  }
  if (headers !== undefined) writeMetadata(writer, headers);
  if (writer.endFrame(mark) > MAX_HEADER_BYTES) {
    throw new RangeError(
      `request headers have ${writer.length - mark - FRAME_HEADER_BYTES} bytes, limit ${MAX_HEADER_BYTES}`,
    );
  }
}

/** A CALL payload taken apart; offsets are into the payload. */
export interface CallHeader {
  readonly pathStart: number;
  readonly pathEnd: number;
  /** Time that is left, in ms; undefined without a deadline. */
  readonly remainingMs: number | undefined;
  /** Where metadata begins; equals the payload's length when there is none. */
  readonly metadataStart: number;
}

/** Why a CALL frame was refused. */
export interface CallRefusal {
  readonly code: Code;
  readonly message: string;
}

/** Takes a CALL payload apart; a refusal has a `code`. */
export function readCall(payload: Uint8Array): CallHeader | CallRefusal {
  if (payload.length < 3) return invalid("call header is cut short");
  if (payload[0] !== RPC_VERSION) {
    return { code: Code.Unimplemented, message: `RPC version ${payload[0]} is not known, ${RPC_VERSION} is` };
  }
  const flags = payload[1]!;
  if ((flags & ~KNOWN_FLAGS) !== 0) return invalid(`call header has unknown flags ${flags}`);
  const pathStart = 3;
  const pathEnd = pathStart + payload[2]!;
  let at = pathEnd;
  let remainingMs: number | undefined;
  if ((flags & FLAG_DEADLINE) !== 0) {
    at += 4;
    if (at <= payload.length) {
      remainingMs = payload[pathEnd]! * 0x1000000 +
        ((payload[pathEnd + 1]! << 16) | (payload[pathEnd + 2]! << 8) | payload[pathEnd + 3]!);
    }
  }
  if (at > payload.length) return invalid("call header is cut short");
  if ((flags & FLAG_METADATA) === 0) {
    if (at !== payload.length) return invalid("call header is too long");
  } else {
    const wrong = checkMetadata(payload, at);
    if (wrong !== undefined) return invalid(wrong);
  }
  return { pathStart, pathEnd, remainingMs, metadataStart: at };
}

function invalid(message: string): CallRefusal {
  return { code: Code.InvalidArgument, message };
}
