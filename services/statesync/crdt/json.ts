/** JSON values: one text for equal values, and what is taken of those that are passed in. */
import { StateSyncError } from "../errors.ts";
import { MAX_VALUE_DEPTH } from "./limits.ts";
import { isRecord } from "./names.ts";

/** Writes a value without spaces, keys sorted by code units. What is no JSON within it is null. */
export function writeJson(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "number":
      return Number.isFinite(value) ? JSON.stringify(value) : "null";
    case "boolean":
      return value ? "true" : "false";
    case "object":
      if (value === null) return "null";
      if (Array.isArray(value)) return `[${value.map(writeJson).join(",")}]`;
      if (isRecord(value)) return wrapMembers(Object.keys(value).map((key) => [key, writeJson(value[key])]));
  }
  return "null";
}

/** Writes an object of members whose values are written. */
export function wrapMembers(members: (readonly [string, string])[]): string {
  members.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return `{${members.map(([key, json]) => `${JSON.stringify(key)}:${json}`).join(",")}}`;
}

/** Whether two values are the same JSON. */
export function isSameJson(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  return writeJson(a) === writeJson(b);
}

/** Checks a value that was passed in under a name.
 *  @throws {StateSyncError} `invalid` for what would not come back as it is: numbers that are not finite, halves of
 *  characters, keys `__proto__`, more levels than 64. */
export function checkValue(value: unknown, name: string, depth = 0): void {
  if (typeof value === "string") return checkText(value, name);
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new StateSyncError("invalid", `${name} is ${value}, expected a finite number`);
  }
  if (typeof value !== "object" || value === null) return;
  if (depth === MAX_VALUE_DEPTH) {
    throw new StateSyncError("invalid", `${name} has more than ${MAX_VALUE_DEPTH} levels`);
  }
  if (Array.isArray(value)) {
    for (const member of value) checkValue(member, name, depth + 1);
    return;
  }
  for (const [key, member] of Object.entries(value)) {
    if (key === "__proto__") throw new StateSyncError("invalid", `${name} has a key __proto__`);
    checkText(key, name);
    checkValue(member, name, depth + 1);
  }
}

/** Bytes of JSON that one value may have. */
export const MAX_VALUE_BYTES = 262_144;

/** Checks a value that was passed in under a name, and its size.
 *  @throws {StateSyncError} `invalid`. */
export function checkSized(value: unknown, name: string): void {
  checkValue(value, name);
  if (typeof value === "number" || typeof value === "boolean" || value === null) return;
  // A code unit is six bytes at most, escaped: short texts need no look.
  if (typeof value === "string" && value.length * 6 + 2 <= MAX_VALUE_BYTES) return;
  const bytes = new TextEncoder().encode(JSON.stringify(value)).length;
  if (bytes > MAX_VALUE_BYTES) {
    throw new StateSyncError("invalid", `${name} has ${bytes} bytes, the limit is ${MAX_VALUE_BYTES}`);
  }
}

/** Checks a text that was passed in under a name.
 *  @throws {StateSyncError} `invalid` for half of a character. */
export function checkText(text: string, name: string): void {
  if (!text.isWellFormed()) throw new StateSyncError("invalid", `${name} has half of a character`);
}
