/** Names of what documents hold (SPEC §1.3). */

const ID = /^[A-Za-z0-9._~-]{1,128}$/;
const PROPERTY = /^[A-Za-z0-9._-]{1,64}$/;
const CELL = /^[A-Z]{1,3}[1-9][0-9]{0,6}$/;
const COLUMN = /^[A-Z]{1,3}$/;
const ROW = /^[1-9][0-9]{0,6}$/;
const MAX_ROW = 1_048_576;

/** Prefix of the names of properties that are style. */
export const STYLE = "style.";

/** Whether it can be the id of an object or a comment. */
export function isId(text: string): boolean {
  return ID.test(text);
}

/** Whether it can be the name of a property, or of an attribute of text. */
export function isProperty(text: string): boolean {
  return PROPERTY.test(text);
}

/** Whether it is a cell, `A1` to `ZZZ1048576`. */
export function isCell(text: string): boolean {
  if (!CELL.test(text)) return false;
  let letters = 1;
  while (text.charCodeAt(letters) >= 65) letters++;
  return Number(text.slice(letters)) <= MAX_ROW;
}

/** Whether it is a column, `A` to `ZZZ`. */
export function isColumn(text: string): boolean {
  return COLUMN.test(text);
}

/** Whether it is a row, `1` to `1048576`. */
export function isRow(text: string): boolean {
  return ROW.test(text) && Number(text) <= MAX_ROW;
}

/** The properties of objects that are finite numbers. */
export function isNumeric(property: string): boolean {
  return property === "x" || property === "y" || property === "width" || property === "height";
}

/** Whether an object can have that value under that name. `text` names its text and is no property. */
export function isObjectProperty(property: string, value: unknown): boolean {
  if (property === "kind") return isKind(value);
  if (isNumeric(property)) return typeof value === "number" && Number.isFinite(value);
  return property !== "text" && isProperty(property) && isValue(value);
}

/** Whether it can be what an object is. */
export function isKind(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= MAX_KIND_LENGTH;
}

/** Longest name of what an object is. */
export const MAX_KIND_LENGTH = 64;

/** Whether a cell, column or row can have that value under that name. */
export function isCellProperty(id: string, property: string, value: unknown): boolean {
  if (isCell(id)) {
    return (property === "value" || property.startsWith(STYLE) && property.length > STYLE.length) &&
      isProperty(property) && isValue(value);
  }
  return property === (isColumn(id) ? "width" : isRow(id) ? "height" : undefined) &&
    typeof value === "number" && Number.isFinite(value) && value >= 0;
}

/** Whether it is JSON at its top, and not null, which is how a property is not there. */
export function isValue(value: unknown): boolean {
  switch (typeof value) {
    case "string":
    case "boolean":
      return true;
    case "number":
      return Number.isFinite(value);
    case "object":
      return value !== null && (Array.isArray(value) || isRecord(value));
    default:
      return false;
  }
}

/** Whether it is an object as JSON has them: shared types and bytes are none. */
export function isRecord(value: object): value is Record<string, unknown> {
  return value.constructor === Object || Object.getPrototypeOf(value) === null;
}
