/** Operations: whether the payload is one that the type of operation and of document takes (SPEC §2.1, §2.2), and what it
 *  means. */
import { type DescMessage, fromJson, type JsonValue, type MessageShape } from "@bufbuild/protobuf";
import type { Value } from "@bufbuild/protobuf/wkt";
import {
  type CellEdit,
  type CellEdits,
  CellEditsSchema,
  type CommentEdit,
  CommentEditSchema,
  type ObjectEdit,
  ObjectEditSchema,
  type Operation,
  type TextEdit as TextEditMessage,
  type TextEdits,
  TextEditsSchema,
} from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { StateSyncError } from "../errors.ts";
import { type DocumentType, OPERATION_TYPES, type OperationType } from "../records.ts";
import { checkSized, checkText } from "./json.ts";
import { MAX_VALUE_DEPTH } from "./limits.ts";
import {
  isCell,
  isCellProperty,
  isColumn,
  isId,
  isKind,
  isObjectProperty,
  isProperty,
  isRow,
  STYLE,
} from "./names.ts";
import type { TextEdit } from "./text_edits.ts";

export { planEdit } from "./plan.ts";

/** Edits of one operation: composing them takes the square of their number. */
export const MAX_EDITS = 1_000;

/** Bytes of a comment. */
export const MAX_COMMENT_BYTES = 16_384;

/** Bytes of what a comment is about: an object id, a cell, or two numbers. */
const MAX_ANCHOR_BYTES = 128;

/** What an operation means, checked as far as it can be without the content. */
export interface Edit {
  readonly type: OperationType;
  readonly change: TextChange | ObjectChange | CellChange | CommentChange;
}

/** Edits of the text of a text document. */
export interface TextChange {
  readonly kind: "text";
  readonly edits: readonly TextEdit[];
}

/** An edit of one object. */
export interface ObjectChange {
  readonly kind: "object";
  readonly objectId: string;
  /** By name, `kind` among them when it is made; undefined takes one away. */
  readonly properties: ReadonlyMap<string, unknown>;
  readonly text: readonly TextEdit[];
}

/** An edit of cells, in their order. */
export interface CellChange {
  readonly kind: "cells";
  readonly cells: readonly OneCell[];
}

/** An edit of one cell (or, for `resize`, of a column or row). */
export interface OneCell {
  readonly cell: string;
  /** By name; undefined takes one away. */
  readonly properties: ReadonlyMap<string, unknown>;
  /** Where to, for `move`; empty for others. */
  readonly to: string;
}

/** An edit of a comment. */
export interface CommentChange {
  readonly kind: "comment";
  readonly commentId: string;
  /** By field; those that are not there stay. */
  readonly fields: ReadonlyMap<string, unknown>;
}

/** Who makes an edit and when, for what a new comment has of it. */
export interface EditContext {
  readonly userId: string;
  readonly nowMs: number;
  /** Makes the id of a comment that has none. */
  readonly newId: () => string;
}

/** Checks an operation and returns it with the typed payload (also where that came as JSON in `data`, or got an id), and what
 *  it means.
 *  @throws {StateSyncError} `invalid`, naming the field and the limit. */
export function readEdit(
  operation: Operation,
  documentType: DocumentType,
  context: EditContext,
): { readonly operation: Operation; readonly edit: Edit } {
  const type = operation.type as OperationType;
  if (!OPERATION_TYPES.includes(type)) {
    throw invalid(`type is ${JSON.stringify(operation.type)}, expected ${OPERATION_TYPES.join(", ")}`);
  }
  const payload = operation.data.length === 0 ? operation.payload : readData(operation, documentType);
  const read = { ...operation, data: NO_BYTES, payload };
  switch (payload.case) {
    case "text":
      expect(documentType === "text", payload.case, documentType);
      return { operation: read, edit: { type, change: readText(type, payload.value) } };
    case "object":
      expect(documentType === "whiteboard" || documentType === "canvas", payload.case, documentType);
      return { operation: read, edit: { type, change: readObject(type, payload.value) } };
    case "cells":
      expect(documentType === "sheet", payload.case, documentType);
      return { operation: read, edit: { type, change: readCells(type, payload.value) } };
    case "comment": {
      const value = payload.value.commentId === "" && type === "create"
        ? { ...payload.value, commentId: context.newId() }
        : payload.value;
      read.payload = { case: "comment", value };
      return { operation: read, edit: { type, change: readComment(type, value, context) } };
    }
    default:
      throw invalid("payload is missing: expected text, object, cells or comment");
  }
}

