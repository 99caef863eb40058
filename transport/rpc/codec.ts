/** Writes messages straight into a frame.
 *
 *  `toBinary` makes two arrays a message, which costs more than the message when it is small. The encoders here are compiled
 *  from the same descriptors, write the same bytes (codec_test.ts compares) and know what services use: proto3 messages
 *  of bool, int32, uint32, int64, uint64, enum, string, bytes, messages, lists and oneofs. Any other message is left to
 *  `toBinary`. */
import {
  create,
  type DescField,
  type DescMessage,
  type MessageInitShape,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { Edition, FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import type { FrameWriter } from "./frame.ts";

type Fields = Record<string, unknown>;
type Encode = (writer: FrameWriter, message: Fields) => void;
type EncodeValue = (writer: FrameWriter, value: unknown) => void;

/** Encoders by message type; each transport and server has one. Bounded by the messages of the services it knows. */
export class MessageEncoder {
  readonly #compiled = new Map<DescMessage, Encode | undefined>();

  /** Appends `message`, a message of type `desc` or what `create` makes one from.
   *  @throws {TypeError} or {RangeError} (or what `toBinary` throws) if a field has a value it cannot hold. */
  write(writer: FrameWriter, desc: DescMessage, message: object): void {
    let encode = this.#compiled.get(desc);
    if (encode === undefined && !this.#compiled.has(desc)) {
      encode = isCovered(desc, new Set()) ? this.#compile(desc) : undefined;
      this.#compiled.set(desc, encode);
    }
    if (encode === undefined) {
      writer.bytes(toBinary(desc, create(desc, message as MessageInitShape<DescMessage>)));
    } else encode(writer, message as Fields);
  }

  #compile(desc: DescMessage): Encode {
    const { typeName } = desc;
    const fields: Encode[] = [];
    const encode: Encode = (writer, message) => {
      if (message.$typeName !== undefined && message.$typeName !== typeName) {
        throw new TypeError(`a ${message.$typeName} is no ${typeName}`);
      }
      for (let i = 0; i < fields.length; i++) fields[i]!(writer, message);
      if (message.$unknown !== undefined) writeUnknown(writer, message.$unknown as UnknownField[]);
    };
    // Known before its fields are, for messages that contain themselves.
    this.#compiled.set(desc, encode);
    for (const field of desc.fields.toSorted((a, b) => a.number - b.number)) fields.push(this.#field(field));
    return encode;
  }

  #field(field: DescField): Encode {
    const name = field.localName;
    if (field.fieldKind === "list") return this.#list(field);
    const write = this.#tagged(field);
    if (field.oneof !== undefined) {
      const oneof = field.oneof.localName;
      return (writer, message) => {
        const chosen = message[oneof] as { case?: string; value?: unknown } | undefined;
        if (chosen?.case === name) write(writer, chosen.value);
      };
    }
    if (field.presence !== FeatureSet_FieldPresence.IMPLICIT) {
      return (writer, message) => {
        const value = message[name];
        if (value !== undefined && value !== null) write(writer, value);
      };
    }
    if (field.fieldKind === "scalar" && field.scalar === ScalarType.BYTES) {
      return (writer, message) => {
        const value = message[name] as Uint8Array | undefined;
        if (value !== undefined && value !== null && value.length !== 0) write(writer, value);
      };
    }
    return (writer, message) => {
      const value = message[name];
      if (value !== undefined && value !== null && !isZero(value)) write(writer, value);
    };
  }

  #list(field: DescField & { fieldKind: "list" }): Encode {
    const name = field.localName;
    if (field.packed) {
      const write = scalarEncoder(field.listKind === "enum" ? ScalarType.INT32 : field.scalar!);
      const tag = field.number * 8 + 2;
      return (writer, message) => {
        const items = message[name] as unknown[] | undefined;
        if (items === undefined || items === null || items.length === 0) return;
        writer.varint(tag);
        const mark = writer.beginSized();
        for (let i = 0; i < items.length; i++) write(writer, items[i]);
        writer.endSized(mark);
      };
    }
    const write = this.#tagged(field);
    return (writer, message) => {
      const items = message[name] as unknown[] | undefined;
      if (items === undefined || items === null) return;
      for (let i = 0; i < items.length; i++) write(writer, items[i]);
    };
  }

  /** Tag and value of one field, or of one item of a list. */
  #tagged(field: DescField): EncodeValue {
    if (field.message !== undefined) {
      const tag = field.number * 8 + 2;
      const encode = this.#compiled.get(field.message) ?? this.#compile(field.message);
      return (writer, value) => {
        writer.varint(tag);
        const mark = writer.beginSized();
        encode(writer, value as Fields);
        writer.endSized(mark);
      };
    }
    const scalar = field.enum !== undefined ? ScalarType.INT32 : field.scalar!;
    const tag = field.number * 8 + (scalar === ScalarType.STRING || scalar === ScalarType.BYTES ? 2 : 0);
    const write = scalarEncoder(scalar);
    return (writer, value) => {
      writer.varint(tag);
      write(writer, value);
    };
  }
}

