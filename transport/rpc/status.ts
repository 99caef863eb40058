/** The END frame and the codes of streams: SPEC §3.2, §5.4. */
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { FRAME, FRAME_HEADER_BYTES, type FrameWriter, MAX_END_BYTES, MAX_HEADER_BYTES } from "./frame.ts";
import { checkMetadata, readMetadata, writeMetadata } from "./metadata.ts";

/** How a call ended: 0 is success, the rest are gRPC's codes. */
export type StatusCode = 0 | Code;

/** Codes of `reset` and `stop` (SPEC §5.4). */
export const STREAM_CODE = { STOP_DONE: 0, CANCEL: 1, PROTOCOL: 2, REFUSED: 3 } as const;

const MAX_DETAILS = 255;
const MAX_TEXT_BYTES = 0xffff;

/** Bytes of an error's message that are kept when an END frame would be too long. */
const CUT_MESSAGE_BYTES = 1024;

/** Appends the END frame of a call that went well. */
export function writeOkEnd(writer: FrameWriter, trailers: Headers | undefined): void {
  const mark = writer.beginFrame(FRAME.END);
  if (trailers !== undefined) {
    writer.u8(0);
    writer.u16(0);
    writer.u8(0);
    writeMetadata(writer, trailers);
  }
  if (writer.endFrame(mark) > MAX_END_BYTES) {
    writer.truncate(mark);
    writeErrorEnd(
      writer,
      new ConnectError(`trailers are over the limit of ${MAX_END_BYTES} bytes`, Code.Internal),
      undefined,
    );
  }
}

/** Appends the END frame of a call that failed. What does not fit is left out: trailers first, then details, then the end
 *  of the message (SPEC §3.3). */
export function writeErrorEnd(writer: FrameWriter, error: ConnectError, trailers: Headers | undefined): void {
  const message = new TextEncoder().encode(error.rawMessage).subarray(0, MAX_TEXT_BYTES);
  const start = writer.length;
  const attempts: [Uint8Array, ConnectError["details"], HeadersInit[]][] = [
    [message, error.details, trailers === undefined ? [error.metadata] : [error.metadata, trailers]],
    [message, error.details, []],
    [message, [], []],
    [message.subarray(0, CUT_MESSAGE_BYTES), [], []],
  ];
  for (const [text, details, metadata] of attempts) {
    if (tryWriteEnd(writer, error.code, text, details, metadata)) return;
    writer.truncate(start);
  }
  throw new Error("unreachable: an END frame with a cut message always fits");
}

/** An END payload taken apart. */
export interface CallEnd {
  readonly code: StatusCode;
  readonly message: string;
  readonly details: { type: string; value: Uint8Array }[];
  /** The payload and where trailers begin in it. */
  readonly payload: Uint8Array;
  readonly metadataStart: number;
}

/** Takes an END payload apart; text says what is wrong with it. */
export function readEnd(payload: Uint8Array): CallEnd | string {
  if (payload.length === 0) return OK_END;
  if (payload.length < 4) return "end frame is cut short";
  const code = payload[0]!;
  if (code > Code.Unauthenticated) return `end frame has unknown code ${code}`;
  let at = 3 + u16(payload, 1);
  if (at >= payload.length) return "end frame is cut short";
  const message = decoder.decode(payload.subarray(3, at));
  const details: CallEnd["details"] = [];
  for (let left = payload[at++]!; left > 0; left--) {
    if (at + 2 > payload.length) return "end frame is cut short";
    const typeEnd = at + 2 + u16(payload, at);
    if (typeEnd + 4 > payload.length) return "end frame is cut short";
    const valueEnd = typeEnd + 4 + u32(payload, typeEnd);
    if (valueEnd > payload.length) return "end frame is cut short";
    details.push({
      type: decoder.decode(payload.subarray(at + 2, typeEnd)),
      value: payload.slice(typeEnd + 4, valueEnd),
    });
    at = valueEnd;
  }
  const wrong = checkMetadata(payload, at);
  return wrong ?? { code, message, details, payload, metadataStart: at };
}

/** The error that the caller sees, with response headers and trailers as its metadata. */
export function endToError(end: CallEnd, responseHeaders: Uint8Array | undefined): ConnectError {
  const metadata = new Headers();
  if (responseHeaders !== undefined) readMetadata(responseHeaders, 0, metadata);
  readMetadata(end.payload, end.metadataStart, metadata);
  const error = new ConnectError(end.message, end.code === 0 ? Code.Unknown : end.code, metadata);
  error.details = end.details;
  return error;
}

/** Appends a HEADERS frame. @throws {RangeError} when it is over the bound. */
export function writeHeaders(writer: FrameWriter, headers: Headers): void {
  const mark = writer.beginFrame(FRAME.HEADERS);
  writeMetadata(writer, headers);
  if (writer.endFrame(mark) > MAX_HEADER_BYTES) {
    throw new RangeError(`response headers are over the limit of ${MAX_HEADER_BYTES} bytes`);
  }
}

function tryWriteEnd(
  writer: FrameWriter,
  code: Code,
  message: Uint8Array,
  details: ConnectError["details"],
  metadata: HeadersInit[],
): boolean {
  const mark = writer.beginFrame(FRAME.END);
  writer.u8(code);
  writer.u16(message.length);
  writer.bytes(message);
  const count = Math.min(details.length, MAX_DETAILS);
  writer.u8(count);
  for (let i = 0; i < count; i++) {
    const detail = details[i]!;
    const type = new TextEncoder().encode("desc" in detail ? detail.desc.typeName : detail.type);
    const value = "desc" in detail ? toBinary(detail.desc, create(detail.desc, detail.value)) : detail.value;
    if (type.length > MAX_TEXT_BYTES || value.length > MAX_END_BYTES) return false;
    writer.u16(type.length);
    writer.bytes(type);
    writer.u32(value.length);
    writer.bytes(value);
  }
  try {
    for (const headers of metadata) writeMetadata(writer, headers);
  } catch (error) {
    // Metadata that cannot be sent must not hide the error it came with; the next attempt goes without.
    if (error instanceof RangeError || error instanceof TypeError) return false;
    throw error;
  }
  return writer.endFrame(mark) <= MAX_END_BYTES && writer.length - mark > FRAME_HEADER_BYTES;
}

function u16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 0x10000 + u16(bytes, at + 2);
}

const decoder = new TextDecoder();
const OK_END: CallEnd = {
  code: 0,
  message: "",
  details: [],
  payload: new Uint8Array(0),
  metadataStart: 0,
};