const NO_BYTES = new Uint8Array(0);

function invalid(detail: string): StateSyncError {
  return new StateSyncError("invalid", detail);
}

function expect(isRight: boolean, payload: string, documentType: DocumentType): void {
  if (!isRight) throw invalid(`payload ${payload} is none of a ${documentType}`);
}

// ---- JSON ----

const PAYLOADS = {
  text: TextEditsSchema,
  object: ObjectEditSchema,
  cells: CellEditsSchema,
  comment: CommentEditSchema,
} as const;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Reads the payload from `data`: the message of the document's type, or an object with the payload's name and its message. */
function readData(operation: Operation, documentType: DocumentType): Operation["payload"] {
  if (operation.payload.case !== undefined) throw invalid("data and a typed payload exclude one another");
  let json: JsonValue;
  try {
    json = JSON.parse(utf8.decode(operation.data)) as JsonValue;
  } catch (cause) {
    throw new StateSyncError("invalid", "data is no JSON", { cause });
  }
  const [name, value] = wrapped(json) ??
    [documentType === "text" ? "text" : documentType === "sheet" ? "cells" : "object", json] as const;
  return { case: name, value: fromData(PAYLOADS[name], value) } as Operation["payload"];
}

function wrapped(json: JsonValue): readonly [keyof typeof PAYLOADS, JsonValue] | undefined {
  if (typeof json !== "object" || json === null || Array.isArray(json)) return undefined;
  const entries = Object.entries(json);
  const [name, value] = entries[0] ?? [];
  if (entries.length !== 1 || name === undefined || !Object.hasOwn(PAYLOADS, name)) return undefined;
  return [name as keyof typeof PAYLOADS, value!];
}

