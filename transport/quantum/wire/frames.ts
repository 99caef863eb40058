/** The frames of SPEC §4. Writers put one frame at an offset and return the offset behind it; the reader walks a payload
 *  and leaves each frame's fields in itself, so that neither allocates. */

import { varintBytes, VarintReader, writeVarint } from "./varint.ts";

/** Frame types. STREAM has two low bits: 1 = fin, 2 = an offset follows. */
export const FRAME = {
  PADDING: 0x00,
  PING: 0x01,
  ACK_DELAY: 0x02,
  ACK_FLOOR: 0x03,
  RESET: 0x04,
  STOP: 0x05,
  MAX_DATA: 0x06,
  MAX_STREAM_DATA: 0x07,
  MAX_STREAMS: 0x08,
  CLOSE: 0x09,
  DATAGRAM: 0x0a,
  STREAM: 0x10,
} as const;

/** Bit of a STREAM frame's type: these are the stream's last bytes. */
export const STREAM_FIN = 0x01;
/** Bit of a STREAM frame's type: an offset field follows the id. Without it the offset is 0. */
export const STREAM_OFFSET = 0x02;

/** FrameReader.next(): the payload is used up. */
export const END_OF_FRAMES = -1;
/** FrameReader.next(): the frame is malformed, or of an unknown type. */
export const BAD_FRAME = -2;

/** Largest bytes that a frame without data can take: type and three varints. */
export const CONTROL_FRAME_BYTES_MAX = 25;

/** Bytes of a STREAM frame's header. */
export function streamHeaderBytes(id: number, offset: number, dataBytes: number): number {
  return 1 + varintBytes(id) + (offset === 0 ? 0 : varintBytes(offset)) + varintBytes(dataBytes);
}

/** Writes a STREAM frame's header; the data goes behind it. */
export function writeStreamHeader(
  bytes: Uint8Array,
  at: number,
  id: number,
  offset: number,
  dataBytes: number,
  fin: boolean,
): number {
  bytes[at] = FRAME.STREAM | (fin ? STREAM_FIN : 0) | (offset === 0 ? 0 : STREAM_OFFSET);
  at = writeVarint(bytes, at + 1, id);
  if (offset !== 0) at = writeVarint(bytes, at, offset);
  return writeVarint(bytes, at, dataBytes);
}

/** Writes a frame of one field: ACK_DELAY, ACK_FLOOR, MAX_DATA, MAX_STREAMS. */
export function writeFrame1(bytes: Uint8Array, at: number, type: number, a: number): number {
  bytes[at] = type;
  return writeVarint(bytes, at + 1, a);
}

/** Writes a frame of two fields: STOP, MAX_STREAM_DATA. */
export function writeFrame2(bytes: Uint8Array, at: number, type: number, a: number, b: number): number {
  bytes[at] = type;
  return writeVarint(bytes, writeVarint(bytes, at + 1, a), b);
}

/** Writes a RESET frame. */
export function writeReset(
  bytes: Uint8Array,
  at: number,
  id: number,
  code: number,
  finalSize: number,
): number {
  return writeVarint(bytes, writeFrame2(bytes, at, FRAME.RESET, id, code), finalSize);
}

/** Writes a CLOSE frame. */
export function writeClose(bytes: Uint8Array, at: number, code: number, reason: Uint8Array): number {
  at = writeFrame2(bytes, at, FRAME.CLOSE, code, reason.length);
  bytes.set(reason, at);
  return at + reason.length;
}

/** Writes a DATAGRAM frame. */
export function writeDatagram(bytes: Uint8Array, at: number, data: Uint8Array): number {
  at = writeFrame1(bytes, at, FRAME.DATAGRAM, data.length);
  bytes.set(data, at);
  return at + data.length;
}

/** Walks the frames of one payload. After `next()` gave a type, the fields that the type has are set. */
export class FrameReader {
  readonly #in = new VarintReader();
  /** Stream id of STREAM, RESET, STOP, MAX_STREAM_DATA. */
  stream = 0;
  /** Offset of STREAM. */
  offset = 0;
  /** Last bytes: STREAM. */
  fin = false;
  /** µs of ACK_DELAY, packet number of ACK_FLOOR, limit of MAX_*, code of RESET, STOP, CLOSE. */
  value = 0;
  /** Final size of RESET. */
  finalSize = 0;
  /** Where the data of STREAM and DATAGRAM, or the reason of CLOSE, lies in the payload. */
  dataStart = 0;
  dataEnd = 0;

  /** Starts over on `payload[0..end)`. */
  reset(payload: Uint8Array, end: number): void {
    this.#in.reset(payload, 0, end);
  }

  /** Reads one frame. Returns its type (STREAM's without the low bits), END_OF_FRAMES or BAD_FRAME. Runs of PADDING count
   *  as one frame. */
  next(): number {
    const input = this.#in;
    if (input.at >= input.end) return END_OF_FRAMES;
    const type = input.bytes[input.at++]!;
    if ((type & 0xfc) === FRAME.STREAM) {
      this.stream = input.varint();
      this.offset = (type & STREAM_OFFSET) === 0 ? 0 : input.varint();
      this.fin = (type & STREAM_FIN) !== 0;
      this.#data();
      return input.failed || this.offset + this.dataEnd - this.dataStart > Number.MAX_SAFE_INTEGER
        ? BAD_FRAME
        : FRAME.STREAM;
    }
    switch (type) {
      case FRAME.PADDING:
        while (input.at < input.end && input.bytes[input.at] === 0) input.at++;
        return type;
      case FRAME.PING:
        return type;
      case FRAME.ACK_DELAY:
      case FRAME.ACK_FLOOR:
      case FRAME.MAX_DATA:
      case FRAME.MAX_STREAMS:
        this.value = input.varint();
        break;
      case FRAME.STOP:
      case FRAME.MAX_STREAM_DATA:
        this.stream = input.varint();
        this.value = input.varint();
        break;
      case FRAME.RESET:
        this.stream = input.varint();
        this.value = input.varint();
        this.finalSize = input.varint();
        break;
      case FRAME.CLOSE:
        this.value = input.varint();
        this.#data();
        break;
      case FRAME.DATAGRAM:
        this.#data();
        break;
      default:
        return BAD_FRAME;
    }
    return input.failed ? BAD_FRAME : type;
  }

  #data(): void {
    const count = this.#in.varint();
    this.dataStart = this.#in.skip(count);
    this.dataEnd = this.#in.at;
  }
}
