import {
  getAnsiColorFormatter,
  getJsonLinesFormatter,
  getTextFormatter,
  type LogRecord,
} from "@logtape/logtape";
import type { Clock } from "./clock.ts";
import { systemClock } from "./clock.ts";

/** How much is logged: a level and everything above it; `off` logs nothing. */
export const LOG_LEVELS = ["debug", "info", "warn", "error", "off"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** `json`: one object a line. `text`: for people, in colour with `color`. */
export const LOG_FORMATS = ["json", "text", "color"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What a logger needs to know; plain data, so that the host can hand it to a worker. */
export interface LogSettings {
  level: LogLevel;
  format: LogFormat;
}

/** Structured log. `message` is a fixed sentence; what varies goes into `fields`, which are redacted by their names. */
export interface Logger {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
  /** A logger that adds `fields` to each of its records. */
  child(fields: Record<string, unknown>): Logger;
}

/** Deepest nesting of logged values; what lies below is replaced, so that a cycle ends. */
const MAX_DEPTH = 6;
/** Longest logged text in characters, per field: a log is no place for bodies. */
const MAX_TEXT_LENGTH = 8_192;

/** Creates a logger named `name` (the worker, or `host`) that writes whole lines with `write`, by default to stderr. A new
 *  `settings.level` counts from the next line on. */
export function createLogger(
  name: string,
  settings: LogSettings,
  deps: { write?: (line: string) => void; clock?: Pick<Clock, "wallMs"> } = {},
): Logger {
  const write = deps.write ?? writeStderr;
  const clock = deps.clock ?? systemClock;
  const format = formatter(settings.format);
  const emit = (
    level: "debug" | "info" | "warn" | "error",
    message: string,
    inherited: Record<string, unknown>,
    fields: Record<string, unknown> | undefined,
  ) => {
    if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(settings.level)) return;
    const properties = redact({ ...inherited, ...fields }) as Record<string, unknown>;
    write(format({
      category: [name],
      level: level === "warn" ? "warning" : level,
      message: [message],
      rawMessage: message,
      timestamp: clock.wallMs(),
      properties,
    }));
  };
  const withFields = (inherited: Record<string, unknown>): Logger => ({
    debug: (message, fields) => emit("debug", message, inherited, fields),
    info: (message, fields) => emit("info", message, inherited, fields),
    warn: (message, fields) => emit("warn", message, inherited, fields),
    error: (message, fields) => emit("error", message, inherited, fields),
    child: (fields) => withFields({ ...inherited, ...fields }),
  });
  return withFields({});
}

/** A logger that drops everything, for tests. */
export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLogger,
};

/** What stands in place of a secret. */
export const REDACTED = "[redacted]";

const SECRET_KEY =
  /secret|token|passw(or)?d|passphrase|authorization|cookie|credential|private_?key|api[_-]?key/i;
/** Keys that look like secrets and are none: positions in lists, and paths of files. */
const PUBLIC_KEY = /^(page|next_?page|sync)_?token$|file$/i;

/** True for names of fields whose values must not be shown. */
export function isSecretKey(key: string): boolean {
  return SECRET_KEY.test(key) && !PUBLIC_KEY.test(key);
}

/** A copy of `value` that is fit for a log or a screen: values under secret-looking keys are replaced, bytes are named
 *  by their length, errors become `{name, message, code, cause}` with a stack, long texts are cut. */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === "string") {
    return value.length > MAX_TEXT_LENGTH
      ? `${value.slice(0, MAX_TEXT_LENGTH)}… (${value.length} characters)`
      : value;
  }
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  if (depth >= MAX_DEPTH) return "[…]";
  if (value instanceof Uint8Array) return `[${value.length} bytes]`;
  if (value instanceof Date || value instanceof URL) return String(value);
  if (value instanceof Error) return redactError(value, depth);
  if (Array.isArray(value)) return value.map((item) => redact(item, depth + 1));
  const copy: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    if (item === undefined) continue;
    copy[key] = isSecretKey(key) ? REDACTED : redact(item, depth + 1);
  }
  return copy;
}

function redactError(error: Error, depth: number): Record<string, unknown> {
  const copy: Record<string, unknown> = { name: error.name, message: error.message };
  if ("code" in error) copy.code = redact(error.code, depth + 1);
  if (error.cause !== undefined) copy.cause = redact(error.cause, depth + 1);
  if (error.stack !== undefined) copy.stack = error.stack;
  return copy;
}

function formatter(format: LogFormat): (record: LogRecord) => string {
  if (format === "json") {
    const lines = getJsonLinesFormatter({ properties: "flatten" });
    return (record) => lines({ ...record, properties: withoutReserved(record.properties) });
  }
  const base = format === "color"
    ? getAnsiColorFormatter({ timestamp: "time", level: "full" })
    : getTextFormatter({ timestamp: "rfc3339", level: "full" });
  return (record) => {
    let line = base(record).trimEnd();
    let stacks = "";
    for (const [key, value] of Object.entries(record.properties)) {
      const isError = typeof value === "object" && value !== null && "stack" in value;
      if (isError) stacks += `${value.stack}\n`;
      line += ` ${key}=${fieldText(isError && "message" in value ? value.message : value)}`;
    }
    return `${line}\n${stacks}`;
  };
}

/** Names that a JSON line has already; a field of the same name is written as `field.<name>`. */
const RESERVED = new Set(["@timestamp", "level", "message", "logger"]);

function withoutReserved(properties: Record<string, unknown>): Record<string, unknown> {
  const copy: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(properties)) {
    copy[RESERVED.has(key) ? `field.${key}` : key] = value;
  }
  return copy;
}

function fieldText(value: unknown): string {
  if (typeof value === "string" && /^[\w./:@+-]+$/.test(value)) return value;
  return JSON.stringify(value) ?? String(value);
}

const encoder = new TextEncoder();

function writeStderr(line: string): void {
  const bytes = encoder.encode(line);
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  } catch {
    // Whoever read our log has gone. There is nowhere to report it to, and serving goes on without a log.
  }
}
