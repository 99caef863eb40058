/** Operations: whether the payload is one that the type of operation and of document takes (SPEC §2.1, §2.2), and what it is to
 *  do to the content. */
import type { Operation } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { StateSyncError } from "../errors.ts";
import type { DocumentType, OperationType } from "../records.ts";
import type { Content } from "./content.ts";
import type { Plan } from "./plan.ts";
import type { TextEdit } from "./text_edits.ts";

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
  /** By name; undefined takes one away. */
  readonly properties: ReadonlyMap<string, unknown>;
  readonly text: readonly TextEdit[];
}

/** An edit of cells: by cell (or, for `resize`, column or row). */
export interface CellChange {
  readonly kind: "cells";
  readonly cells: readonly {
    readonly cell: string;
    readonly properties: ReadonlyMap<string, unknown>;
    /** For `move`. */
    readonly to: string;
  }[];
}

/** An edit of a comment. */
export interface CommentChange {
  readonly kind: "comment";
  readonly commentId: string;
  /** By field; undefined takes one away. */
  readonly fields: ReadonlyMap<string, unknown>;
}

/** Who makes an edit and when, for what comments have of it. */
export interface EditContext {
  readonly userId: string;
  readonly nowMs: number;
  /** Makes the id of a comment that has none. */
  readonly newId: () => string;
}

/** Checks an operation, parses `data` where the payload came as JSON, and returns the operation with the typed payload and
 *  what it means.
 *  @throws {StateSyncError} `invalid`, naming the field and the limit. */
export function readEdit(
  operation: Operation,
  _documentType: DocumentType,
  _context: EditContext,
): { readonly operation: Operation; readonly edit: Edit } {
  throw new StateSyncError("invalid", operation.id);
}

/** Says what an edit, made with the present content in view, is to do.
 *  @throws {StateSyncError} `noObject`, `exists`, or `invalid` for positions outside of the text. */
export function planEdit(_content: Content, _edit: Edit): Plan {
  throw new StateSyncError("invalid");
}
