/** Messages of the hub's protocol: `{id, type, timestamp, data, request_id, error}`. Pure. */
import { type GatewayError, problemOf } from "../problem.ts";

/** Types that a client may send. */
export const CLIENT_TYPES = [
  "ping",
  "pong",
  "auth",
  "subscribe",
  "unsubscribe",
  "publish",
  "history",
  "presence",
  "operation",
] as const;
/** Type of a client's message. */
export type ClientType = typeof CLIENT_TYPES[number];

/** Types that the hub sends. */
export const SERVER_TYPES = [
  "pong",
  "auth_result",
  "subscribe",
  "unsubscribe",
  "publish",
  "history",
  "presence",
  "operation",
  "notify",
  "error",
] as const;
/** Type of a message of the hub. */
export type ServerType = typeof SERVER_TYPES[number];

/** Longest id of a client's message, in characters. It comes back as `request_id`. */
const ID_CHARS_MAX = 128;

/** A message of a client. */
export interface ClientMessage {
  /** "" when it has none. */
  readonly id: string;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Reads a message; undefined when it is none. */
export function parseMessage(text: string): ClientMessage | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value)) return undefined;
  const { id = "", type, data = {} } = value;
  if (typeof type !== "string") return undefined;
  if (typeof id !== "string" || id.length > ID_CHARS_MAX) return undefined;
  if (data !== null && !isObject(data)) return undefined;
  return { id, type, data: data ?? {} };
}

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What messages of the hub are given: an id of their own, and the time. */
export interface Stamp {
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  /** RFC 3339. */
  readonly at: string;
}

/** A message of the hub. `data` is JSON. */
export function encodeMessage(type: ServerType, stamp: Stamp, requestId: string, data: string): string {
  return `${head(type, stamp)}${answers(requestId)},"data":${data}}`;
}

/** An error, with the fields of a problem body. `hintMs`: when the client had better come back. */
export function encodeError(
  error: GatewayError,
  stamp: Stamp,
  requestId: string,
  hintMs: number | undefined,
): string {
  const data = {
    ...problemOf(error, stamp.id),
    ...error.retryAfterS === undefined ? {} : { retry_after_ms: error.retryAfterS * 1_000 },
    ...hintMs === undefined ? {} : { reconnect_after_ms: hintMs },
  };
  const told = `,"error":${JSON.stringify(error.message)},"code":"${error.code}","data":${
    JSON.stringify(data)
  }}`;
  return `${head("error", stamp)}${answers(requestId)}${told}`;
}

/** A message of a channel, the same for everybody. `data` is JSON. */
export function encodeNotify(
  stamp: Stamp,
  channel: string,
  event: string,
  data: string,
  epoch: string,
  offset: number,
): string {
  return `${head("notify", stamp)},"data":{"channel":${JSON.stringify(channel)},"event":${
    JSON.stringify(event)
  }` +
    `,"data":${data},"offset":${offset},"epoch":${JSON.stringify(epoch)}}}`;
}

function head(type: ServerType, { id, at }: Stamp): string {
  return `{"id":"${id}","type":"${type}","timestamp":"${at}"`;
}

function answers(requestId: string): string {
  return requestId === "" ? "" : `,"request_id":${JSON.stringify(requestId)}`;
}
