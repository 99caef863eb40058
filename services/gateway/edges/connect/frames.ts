/** What bodies of streams are made of: envelopes (a flag byte, four bytes of length, the message) and what ends them. */
import { prefixOf } from "../../../../transport/grpc/message_reader.ts";
import { joinBytes } from "../../../runtime/bytes.ts";
import { GatewayError } from "../../problem.ts";
import { encodeStatusMessage } from "../grpc/headers.ts";
import { errorValue, statusDetails } from "./failure.ts";
import type { CallHead } from "./head.ts";

/** Flag of the envelope that ends a stream of the Connect protocol, and of gRPC-Web's trailers. */
const FLAG_CONNECT_END = 0x02;
const FLAG_TRAILERS = 0x80;

const encoder = new TextEncoder();

/** Metadata that would say what only the answer itself can. */
const RESERVED =
  /^(?:content-|connect-|grpc-|trailer|transfer-encoding$|connection$|te$|upgrade$|keep-alive$)/;

/** The service's metadata that is passed on. */
export function* passedOn(metadata: Headers | undefined): Generator<[name: string, value: string]> {
  if (metadata === undefined) return;
  for (const entry of metadata) if (!RESERVED.test(entry[0])) yield entry;
}

/** One message in its envelope. */
export function envelope(message: Uint8Array, isText: boolean): Uint8Array<ArrayBuffer> {
  return framed(0, message, isText);
}

/** The envelope that ends an answer: well, or with an error. */
export function endOf(
  head: CallHead,
  error: GatewayError | undefined,
  requestId: string,
  trailers: Headers | undefined,
): Uint8Array<ArrayBuffer> {
  if (head.protocol === "connect_stream") {
    const end: Record<string, unknown> = {};
    if (error !== undefined) end.error = errorValue(error, requestId);
    const metadata = [...passedOn(trailers)].map(([name, value]) => [name, [value]]);
    if (metadata.length > 0) end.metadata = Object.fromEntries(metadata);
    return framed(FLAG_CONNECT_END, encoder.encode(JSON.stringify(end)), false);
  }
  let text = `grpc-status: ${error?.grpcCode ?? 0}\r\n`;
  if (error !== undefined) {
    text += `grpc-message: ${encodeStatusMessage(error.message)}\r\n`;
    const details = statusDetails(error, requestId);
    if (details !== undefined) text += `grpc-status-details-bin: ${details}\r\n`;
  }
  for (const [name, value] of passedOn(trailers)) text += `${name}: ${value}\r\n`;
  return framed(FLAG_TRAILERS, encoder.encode(text), head.isText);
}

function framed(flag: number, content: Uint8Array, isText: boolean): Uint8Array<ArrayBuffer> {
  const prefix = prefixOf(content);
  prefix[0] = flag;
  const frame = new Uint8Array(prefix.length + content.length);
  frame.set(prefix);
  frame.set(content, prefix.length);
  // Each piece is padded on its own, as clients of this form expect of a body that goes on.
  return isText ? encoder.encode(frame.toBase64()) : frame;
}

/** Decodes a body that is base64, piece by piece; pieces of it may be padded each on its own. */
export class TextBody {
  #rest = "";

  /** The bytes that are whole now. @throws {GatewayError} `invalid_argument` for what is no base64. */
  push(chunk: Uint8Array): Uint8Array<ArrayBuffer> {
    const text = this.#rest + latin1.decode(chunk);
    const whole = text.length - text.length % 4;
    this.#rest = text.slice(whole);
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < whole;) {
      const padding = text.indexOf("=", at);
      const end = padding < 0 || padding >= whole ? whole : padding + 4 - padding % 4;
      pieces.push(decodeBase64(text.slice(at, end)));
      at = end;
    }
    return joinBytes(pieces);
  }

  /** Whether the body may not end here. */
  get isPartial(): boolean {
    return this.#rest !== "";
  }
}

const latin1 = new TextDecoder("latin1");

/** The bytes of a base64 text, in either alphabet, padded or not. @throws {GatewayError} `invalid_argument`. */
export function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const alphabet = /[-_]/.test(text) ? "base64url" : "base64";
  try {
    return Uint8Array.fromBase64(text, { alphabet });
  } catch (error) {
    throw new GatewayError("invalid_argument", `what should be base64 is not: ${(error as Error).message}`);
  }
}
