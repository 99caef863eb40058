/** Names of channels, and what they stand for. A name is itself and nothing else: no escapes, no patterns, no normal forms. */
import { GatewayError } from "../problem.ts";

/** Longest name, in bytes: a key or document id of 1,024 bytes behind its prefix. */
export const CHANNEL_NAME_BYTES_MAX = 1_100;

/** What a channel carries.
 *
 *  `document`: events of a document. `store`: changes of one key, or of all under a prefix that ends with `/` or is empty.
 *  `sessions`: events of one session, or with `*` of all that the caller may see. `free`: what clients publish. */
export type ChannelKind = "document" | "store" | "sessions" | "free";

/** A name that was read. */
export interface ChannelName {
  /** As the client wrote it. */
  readonly text: string;
  readonly kind: ChannelKind;
  /** What stands behind the prefix: document id, key or prefix, session id or `*`. The whole name of a free one. */
  readonly rest: string;
}

const PREFIXES: readonly (readonly [prefix: string, kind: ChannelKind])[] = [
  ["doc:", "document"],
  ["kv:", "store"],
  ["session:", "sessions"],
];
/** The job queue is no part of the product yet: its channels must not be taken for free ones meanwhile. */
const RESERVED = "job:";

const encoder = new TextEncoder();
// deno-lint-ignore no-control-regex -- what it looks for
const CONTROL = /[\u0000-\u001f\u007f]/;

/** Reads a name. @throws {GatewayError} `invalid_argument`; `unimplemented` for a kind that is not served. */
export function parseChannelName(value: unknown): ChannelName {
  if (value === undefined || value === null || value === "") {
    throw new GatewayError("invalid_argument", "Channel is required");
  }
  if (typeof value !== "string") throw new GatewayError("invalid_argument", "channel is not a text");
  const bytes = value.length > CHANNEL_NAME_BYTES_MAX ? value.length : encoder.encode(value).length;
  if (bytes > CHANNEL_NAME_BYTES_MAX) {
    throw new GatewayError(
      "invalid_argument",
      `channel has ${bytes} bytes, expected up to ${CHANNEL_NAME_BYTES_MAX}`,
    );
  }
  if (CONTROL.test(value)) throw new GatewayError("invalid_argument", "channel has control characters");
  if (!value.isWellFormed()) throw new GatewayError("invalid_argument", "channel is not well-formed Unicode");
  if (value.startsWith(RESERVED)) {
    throw new GatewayError(
      "unimplemented",
      "channels that begin with job: belong to the queue, which is not served",
    );
  }
  for (const [prefix, kind] of PREFIXES) {
    if (!value.startsWith(prefix)) continue;
    const rest = value.slice(prefix.length);
    if (rest === "" && kind !== "store") {
      throw new GatewayError("invalid_argument", `channel has nothing behind ${prefix}`);
    }
    return { text: value, kind, rest };
  }
  return { text: value, kind: "free", rest: value };
}

/** Whether a store channel is of all keys under a prefix, and not of one key. */
export function isPrefix(rest: string): boolean {
  return rest === "" || rest.endsWith("/");
}