function fromData<Desc extends DescMessage>(schema: Desc, json: JsonValue): MessageShape<Desc> {
  try {
    return fromJson(schema, json);
  } catch (cause) {
    throw new StateSyncError("invalid", `data: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}

// ---- texts ----

function readText(type: OperationType, { edits }: TextEdits): TextChange {
  if (type === "resize") throw invalid("type resize is none of a text");
  return { kind: "text", edits: readTextEdits(type, edits, "text.edits") };
}

/** What each type reads of a TextEdit besides `index`. */
const TEXT_FIELDS: Readonly<Record<OperationType, readonly (keyof TextEditMessage)[]>> = {
  create: ["insert", "replaceAll"],
  update: ["delete", "insert", "attributes", "replaceAll"],
  delete: ["delete"],
  move: ["length", "to"],
  resize: [],
  style: ["length", "attributes"],
  text: ["delete", "insert", "attributes"],
};

const FIELDS = ["delete", "insert", "attributes", "length", "to", "replaceAll"] as const;

function readTextEdits(type: OperationType, edits: readonly TextEditMessage[], name: string): TextEdit[] {
  checkAmount(edits.length, name);
  return edits.map((edit, i) => {
    const path = `${name}[${i}]`;
    for (const field of FIELDS) {
      if (isSet(edit[field]) && !TEXT_FIELDS[type].includes(field)) {
        throw invalid(`${path}.${snake(field)} is none of type ${type}`);
      }
    }
    if (type === "create" && !edit.replaceAll) throw invalid(`${path}.replace_all is missing`);
    if (edit.replaceAll && (edits.length > 1 || edit.index > 0 || edit.delete > 0)) {
      throw invalid(`${path}.replace_all stands alone, with insert`);
    }
    if ((type === "move" || type === "style") && edit.length === 0) throw invalid(`${path}.length is 0`);
    if (type === "delete" && edit.delete === 0) throw invalid(`${path}.delete is 0`);
    checkText(edit.insert, `${path}.insert`);
    return {
      index: edit.index,
      remove: edit.delete,
      insert: edit.insert,
      attributes: readAttributes(edit.attributes, `${path}.attributes`, type === "style"),
      length: edit.length,
      to: type === "move" ? edit.to : undefined,
      isWhole: edit.replaceAll,
    };
  });
}

function readAttributes(
  attributes: Record<string, Value>,
  name: string,
  isNeeded: boolean,
): Record<string, unknown> | undefined {
  const entries = Object.entries(attributes);
  if (entries.length === 0) {
    if (isNeeded) throw invalid(`${name} is empty`);
    return undefined;
  }
  const read: Record<string, unknown> = {};
  for (const [key, value] of entries) {
    if (!isProperty(key) || key === "__proto__") {
      throw invalid(`${name} has ${JSON.stringify(key)}, which is no name`);
    }
    read[key] = readValue(value, `${name}.${key}`) ?? null;
  }
  return read;
}

function checkAmount(amount: number, name: string): void {
  if (amount < 1 || amount > MAX_EDITS) throw invalid(`${name} has ${amount}, expected 1 to ${MAX_EDITS}`);
}

function isSet(value: unknown): boolean {
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return value !== undefined && value !== 0 && value !== "" && value !== false;
}

function snake(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

// ---- objects ----

const GEOMETRY = ["x", "y", "width", "height"] as const;

function readObject(type: OperationType, object: ObjectEdit): ObjectChange {
  const { objectId } = object;
  if (!isId(objectId)) throw invalid("object.object_id is no 1 to 128 of A-Z a-z 0-9 . _ ~ -");
  checkObjectFields(type, object);
  const properties = new Map<string, unknown>();
  if (type === "create") properties.set("kind", object.kind);
  for (const [name, value] of Object.entries(object.properties)) {
    const key = type === "style" && !name.startsWith(STYLE) ? STYLE + name : name;
    const path = `object.properties.${name}`;
    const read = readValue(value, path);
    if (key === "kind" || !isObjectProperty(key, read ?? probeOf(key))) {
      throw invalid(`${path} is no property, or cannot have that value`);
    }
    properties.set(key, read);
  }
  for (const name of GEOMETRY) {
    const value = object[name];
    if (value === undefined) continue;
    if (!Number.isFinite(value)) throw invalid(`object.${name} is ${value}, expected a finite number`);
    properties.set(name, value);
  }
  const text = type === "text" ? readTextEdits(type, object.text?.edits ?? [], "object.text.edits") : [];
  return { kind: "object", objectId, properties, text };
}

/** A value that a property of that name can have. */
function probeOf(property: string): unknown {
  return GEOMETRY.some((name) => name === property) ? 0 : true;
}

function checkObjectFields(type: OperationType, object: ObjectEdit): void {
  const hasProperties = Object.keys(object.properties).length > 0;
  const hasPlace = object.x !== undefined || object.y !== undefined;
  const hasSize = object.width !== undefined || object.height !== undefined;
  const refuse = (isThere: boolean, field: string) => {
    if (isThere) throw invalid(`object.${field} is none of type ${type}`);
  };
  const need = (isThere: boolean, field: string) => {
    if (!isThere) throw invalid(`object.${field} is missing for type ${type}`);
  };
  if (type === "create") {
    if (!isKind(object.kind)) throw invalid("object.kind is no text of 1 to 64");
    checkText(object.kind, "object.kind");
  } else refuse(object.kind !== "", "kind");
  const takesProperties = type === "create" || type === "update" || type === "style";
  const takesPlace = type === "create" || type === "update" || type === "move" || type === "resize";
  refuse(hasProperties && !takesProperties, "properties");
  refuse(hasPlace && !takesPlace, object.x === undefined ? "y" : "x");
  refuse(hasSize && (!takesPlace || type === "move"), object.width === undefined ? "height" : "width");
  refuse(object.text !== undefined && type !== "text", "text");
  if (type === "update") need(hasProperties || hasPlace || hasSize, "properties");
  if (type === "style") need(hasProperties, "properties");
  if (type === "move") need(hasPlace, "x");
  if (type === "resize") need(hasSize, "width");
  if (type === "text") need(object.text !== undefined, "text");
}

// ---- cells ----

function readCells(type: OperationType, { edits }: CellEdits): CellChange {
  checkAmount(edits.length, "cells.edits");
  return { kind: "cells", cells: edits.map((edit, i) => readCell(type, edit, `cells.edits[${i}]`)) };
}

function readCell(type: OperationType, edit: CellEdit, path: string): OneCell {
  const isResize = type === "resize";
  if (isResize ? !isColumn(edit.cell) && !isRow(edit.cell) : !isCell(edit.cell)) {
    throw invalid(
      `${path}.cell is ${JSON.stringify(edit.cell)}, expected ${
        isResize ? "a column or row" : "A1 to ZZZ1048576"
      }`,
    );
  }
  const hasStyle = Object.keys(edit.style).length > 0;
  const takesValue = type === "create" || type === "update" || type === "text";
  const given = {
    value: edit.value !== undefined,
    style: hasStyle,
    to: edit.to !== "",
    size: edit.size !== undefined,
  };
  const taken = { value: takesValue, style: type === "style", to: type === "move", size: isResize };
  for (const field of ["value", "style", "to", "size"] as const) {
    if (given[field] && !taken[field]) throw invalid(`${path}.${field} is none of type ${type}`);
    if (!given[field] && taken[field]) throw invalid(`${path}.${field} is missing for type ${type}`);
  }
  if (given.to && !isCell(edit.to)) {
    throw invalid(`${path}.to is ${JSON.stringify(edit.to)}, expected A1 to ZZZ1048576`);
  }
  return { cell: edit.cell, properties: readCellProperties(type, edit, path), to: edit.to };
}

function readCellProperties(type: OperationType, edit: CellEdit, path: string): Map<string, unknown> {
  const properties = new Map<string, unknown>();
  if (edit.value !== undefined) {
    const value = readValue(edit.value, `${path}.value`);
    if (value === undefined && type === "create") throw invalid(`${path}.value is null`);
    properties.set("value", value);
  }
  for (const [name, value] of Object.entries(edit.style)) {
    const key = STYLE + name;
    const read = readValue(value, `${path}.style.${name}`);
    if (!isCellProperty(edit.cell, key, read ?? true)) {
      throw invalid(`${path}.style.${name} is no name of a style`);
    }
    properties.set(key, read);
  }
  if (edit.size !== undefined) {
    const key = isColumn(edit.cell) ? "width" : "height";
    if (!isCellProperty(edit.cell, key, edit.size)) {
      throw invalid(`${path}.size is ${edit.size}, expected 0 or more`);
    }
    properties.set(key, edit.size);
  }
  return properties;
}

// ---- comments ----

function readComment(type: OperationType, comment: CommentEdit, context: EditContext): CommentChange {
  const { commentId, body, anchor, replyTo } = comment;
  if (!isId(commentId)) throw invalid("comment.comment_id is no 1 to 128 of A-Z a-z 0-9 . _ ~ -");
  checkBytes(body, MAX_COMMENT_BYTES, "comment.body");
  checkBytes(anchor, MAX_ANCHOR_BYTES, "comment.anchor");
  if (replyTo !== "" && !isId(replyTo)) throw invalid("comment.reply_to is no id of a comment");
  const fields = new Map<string, unknown>();
  switch (type) {
    case "create":
      if (body === "") throw invalid("comment.body is empty");
      fields.set("author", context.userId).set("createdAt", context.nowMs).set("resolved", comment.resolved);
      break;
    case "update":
      if (replyTo !== "") throw invalid("comment.reply_to is none of type update");
      fields.set("resolved", comment.resolved);
      break;
    case "delete":
      if (body !== "" || anchor !== "" || replyTo !== "" || comment.resolved) {
        throw invalid("comment has more than comment_id, with type delete");
      }
      break;
    default:
      throw invalid(`type ${type} is none of a comment`);
  }
  if (body !== "") fields.set("body", body);
  if (anchor !== "") fields.set("anchor", anchor);
  if (replyTo !== "") fields.set("replyTo", replyTo);
  return { kind: "comment", commentId, fields };
}

function checkBytes(text: string, limit: number, name: string): void {
  checkText(text, name);
  // Three bytes a code unit at most: short texts need no look.
  if (text.length * 3 <= limit) return;
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > limit) throw invalid(`${name} has ${bytes} bytes, the limit is ${limit}`);
}

// ---- values ----

/** Reads a value; undefined for null, which takes a property away. */
function readValue(value: Value, name: string): unknown {
  const read = plain(value, 0);
  checkSized(read, name);
  return read ?? undefined;
}

/** Levels that are read: one more than the check lets pass. */
const MAX_LEVELS = MAX_VALUE_DEPTH + 1;

function plain(value: Value, level: number): unknown {
  const { kind } = value;
  switch (kind.case) {
    case "numberValue":
    case "stringValue":
    case "boolValue":
      return kind.value;
    case "listValue":
      return level === MAX_LEVELS ? null : kind.value.values.map((member) => plain(member, level + 1));
    case "structValue": {
      const record: Record<string, unknown> = {};
      if (level === MAX_LEVELS) return record;
      for (const [key, member] of Object.entries(kind.value.fields)) {
        // Defined, not assigned: a key __proto__ is to be seen by the check.
        Object.defineProperty(record, key, {
          value: plain(member, level + 1),
          enumerable: true,
          writable: true,
          configurable: true,
        });
      }
      return record;
    }
    default:
      return null;
  }
}