const COVERED_SCALARS: ReadonlySet<ScalarType> = new Set([
  ScalarType.BOOL,
  ScalarType.INT32,
  ScalarType.UINT32,
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.STRING,
  ScalarType.BYTES,
]);

/** True when the encoders here know every field that a message of this type may have. */
function isCovered(desc: DescMessage, seen: Set<DescMessage>): boolean {
  if (seen.has(desc)) return true;
  seen.add(desc);
  // Well-known types have shapes of their own; other editions have presence rules of their own.
  if (desc.file.edition !== Edition.EDITION_PROTO3 || desc.typeName.startsWith("google.protobuf.")) {
    return false;
  }
  return desc.fields.every((field) => {
    if (field.fieldKind === "map") return false;
    if (field.message !== undefined) return isCovered(field.message, seen);
    return field.enum !== undefined || COVERED_SCALARS.has(field.scalar!);
  });
}

function scalarEncoder(scalar: ScalarType): EncodeValue {
  switch (scalar) {
    case ScalarType.BOOL:
      return writeBool;
    case ScalarType.INT32:
      return writeInt32;
    case ScalarType.UINT32:
      return writeUint32;
    case ScalarType.INT64:
      return writeInt64;
    case ScalarType.UINT64:
      return writeUint64;
    case ScalarType.STRING:
      return writeString;
    case ScalarType.BYTES:
      return writeBytes;
    default:
      throw new Error(`unreachable: scalar type ${scalar} is not covered`);
  }
}

function writeBool(writer: FrameWriter, value: unknown): void {
  if (typeof value !== "boolean") throw new TypeError(`cannot encode ${typeof value} as bool`);
  writer.u8(value ? 1 : 0);
}

function writeInt32(writer: FrameWriter, value: unknown): void {
  if (typeof value !== "number" || (value | 0) !== value) throw invalid(value, "int32");
  if (value >= 0) writer.varint(value);
  else writeWide(writer, BigInt.asUintN(64, BigInt(value)));
}

function writeUint32(writer: FrameWriter, value: unknown): void {
  if (typeof value !== "number" || (value >>> 0) !== value) throw invalid(value, "uint32");
  writer.varint(value);
}

function writeInt64(writer: FrameWriter, value: unknown): void {
  const small = Number(value);
  if (small >= 0 && small <= Number.MAX_SAFE_INTEGER) {
    if (!Number.isInteger(small)) throw invalid(value, "int64");
    return writer.varint(small);
  }
  const wide = toBigInt(value, "int64");
  if (BigInt.asIntN(64, wide) !== wide) throw invalid(value, "int64");
  writeWide(writer, BigInt.asUintN(64, wide));
}

function writeUint64(writer: FrameWriter, value: unknown): void {
  const small = Number(value);
  if (small >= 0 && small <= Number.MAX_SAFE_INTEGER) {
    if (!Number.isInteger(small)) throw invalid(value, "uint64");
    return writer.varint(small);
  }
  const wide = toBigInt(value, "uint64");
  if (BigInt.asUintN(64, wide) !== wide) throw invalid(value, "uint64");
  writeWide(writer, wide);
}

function toBigInt(value: unknown, type: string): bigint {
  if (typeof value === "bigint") return value;
  try {
    return BigInt(value as string | number);
  } catch (cause) {
    throw new TypeError(`cannot encode ${String(value)} as ${type}`, { cause });
  }
}

/** 64 bits as a varint. */
function writeWide(writer: FrameWriter, value: bigint): void {
  let rest = value;
  while (rest > 0x7fn) {
    writer.u8(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  writer.u8(Number(rest));
}

function writeString(writer: FrameWriter, value: unknown): void {
  if (typeof value !== "string") throw new TypeError(`cannot encode ${typeof value} as string`);
  if (!value.isWellFormed()) throw new TypeError("cannot encode a string with half a surrogate pair");
  writer.text(value);
}

function writeBytes(writer: FrameWriter, value: unknown): void {
  const bytes = value instanceof Uint8Array
    ? value
    : Array.isArray(value)
    ? Uint8Array.from(value)
    : undefined;
  if (bytes === undefined) throw new TypeError(`cannot encode ${typeof value} as bytes`);
  writer.varint(bytes.length);
  writer.bytes(bytes);
}

interface UnknownField {
  readonly no: number;
  readonly wireType: number;
  readonly data: Uint8Array;
}

function writeUnknown(writer: FrameWriter, fields: readonly UnknownField[]): void {
  for (const { no, wireType, data } of fields) {
    writer.varint(no * 8 + wireType);
    writer.bytes(data);
  }
}

function isZero(value: unknown): boolean {
  return value === 0 || value === 0n || value === "" || value === false;
}

function invalid(value: unknown, type: string): RangeError {
  return new RangeError(`cannot encode ${String(value)} as ${type}`);
}
