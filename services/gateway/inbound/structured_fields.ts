/** Structured fields of HTTP (RFC 9651): strings to values and back. Dates and display strings, which no field that is
 *  used here has, are not among them: they are malformed. */

/** A token: a word without quotes. */
export class Token {
  constructor(readonly name: string) {}
}

/** A number with a fraction, at most 12 digits before the point and 3 after it; a JavaScript number is an integer. */
export class Decimal {
  constructor(readonly value: number) {}
}

/** A value without parameters. */
export type BareItem = number | Decimal | string | Token | boolean | Uint8Array<ArrayBuffer>;

/** Parameters, in their order. */
export type Parameters = ReadonlyMap<string, BareItem>;

/** A value with parameters. */
export interface Item {
  readonly value: BareItem;
  readonly parameters: Parameters;
}

/** Values in parentheses, with parameters. */
export interface InnerList {
  readonly items: readonly Item[];
  readonly parameters: Parameters;
}

/** Member of a list or dictionary. */
export type Member = Item | InnerList;

/** No parameters. */
export const NO_PARAMETERS: Parameters = new Map();

/** Longest field that is read, in characters: none that is used here comes near. */
export const FIELD_CHARS_MAX = 8_192;

const INTEGER_MAX = 999_999_999_999_999;
const KEY = /[a-z*][a-z0-9_.*-]*/y;
const TOKEN = /[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*/y;
const NUMBER = /-?(\d+)(?:\.(\d+))?/y;
const STRING = /"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"/y;
const BYTES = /:([A-Za-z0-9+/]*={0,2}):/y;
const BOOLEAN = /\?([01])/y;
const SPACES = / */y;
const OPTIONAL_SPACES = /[ \t]*/y;

/** Reads a field that is one item; undefined when it is malformed. */
export function parseItem(text: string): Item | undefined {
  return parseWhole(text, (reader) => reader.item());
}

/** Reads a field that is a list; undefined when it is malformed. An empty field is an empty list. */
export function parseList(text: string): Member[] | undefined {
  return parseWhole(text, (reader) => reader.list());
}

/** Reads a field that is a dictionary; undefined when it is malformed. Of a repeated key the last counts. */
export function parseDictionary(text: string): Map<string, Member> | undefined {
  return parseWhole(text, (reader) => reader.dictionary());
}

function parseWhole<T>(text: string, parse: (reader: Reader) => T): T | undefined {
  if (text.length > FIELD_CHARS_MAX) return undefined;
  const reader = new Reader(text);
  try {
    reader.take(SPACES);
    const value = parse(reader);
    reader.take(SPACES);
    return reader.isAtEnd ? value : undefined;
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}

/** Leaves the parser, however deep it is. */
class Malformed extends Error {}

/** RFC 9651 §4.2. */
class Reader {
  #at = 0;

  constructor(readonly text: string) {}

  get isAtEnd(): boolean {
    return this.#at === this.text.length;
  }

  /** Moves past the pattern. @throws {Malformed} if it is not here. */
  take(pattern: RegExp): RegExpExecArray {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.text);
    if (match === null) throw new Malformed();
    this.#at += match[0].length;
    return match;
  }

  list(): Member[] {
    const members: Member[] = [];
    if (this.isAtEnd) return members;
    do members.push(this.#member()); while (this.#comma());
    return members;
  }

  dictionary(): Map<string, Member> {
    const members = new Map<string, Member>();
    if (this.isAtEnd) return members;
    do {
      const [key] = this.take(KEY);
      const member = this.#skip("=") ? this.#member() : { value: true, parameters: this.#parameters() };
      members.delete(key); // a repeated key takes its last place
      members.set(key, member);
    } while (this.#comma());
    return members;
  }

  item(): Item {
    const value = this.#bare();
    return { value, parameters: this.#parameters() };
  }

  #member(): Member {
    if (!this.#skip("(")) return this.item();
    const items: Item[] = [];
    for (;;) {
      const spaces = this.take(SPACES)[0].length;
      if (this.#skip(")")) return { items, parameters: this.#parameters() };
      if (items.length > 0 && spaces === 0) throw new Malformed();
      items.push(this.item());
    }
  }

  /** Whether another member follows. @throws {Malformed} if something else does, or nothing after a comma. */
  #comma(): boolean {
    const before = this.#at;
    this.take(OPTIONAL_SPACES);
    if (this.isAtEnd) {
      this.#at = before; // trailing spaces are the whole field's, tabs are nobody's
      return false;
    }
    if (!this.#skip(",")) throw new Malformed();
    this.take(OPTIONAL_SPACES);
    if (this.isAtEnd) throw new Malformed();
    return true;
  }

  #parameters(): Parameters {
    if (this.text[this.#at] !== ";") return NO_PARAMETERS;
    const parameters = new Map<string, BareItem>();
    while (this.#skip(";")) {
      this.take(SPACES);
      const [key] = this.take(KEY);
      const value = this.#skip("=") ? this.#bare() : true;
      parameters.delete(key);
      parameters.set(key, value);
    }
    return parameters;
  }

  #bare(): BareItem {
    const first = this.text[this.#at];
    if (first === undefined) throw new Malformed();
    if (first === '"') return this.take(STRING)[1]!.replace(/\\(.)/g, "$1");
    if (first === ":") return fromBase64(this.take(BYTES)[1]!);
    if (first === "?") return this.take(BOOLEAN)[1] === "1";
    if (first === "-" || (first >= "0" && first <= "9")) return this.#number();
    return new Token(this.take(TOKEN)[0]);
  }

  #number(): number | Decimal {
    const [text, whole, fraction] = this.take(NUMBER);
    if (this.text[this.#at] === ".") throw new Malformed();
    const isTooLong = fraction === undefined ? whole!.length > 15 : whole!.length > 12 || fraction.length > 3;
    if (isTooLong) throw new Malformed();
    const value = Number(text);
    return fraction === undefined ? (value === 0 ? 0 : value) : new Decimal(value);
  }

  #skip(character: string): boolean {
    if (this.text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }
}

/** Writes an item. @throws {RangeError} for what no field can hold. */
export function serializeItem({ value, parameters }: Item): string {
  return serializeBare(value) + serializeParameters(parameters);
}

/** Writes a list; "" when it is empty, and the field is left out then. @throws {RangeError} as serializeItem. */
export function serializeList(members: readonly Member[]): string {
  return members.map(serializeMember).join(", ");
}

/** Writes a dictionary; "" when it is empty. @throws {RangeError} as serializeItem. */
export function serializeDictionary(members: ReadonlyMap<string, Member>): string {
  return [...members].map(([key, member]) =>
    "value" in member && member.value === true
      ? checkedKey(key) + serializeParameters(member.parameters)
      : `${checkedKey(key)}=${serializeMember(member)}`
  ).join(", ");
}

function serializeMember(member: Member): string {
  if ("value" in member) return serializeItem(member);
  return `(${member.items.map(serializeItem).join(" ")})${serializeParameters(member.parameters)}`;
}

function serializeParameters(parameters: Parameters): string {
  let text = "";
  for (const [key, value] of parameters) {
    text += `;${checkedKey(key)}`;
    if (value !== true) text += `=${serializeBare(value)}`;
  }
  return text;
}

function serializeBare(value: BareItem): string {
  if (typeof value === "boolean") return value ? "?1" : "?0";
  if (typeof value === "number") {
    if (!Number.isInteger(value) || Math.abs(value) > INTEGER_MAX) throw cannot("integer", value);
    return String(value === 0 ? 0 : value);
  }
  if (typeof value === "string") {
    if (!/^[\x20-\x7e]*$/.test(value)) throw cannot("string", value);
    return `"${value.replace(/["\\]/g, "\\$&")}"`;
  }
  if (value instanceof Token) {
    if (!isWhole(TOKEN, value.name)) throw cannot("token", value.name);
    return value.name;
  }
  if (value instanceof Decimal) return serializeDecimal(value.value);
  return `:${btoa(Array.from(value, (byte) => String.fromCharCode(byte)).join(""))}:`;
}

function serializeDecimal(value: number): string {
  const rounded = Math.round(value * 1000) / 1000;
  if (!(Math.abs(rounded) < 1e12)) throw cannot("decimal", value);
  const text = rounded.toFixed(3).replace(/0{1,2}$/, "");
  return text.startsWith("-0.0") && rounded === 0 ? "0.0" : text;
}

function checkedKey(key: string): string {
  if (!isWhole(KEY, key)) throw cannot("key", key);
  return key;
}

function isWhole(pattern: RegExp, text: string): boolean {
  pattern.lastIndex = 0;
  return pattern.exec(text)?.[0] === text && text !== "";
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    throw new Malformed(); // atob says no more than that
  }
}

function cannot(what: string, value: unknown): RangeError {
  return new RangeError(
    `Cannot serialize: not a ${what} of a structured field: ${String(value).slice(0, 64)}`,
  );
}
