/** How calls end: gRPC's codes, and what of HTTP/2 stands for which. */
import type { ResetCause } from "../http2/stream.ts";
import { ERROR } from "../http2/errors.ts";
import { valueOf } from "../http2/fields.ts";
import type { ResponseHead } from "../http2/response.ts";

/** gRPC's codes. */
export const GRPC = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

/** How a call ended. */
export interface GrpcStatus {
  /** One of GRPC, or what else the server said. */
  readonly code: number;
  /** The server's text, or what the client has to say. */
  readonly message: string;
  /** What the server sent behind its last message, its status included: name, value, name, value … */
  readonly trailers: readonly string[];
  /** True when the request certainly did not reach a server that looked at it: it may be sent again. */
  readonly isUnsent: boolean;
}

/** A call that did not end well. */
export class GrpcError extends Error implements GrpcStatus {
  override readonly name = "GrpcError";
  readonly code: number;
  readonly trailers: readonly string[];
  readonly isUnsent: boolean;

  constructor({ code, message, trailers, isUnsent }: GrpcStatus) {
    super(message);
    this.code = code;
    this.trailers = trailers;
    this.isUnsent = isUnsent;
  }
}

/** A status of the client's own. */
export function ownStatus(code: number, message: string, isUnsent = false): GrpcStatus {
  return { code, message, trailers: NO_FIELDS, isUnsent };
}

/** The status that the server put behind its last message; undefined when there is none. */
export function statusOf(fields: readonly string[]): GrpcStatus | undefined {
  const text = valueOf(fields, "grpc-status");
  if (text === undefined) return undefined;
  const message = decodeStatusMessage(valueOf(fields, "grpc-message") ?? "");
  if (!/^\d{1,4}$/.test(text)) {
    return {
      code: GRPC.UNKNOWN,
      message: `the server sent no status but ${text}`,
      trailers: fields,
      isUnsent: false,
    };
  }
  return { code: Number(text), message, trailers: fields, isUnsent: false };
}

/** The status of an answer that is not gRPC's; undefined when its head is in order. */
export function statusOfHead(head: ResponseHead): GrpcStatus | undefined {
  if (head.status !== 200) {
    const code = CODE_OF_STATUS.get(head.status) ?? GRPC.UNKNOWN;
    return ownStatus(code, `unexpected HTTP status code received from server: ${head.status}`);
  }
  const type = head.get("content-type");
  if (type !== undefined && /^application\/grpc(\+|;|$)/.test(type)) return undefined;
  return ownStatus(GRPC.UNKNOWN, `received unexpected content-type ${JSON.stringify(type ?? "")}`);
}

/** The status of a call whose stream was reset. `lost` says what became of the connection. */
export function statusOfReset(code: number, cause: ResetCause, lost: string): GrpcStatus {
  switch (cause) {
    case "connection":
      return ownStatus(GRPC.UNAVAILABLE, `the connection was lost: ${lost}`);
    case "unprocessed":
      return ownStatus(GRPC.UNAVAILABLE, "the server did not take the call", true);
    case "mistake":
      return code === ERROR.ENHANCE_YOUR_CALM
        ? ownStatus(GRPC.RESOURCE_EXHAUSTED, "the server sent more header fields than are taken")
        : ownStatus(GRPC.INTERNAL, `the server's answer breaks HTTP/2 (code ${code})`);
    case "peer": {
      const text = `the server reset the stream with code ${code}`;
      return ownStatus(CODE_OF_RESET.get(code) ?? GRPC.INTERNAL, text);
    }
  }
}

/** What HTTP says in place of a gRPC server, as gRPC's table of them has it. */
const CODE_OF_STATUS: ReadonlyMap<number, number> = new Map([
  [400, GRPC.INTERNAL],
  [401, GRPC.UNAUTHENTICATED],
  [403, GRPC.PERMISSION_DENIED],
  [404, GRPC.UNIMPLEMENTED],
  [429, GRPC.UNAVAILABLE],
  [502, GRPC.UNAVAILABLE],
  [503, GRPC.UNAVAILABLE],
  [504, GRPC.UNAVAILABLE],
]);

const CODE_OF_RESET: ReadonlyMap<number, number> = new Map([
  [ERROR.CANCEL, GRPC.CANCELLED],
  [ERROR.ENHANCE_YOUR_CALM, GRPC.RESOURCE_EXHAUSTED],
  [ERROR.INADEQUATE_SECURITY, GRPC.PERMISSION_DENIED],
]);

const decoder = new TextDecoder();

/** A `grpc-message` as text: UTF-8, whose bytes may be percent-encoded. What is not is left as it is. */
export function decodeStatusMessage(field: string): string {
  if (!/[%\x80-\xff]/.test(field)) return field;
  const bytes = new Uint8Array(field.length);
  let length = 0;
  for (let at = 0; at < field.length; at++) {
    const hex = field.charCodeAt(at) === 0x25 ? field.slice(at + 1, at + 3) : "";
    if (/^[0-9a-fA-F]{2}$/.test(hex)) {
      bytes[length++] = Number.parseInt(hex, 16);
      at += 2;
    } else bytes[length++] = field.charCodeAt(at);
  }
  return decoder.decode(bytes.subarray(0, length));
}

/** Time that is left as `grpc-timeout` has it: at most 8 digits, rounded up so that the server is not ahead of its client. */
export function encodeTimeout(leftMs: number): string {
  const ms = Math.max(1, Math.ceil(leftMs));
  if (ms < 1e8) return `${ms}m`;
  const seconds = Math.ceil(ms / 1_000);
  return seconds < 1e8 ? `${seconds}S` : "99999999H";
}

const NO_FIELDS: readonly string[] = [];
