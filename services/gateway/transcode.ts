/** HTTP texts ↔ protobuf messages, by the protobuf JSON mapping. Pure: nothing here reads a clock or a socket. */
import {
  create,
  type DescField,
  type DescMessage,
  fromJson,
  type JsonValue,
  type Message,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { joinBytes } from "../runtime/bytes.ts";
import { GatewayError } from "./problem.ts";

/** Whose JSON conventions a service is served with. `aetherflow`: camelCase names, every singular field written,
 *  unknown names refused, problem+json errors, streams as server-sent events. `etcd`: what etcd's own gateway does:
 *  names as in the .proto, zero values left out, unknown names ignored, google.rpc.Status errors, streams as lines. */
export type Dialect = "aetherflow" | "etcd";

const encoder = new TextEncoder();
const strictDecoder = new TextDecoder("utf-8", { fatal: true });

// ---------------------------------------------------------------------------------------------------------------
// Fields by path

/** A field reached through singular message fields. */
export interface FieldPath {
  /** Dotted proto names, for messages to people. */
  readonly name: string;
  readonly leaf: DescField;
  /** Its value; undefined when it, or a message on the way, is not set. */
  get(message: Message): unknown;
  /** Sets it, creating the messages on the way. */
  set(message: Message, value: unknown): void;
}

/** Finds `path` (dotted, proto or JSON names) in `desc`, or undefined. */
export function fieldPath(desc: DescMessage, path: string): FieldPath | undefined {
  const fields: DescField[] = [];
  let at: DescMessage | undefined = desc;
  for (const name of path.split(".")) {
    const field: DescField | undefined = at?.fields.find((each) =>
      each.name === name || each.jsonName === name
    );
    if (field === undefined) return undefined;
    fields.push(field);
    at = field.fieldKind === "message" ? field.message : undefined;
  }
  return createFieldPath(fields);
}

type Bag = Record<string, unknown>;
type OneofBag = { case: string | undefined; value?: unknown };

function createFieldPath(fields: readonly DescField[]): FieldPath {
  const leaf = fields[fields.length - 1];
  if (leaf === undefined) throw new RangeError("Cannot make a field path of no fields");
  const parents = fields.slice(0, -1);
  return {
    name: fields.map((field) => field.name).join("."),
    leaf,
    get(message) {
      let at: unknown = message;
      for (const field of parents) {
        at = getField(at as Bag, field);
        if (at === undefined) return undefined;
      }
      return getField(at as Bag, leaf);
    },
    set(message, value) {
      let at = message as unknown as Bag;
      for (const field of parents) {
        let next = getField(at, field);
        if (next === undefined) setField(at, field, next = create(field.message as DescMessage));
        at = next as Bag;
      }
      setField(at, leaf, value);
    },
  };
}

function getField(bag: Bag, field: DescField): unknown {
  if (field.oneof === undefined) return bag[field.localName];
  const oneof = bag[field.oneof.localName] as OneofBag;
  return oneof.case === field.localName ? oneof.value : undefined;
}

function setField(bag: Bag, field: DescField, value: unknown): void {
  if (field.oneof === undefined) bag[field.localName] = value;
  else bag[field.oneof.localName] = { case: field.localName, value };
}

// ---------------------------------------------------------------------------------------------------------------
// Texts of paths and queries

/** The octets a percent-encoded text stands for, or undefined when an escape is broken. Other characters are their
 *  UTF-8 octets. `plusIsSpace` as in query strings. */
export function percentDecode(text: string, plusIsSpace = false): Uint8Array<ArrayBuffer> | undefined {
  // U+FFFD stands where the HTTP server met octets that are not UTF-8: what was meant cannot be known any more.
  if (text.includes("\uFFFD")) return undefined;
  const octets = encoder.encode(plusIsSpace ? text.replaceAll("+", " ") : text);
  if (!text.includes("%")) return octets;
  let length = 0;
  for (let i = 0; i < octets.length; i++) {
    let octet = octets[i]!;
    if (octet === 0x25) {
      const high = hexDigit(octets[i + 1]);
      const low = hexDigit(octets[i + 2]);
      if (high < 0 || low < 0) return undefined;
      octet = high * 16 + low;
      i += 2;
    }
    octets[length++] = octet;
  }
  return octets.subarray(0, length);
}

function hexDigit(octet: number | undefined): number {
  if (octet === undefined) return -1;
  if (octet >= 0x30 && octet <= 0x39) return octet - 0x30;
  const lower = octet | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** One `name=value` of a query string, the value still encoded. */
export interface QueryPair {
  readonly name: string;
  readonly rawValue: string;
}

/** Splits a query string (without `?`). @throws {GatewayError} `invalid_argument` for a name with a broken escape. */
export function parseQuery(query: string): QueryPair[] {
  const pairs: QueryPair[] = [];
  for (const part of query.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const rawName = equals < 0 ? part : part.slice(0, equals);
    const name = textOf(percentDecode(rawName, true));
    if (name === undefined) {
      throw invalid(`the query parameter name ${quote(rawName)} is not valid percent-encoded UTF-8`);
    }
    pairs.push({ name, rawValue: equals < 0 ? "" : part.slice(equals + 1) });
  }
  return pairs;
}

/** The fields of a message that a query string may set, by every accepted spelling. */
export type QueryFields = ReadonlyMap<string, FieldPath>;

// How deep query parameters reach into nested messages (a.b.c); deeper ones belong in a body.
const QUERY_DEPTH_MAX = 3;

/** Messages that the protobuf JSON mapping writes as one text or number, so that a query parameter can hold them. */
const TEXT_MESSAGES: ReadonlySet<string> = new Set(
  ["Timestamp", "Duration", "FieldMask", "StringValue", "BytesValue", "BoolValue"]
    .concat(["Int32Value", "UInt32Value", "Int64Value", "UInt64Value", "FloatValue", "DoubleValue"])
    .map((name) => `google.protobuf.${name}`),
);

/** The query parameters of an RPC: all scalar, enum and repeated scalar fields, and messages that are one text, except
 *  those named in `bound`. What only a body can hold is there too, to be refused by name. */
export function queryFields(desc: DescMessage, bound: ReadonlySet<string>): QueryFields {
  const fields = new Map<string, FieldPath>();
  collectQueryFields(desc, [], [""], bound, fields);
  return fields;
}

function collectQueryFields(
  desc: DescMessage,
  parents: readonly DescField[],
  spellings: readonly string[],
  bound: ReadonlySet<string>,
  into: Map<string, FieldPath>,
): void {
  for (const field of desc.fields) {
    const path = createFieldPath([...parents, field]);
    if (bound.has(path.name)) continue;
    const names = spellings.flatMap((prefix) => [...new Set([prefix + field.jsonName, prefix + field.name])]);
    if (field.fieldKind === "scalar" || field.fieldKind === "enum") {
      for (const name of names) into.set(name, path);
    } else if (field.fieldKind === "list" || field.fieldKind === "map" || isTextMessage(field)) {
      for (const name of names) into.set(name, path);
    } else if (parents.length + 1 < QUERY_DEPTH_MAX) {
      collectQueryFields(field.message, [...parents, field], names.map((name) => `${name}.`), bound, into);
    }
  }
}

function isTextMessage(field: DescField): boolean {
  return field.fieldKind === "message" && TEXT_MESSAGES.has(field.message.typeName);
}

/** Whether a query parameter can hold the field; those that it cannot are known by name only. */
export function isQueryParameter({ leaf }: FieldPath): boolean {
  return leaf.fieldKind !== "map" && !(leaf.fieldKind === "list" && leaf.listKind === "message");
}

/** Why a parameter is none of the RPC's. */
function unknownParameter(name: string, fields: QueryFields): GatewayError {
  // `metadata.name=x`, `metadata[name]=x`
  const field = fields.get(name) ?? fields.get(/^[^.[]*/.exec(name)![0]);
  return field === undefined || isQueryParameter(field)
    ? invalid(`unknown query parameter ${quote(name)}`)
    : invalid(
      `query parameter ${quote(name)}: ${field.name} is a ${
        field.leaf.fieldKind === "map" ? "map" : "list of messages"
      }, which only a body can hold`,
    );
}

/** Sets fields of `message` from query parameters; `switches` are parameters that chose the route and are no fields.
 *  @throws {GatewayError} `invalid_argument` naming the parameter that is unknown, repeated or not of its type. */
export function bindQuery(
  message: Message,
  pairs: readonly QueryPair[],
  fields: QueryFields,
  switches: ReadonlySet<string>,
): void {
  const seen = new Set<FieldPath>();
  for (const { name, rawValue } of pairs) {
    if (switches.has(name)) {
      if (rawValue === "true" || rawValue === "false") continue;
      throw invalid(`query parameter ${quote(name)} is ${quote(rawValue)}, expected true or false`);
    }
    const field = fields.get(name);
    if (field === undefined || !isQueryParameter(field)) throw unknownParameter(name, fields);
    const value = parseText(field.leaf, rawValue, true, `query parameter ${quote(name)}`);
    if (field.leaf.fieldKind === "list") {
      (field.get(message) as unknown[] | undefined)?.push(value) ?? field.set(message, [value]);
      continue;
    }
    if (seen.has(field)) throw invalid(`the query parameter ${quote(name)} is given more than once`);
    seen.add(field);
    field.set(message, value);
  }
}

/** Sets a field from a path variable, which may not be empty.
 *  @throws {GatewayError} `invalid_argument` naming the variable. */
export function bindPathVariable(message: Message, field: FieldPath, raw: string): void {
  if (raw === "") throw invalid(`${field.name} is empty in the path`);
  field.set(message, parseText(field.leaf, raw, false, `${field.name} in the path`));
}

/** The value of a field from its percent-encoded text: for bytes the octets, for the rest the text's meaning. */
function parseText(field: DescField, raw: string, plusIsSpace: boolean, what: string): unknown {
  const octets = percentDecode(raw, plusIsSpace);
  if (octets === undefined) throw invalid(`${what} has a broken percent escape or is not UTF-8`);
  if (field.scalar === ScalarType.BYTES) return octets;
  const text = textOf(octets);
  if (text === undefined) throw invalid(`${what} is not UTF-8`);
  if (field.fieldKind === "message") return parseTextMessage(field.message, text, what);
  const value = field.enum !== undefined
    ? field.enum.values.find((each) => each.name === text || String(each.number) === text)?.number
    : parseScalar(field.scalar, text);
  if (value === undefined) {
    const expected = field.enum !== undefined
      ? field.enum.values.map((each) => each.name).join(", ")
      : EXPECTED[field.scalar as ScalarType];
    throw invalid(`${what} is ${quote(text)}, expected ${expected}`);
  }
  return value;
}

/** A message that is one text in JSON; numbers and booleans stand as they are, as in JSON. */
function parseTextMessage(desc: DescMessage, text: string, what: string): Message {
  const isWord = desc.typeName === "google.protobuf.BoolValue" && (text === "true" || text === "false");
  try {
    return fromJson(desc, isWord ? text === "true" : text);
  } catch {
    throw invalid(`${what} is ${quote(text)}, expected a ${desc.typeName.split(".").at(-1)}`);
  }
}

const EXPECTED: Readonly<Record<ScalarType, string>> = {
  [ScalarType.BYTES]: "bytes",
  [ScalarType.STRING]: "text",
  [ScalarType.BOOL]: "true or false",
  [ScalarType.DOUBLE]: "a number",
  [ScalarType.FLOAT]: "a number",
  [ScalarType.INT32]: "a 32-bit integer",
  [ScalarType.SINT32]: "a 32-bit integer",
  [ScalarType.SFIXED32]: "a 32-bit integer",
  [ScalarType.UINT32]: "an unsigned 32-bit integer",
  [ScalarType.FIXED32]: "an unsigned 32-bit integer",
  [ScalarType.INT64]: "a 64-bit integer",
  [ScalarType.SINT64]: "a 64-bit integer",
  [ScalarType.SFIXED64]: "a 64-bit integer",
  [ScalarType.UINT64]: "an unsigned 64-bit integer",
  [ScalarType.FIXED64]: "an unsigned 64-bit integer",
};

const INTEGER = /^-?\d{1,20}$/;
const NUMBER = /^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$/;

function parseScalar(type: ScalarType | undefined, text: string): unknown {
  switch (type) {
    case ScalarType.STRING:
      return text;
    case ScalarType.BOOL:
      return text === "true" ? true : text === "false" ? false : undefined;
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return NUMBER.test(text) ? Number(text) : undefined;
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return numberIn(text, -0x8000_0000, 0x7fff_ffff);
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return numberIn(text, 0, 0xffff_ffff);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return bigintIn(text, -(1n << 63n), (1n << 63n) - 1n);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return bigintIn(text, 0n, (1n << 64n) - 1n);
    default:
      return undefined;
  }
}

function numberIn(text: string, min: number, max: number): number | undefined {
  const value = INTEGER.test(text) ? Number(text) : NaN;
  return value >= min && value <= max ? value : undefined;
}

function bigintIn(text: string, min: bigint, max: bigint): bigint | undefined {
  if (!INTEGER.test(text)) return undefined;
  const value = BigInt(text);
  return value >= min && value <= max ? value : undefined;
}

// ---------------------------------------------------------------------------------------------------------------
// JSON bodies

/** A message from a JSON body. With `field`, the body is that field's value and not the whole message.
 *  @throws {GatewayError} `invalid_argument` saying where it does not fit. */
export function messageFromJson(
  desc: DescMessage,
  body: Uint8Array,
  dialect: Dialect,
  field?: DescField,
): Message {
  return messageFromValue(desc, parseJson(body, field === undefined), dialect, field);
}

/** The JSON value of a body. @throws {GatewayError} `invalid_argument` when it is none. */
export function parseJson(body: Uint8Array, emptyIsObject: boolean): JsonValue {
  const text = textOf(body);
  if (text === undefined) throw invalid("the body is not UTF-8");
  if (nestsTooDeeply(text)) throw invalid(`the body is nested more than ${JSON_DEPTH_MAX} deep`);
  try {
    return text === "" && emptyIsObject ? {} : JSON.parse(text);
  } catch (error) {
    throw invalid(`the body is not JSON: ${(error as Error).message}`);
  }
}

/** How deep objects and arrays of a body may stand in one another: what protobuf decoders allow of messages. */
export const JSON_DEPTH_MAX = 100;

function nestsTooDeeply(text: string): boolean {
  if (text.length <= 2 * JSON_DEPTH_MAX) return false; // each level takes two characters
  let depth = 0;
  let isText = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (isText) {
      if (char === 0x5c) i++;
      else if (char === 0x22) isText = false;
    } else if (char === 0x22) isText = true;
    else if ((char | 0x20) === 0x7b && ++depth > JSON_DEPTH_MAX) return true;
    else if ((char | 0x20) === 0x7d) depth--;
  }
  return false;
}

/** A message from a JSON value; see `messageFromJson`. */
export function messageFromValue(
  desc: DescMessage,
  json: JsonValue,
  dialect: Dialect,
  field?: DescField,
): Message {
  try {
    return fromJson(desc, field === undefined ? json : { [field.jsonName]: json }, {
      ignoreUnknownFields: dialect === "etcd",
    });
  } catch (error) {
    // RangeError is the stack's end: nesting deeper than any real request.
    throw invalid(error instanceof RangeError ? "the body is nested too deeply" : (error as Error).message);
  }
}

/** The names of the fields that a JSON object of a `desc` has, as in the .proto and in the object's order: what an update
 *  without a mask means (AIP-134). Fields that the path sets are left out. */
export function presentFields(desc: DescMessage, json: JsonValue, bound: readonly FieldPath[]): string[] {
  if (typeof json !== "object" || json === null || Array.isArray(json)) return [];
  const names = Object.keys(json).flatMap((key) =>
    desc.fields.find((field) => field.name === key || field.jsonName === key)?.name ?? []
  );
  return names.filter((name) => !bound.some((each) => each.leaf.parent === desc && each.leaf.name === name));
}

/** The paths of a field mask of a `desc` from a query parameter: comma-separated, names as in JSON or in the .proto; behind a
 *  map's name stands a key, taken as it is.
 *  @throws {GatewayError} `invalid_argument` naming a path that is none. */
export function parseMask(desc: DescMessage, raw: string): string[] {
  const text = textOf(percentDecode(raw, true));
  if (text === undefined) throw invalid("the field mask has a broken percent escape or is not UTF-8");
  return text === "" ? [] : text.split(",").map((path) => maskPath(desc, path));
}

function maskPath(desc: DescMessage, path: string): string {
  const names: string[] = [];
  let at: DescMessage | undefined = desc;
  let rest = path;
  while (rest !== "") {
    const dot = rest.indexOf(".");
    const name = dot < 0 ? rest : rest.slice(0, dot);
    const field: DescField | undefined = at?.fields.find((each) =>
      each.name === name || each.jsonName === name
    );
    if (field === undefined) break;
    names.push(field.name);
    rest = dot < 0 ? "" : rest.slice(dot + 1);
    if (dot >= 0 && field.fieldKind === "map" && rest !== "") return `${names.join(".")}.${rest}`;
    if (dot >= 0 && rest === "") break; // ends with a dot
    at = field.fieldKind === "message" ? field.message : undefined;
    if (dot < 0) return names.join(".");
  }
  throw invalid(`the field mask has ${quote(path)}, which is no field of ${desc.typeName}`);
}

/** The JSON text of a message. */
export function messageToJson(desc: DescMessage, message: Message, dialect: Dialect): string {
  return JSON.stringify(messageToValue(desc, message, dialect));
}

/** The JSON value of a message. */
export function messageToValue(desc: DescMessage, message: Message, dialect: Dialect): JsonValue {
  return toJson(desc, message, dialect === "etcd" ? ETCD_WRITE : AETHERFLOW_WRITE);
}

const ETCD_WRITE = { useProtoFieldName: true };
const AETHERFLOW_WRITE = { alwaysEmitImplicit: true };

/** Cuts a byte stream of JSON objects, with or without white space between them, into single objects. */
export class JsonSplitter {
  #pending = new Uint8Array(0);
  #scanned = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** `bytesMax` bounds one object. */
  constructor(readonly bytesMax: number) {}

  /** True when bytes of an unfinished object wait. */
  get isPartial(): boolean {
    return this.#pending.length > 0;
  }

  /** Takes the next bytes, returns the objects that are whole now.
   *  @throws {GatewayError} `invalid_argument` for anything but objects; `body_too_large`. */
  push(chunk: Uint8Array): Uint8Array[] {
    const bytes = this.#pending.length === 0 ? chunk : joinBytes([this.#pending, chunk]);
    const whole: Uint8Array[] = [];
    let start = 0;
    for (let i = this.#scanned; i < bytes.length; i++) {
      const octet = bytes[i]!;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (octet === 0x5c) this.#escaped = true;
        else if (octet === 0x22) this.#inString = false;
      } else if (octet === 0x22 && this.#depth > 0) this.#inString = true;
      else if (octet === 0x7b || (octet === 0x5b && this.#depth > 0)) this.#depth++;
      else if (this.#depth > 0 && (octet === 0x7d || octet === 0x5d)) {
        if (--this.#depth === 0) {
          whole.push(bytes.subarray(start, i + 1));
          start = i + 1;
        }
      } else if (this.#depth === 0) {
        if (!isWhiteSpace(octet)) throw invalid("the body is not a sequence of JSON objects");
        start = i + 1;
      }
      if (i + 1 - start > this.bytesMax) {
        throw new GatewayError("body_too_large", `a JSON request is larger than ${this.bytesMax} bytes`);
      }
    }
    this.#pending = bytes.slice(start);
    this.#scanned = this.#pending.length;
    return whole;
  }
}

function isWhiteSpace(octet: number): boolean {
  return octet === 0x20 || octet === 0x0a || octet === 0x0d || octet === 0x09;
}

// ---------------------------------------------------------------------------------------------------------------
// Conditional requests

/** What If-Match and If-None-Match ask of a write: nothing; a revision (0: absent); or what can never hold. */
export type Precondition = bigint | "never" | undefined;

const STRONG_TAG = /^"(\d{1,19})"$/;

/** Reads the condition of a write.
 *  @throws {GatewayError} `invalid_argument` for conditions that cannot be one compare-and-set. */
export function parsePrecondition(
  ifMatch: string | undefined,
  ifNoneMatch: string | undefined,
): Precondition {
  if (ifMatch !== undefined && ifNoneMatch !== undefined) {
    throw invalid("If-Match and If-None-Match cannot be used together");
  }
  if (ifNoneMatch !== undefined) {
    if (ifNoneMatch.trim() === "*") return 0n;
    throw invalid("If-None-Match of a write must be *; use If-Match to write over a known revision");
  }
  if (ifMatch === undefined) return undefined;
  const tag = ifMatch.trim();
  if (tag === "*" || tag.includes(",")) throw invalid('If-Match of a write must be one entity tag, like "7"');
  const match = STRONG_TAG.exec(tag);
  // A weak tag, or one that we never gave out, matches nothing (RFC 9110 §13.1.1). Neither does 0, which no key has.
  const revision = match === null ? 0n : BigInt(match[1]!);
  return revision === 0n || revision >= 1n << 63n ? "never" : revision;
}

/** True when an If-None-Match header names `etag` (`"7"`), by weak comparison, or is `*`. */
export function noneMatchHits(ifNoneMatch: string, etag: string): boolean {
  return ifNoneMatch.split(",").some((each) => {
    const tag = each.trim();
    return tag === "*" || tag === etag || tag === `W/${etag}`;
  });
}

/** True when an If-Match header of a read lets `etag` pass, by strong comparison. */
export function matchHits(ifMatch: string, etag: string): boolean {
  return ifMatch.split(",").some((each) => each.trim() === "*" || each.trim() === etag);
}

const SECONDS = /^(\d{1,12})(?:\.(\d{1,3}))?$/;

/** Milliseconds of a `TTL: seconds` header, up to three decimals.
 *  @throws {GatewayError} `invalid_argument` when it is not a time to live. */
export function parseTtl(header: string): bigint {
  const match = SECONDS.exec(header.trim());
  const ttlMs = match === null ? 0n : BigInt(match[1]!) * 1_000n + BigInt((match[2] ?? "").padEnd(3, "0"));
  if (ttlMs === 0n) throw invalid("TTL must be seconds, more than 0, like 60 or 0.5");
  return ttlMs;
}

/** Whole seconds for the TTL header: what is left counts as a second until it is gone. */
export function formatTtl(ttlMs: bigint): string {
  return String((ttlMs + 999n) / 1_000n);
}

/** The revision a client resumes from (`Last-Event-ID`), or undefined when it has none.
 *  @throws {GatewayError} `invalid_argument` when it is not a revision. */
export function parseLastEventId(header: string | undefined): bigint | undefined {
  if (header === undefined || header === "") return undefined;
  const revision = bigintIn(header, 0n, (1n << 63n) - 2n);
  if (revision === undefined) throw invalid(`Last-Event-ID is ${quote(header)}, expected a revision`);
  return revision;
}

// ---------------------------------------------------------------------------------------------------------------

function textOf(octets: Uint8Array | undefined): string | undefined {
  if (octets === undefined) return undefined;
  try {
    return strictDecoder.decode(octets);
  } catch {
    return undefined; // not UTF-8, which every caller reports by what it is reading
  }
}

// Long enough to recognise what was sent, short enough for a log line.
const QUOTED_CHARS_MAX = 80;

function quote(text: string): string {
  return JSON.stringify(text.length > QUOTED_CHARS_MAX ? `${text.slice(0, QUOTED_CHARS_MAX)}…` : text);
}

function invalid(message: string): GatewayError {
  return new GatewayError("invalid_argument", message);
}
