/** What requests may hold. Errors name the field and the limit. */
import { SessionError } from "./errors.ts";

/** Bytes of `user_id`. */
const USER_ID_BYTES_MAX = 256;
/** Bytes of a reason. */
const REASON_BYTES_MAX = 256;
/** Bytes of `client_ip`: an IPv6 address with its zone. */
const CLIENT_IP_BYTES_MAX = 64;
const SERVER_ADDR_BYTES_MAX = 256;
const PORT_MAX = 65_535;
/** Entries of metadata, and bytes of a name, a value, and all together. */
const METADATA_ENTRIES_MAX = 64;
const METADATA_NAME_BYTES_MAX = 128;
const METADATA_VALUE_BYTES_MAX = 1_024;
const METADATA_BYTES_MAX = 16 * 1_024;

/** Fields of a session to open, as far as they have limits of their own. */
export interface LimitedFields {
  readonly userId: string;
  readonly clientIp: string;
  readonly clientPort: number;
  readonly serverAddr: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/** @throws {SessionError} `invalid` */
export function checkCreation({ userId, clientIp, clientPort, serverAddr, metadata }: LimitedFields): void {
  if (userId === "") throw invalid(`user_id is empty, expected 1 to ${USER_ID_BYTES_MAX} bytes`);
  checkBytes("user_id", userId, USER_ID_BYTES_MAX);
  checkBytes("client_ip", clientIp, CLIENT_IP_BYTES_MAX);
  checkBytes("server_addr", serverAddr, SERVER_ADDR_BYTES_MAX);
  if (!(clientPort >= 0 && clientPort <= PORT_MAX)) {
    throw invalid(`client_port is ${clientPort}, expected 0 to ${PORT_MAX}`);
  }
  checkMetadata(metadata);
}

/** @throws {SessionError} `invalid` */
export function checkMetadata(metadata: Readonly<Record<string, string>>): void {
  let count = 0, bytes = 0;
  for (const name in metadata) {
    if (++count > METADATA_ENTRIES_MAX) {
      throw invalid(
        `metadata has ${Object.keys(metadata).length} entries, expected at most ${METADATA_ENTRIES_MAX}`,
      );
    }
    const value = metadata[name]!;
    if (name === "") throw invalid("metadata has an empty name");
    bytes += checkBytes("a name of metadata", name, METADATA_NAME_BYTES_MAX);
    bytes += checkBytes(`metadata.${name}`, value, METADATA_VALUE_BYTES_MAX);
  }
  if (bytes > METADATA_BYTES_MAX) {
    throw invalid(`metadata has ${bytes} bytes, expected at most ${METADATA_BYTES_MAX}`);
  }
}

/** @throws {SessionError} `invalid` */
export function checkReason(reason: string): void {
  checkBytes("reason", reason, REASON_BYTES_MAX);
}

/** The timeout, if it is one. @throws {SessionError} `invalid` */
export function checkTimeout(name: string, timeoutMs: number, maxMs: number): number {
  if (timeoutMs > 0 && timeoutMs <= maxMs) return timeoutMs;
  throw invalid(
    `${name} is ${timeoutMs / 1_000} s, expected at most ${maxMs / 1_000} s (session.absoluteTimeoutMs)`,
  );
}

/** Bytes of `text`. @throws {SessionError} `invalid` */
function checkBytes(field: string, text: string, max: number): number {
  const bytes = utf8Bytes(text);
  if (bytes > max) throw invalid(`${field} has ${bytes} bytes, expected at most ${max}`);
  return bytes;
}

function utf8Bytes(text: string): number {
  let bytes = 0;
  for (const char of text) {
    const code = char.codePointAt(0)!;
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return bytes;
}

function invalid(detail: string): SessionError {
  return new SessionError("invalid", detail);
}
