/** The key by which a call goes to an instance: a text or bytes field of its request. */
import type { DescMessage, DescMethod, Message } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { hashBytes, hashText } from "../balance/hash.ts";
import { fieldPath } from "../transcode.ts";

/** A field by its numbers from the outermost message in, and how it is read off a message. */
export interface HashField {
  readonly numbers: readonly number[];
  get(message: Message): unknown;
}

/** The first of `paths` (dotted) that the request of an RPC has as text or bytes, or undefined. */
export function hashField(rpc: DescMethod, paths: readonly string[]): HashField | undefined {
  for (const path of paths) {
    const field = fieldPath(rpc.input, path);
    if (field?.leaf.fieldKind !== "scalar") continue;
    const { scalar } = field.leaf;
    if (scalar !== ScalarType.STRING && scalar !== ScalarType.BYTES) continue;
    return { numbers: numbersOf(rpc.input, path), get: (message) => field.get(message) };
  }
  return undefined;
}

/** Hash of the field of a message; undefined when it is empty. */
export function hashOfMessage(field: HashField, message: Message): number | undefined {
  const value = field.get(message);
  if (typeof value === "string") return value === "" ? undefined : hashText(value);
  return value instanceof Uint8Array && value.length > 0 ? hashBytes(value) : undefined;
}

/** The same of an encoded message; undefined also when its bytes are no message. */
export function hashOfBytes({ numbers }: HashField, message: Uint8Array): number | undefined {
  let part: Uint8Array | undefined = message;
  for (const number of numbers) {
    part = part && findField(part, number);
    if (part === undefined || part.length === 0) return undefined;
  }
  return hashBytes(part!);
}

function numbersOf(desc: DescMessage, path: string): number[] {
  const [name, ...rest] = path.split(".");
  const field = desc.fields.find((each) => each.name === name || each.jsonName === name)!;
  const inner = rest.length > 0 && field.fieldKind === "message"
    ? numbersOf(field.message, rest.join("."))
    : [];
  return [field.number, ...inner];
}

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;

/** The last field of this number with bytes in it, as the last one counts. */
function findField(bytes: Uint8Array, number: number): Uint8Array | undefined {
  let found: Uint8Array | undefined;
  let at = 0;
  /** Reads a varint; NaN at the end of the bytes. Tags and lengths are below 2^35. */
  const varint = () => {
    let value = 0;
    for (let factor = 1; at < bytes.length; factor *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    return NaN;
  };
  while (at < bytes.length) {
    const tag = varint();
    const type = tag % 8;
    if (type === VARINT) varint();
    else if (type === FIXED64) at += 8;
    else if (type === FIXED32) at += 4;
    else if (type === BYTES) {
      const length = varint();
      if (Number.isNaN(length) || at + length > bytes.length) return undefined;
      if (Math.floor(tag / 8) === number) found = bytes.subarray(at, at + length);
      at += length;
    } else return undefined;
  }
  return found;
}
