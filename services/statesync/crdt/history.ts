/** A document's past: what changed between versions and by whom, taking back one person's edits, and going back. */
import { StateSyncError } from "../errors.ts";
import type { DocumentType } from "../records.ts";
import type { ContentParts, StoredUpdate } from "../store.ts";
import type { Random } from "../../runtime/random.ts";
import type { Content } from "./content.ts";

/** A piece of a text, as TextPiece of the contract. */
export interface Piece {
  readonly kind: "same" | "inserted" | "deleted";
  readonly text: string;
  /** Who inserted or deleted it; empty for `same`. */
  readonly userId: string;
}

/** A property that is another one, as PropertyChange of the contract. */
export interface Changed {
  readonly target: string;
  /** Undefined: there was none. */
  readonly before: unknown;
  readonly after: unknown;
  readonly userId: string;
}

/** What changed between two versions. */
export interface Difference {
  readonly text: readonly Piece[];
  readonly changes: readonly Changed[];
}

/** Compares the content `from` with what `between`, the edits that follow it, made of it. Takes the time of loading both. */
export function diffVersions(
  _type: DocumentType,
  _from: ContentParts,
  _between: readonly StoredUpdate[],
): Difference {
  throw new StateSyncError("invalid");
}

/** That edits were taken back: entries that an undo made are no edits to take back themselves. */
export interface Undone {
  /** Offset of the entry that it made. */
  readonly offset: number;
  /** Whose edits. */
  readonly userId: string;
  /** How many. */
  readonly count: number;
}

/** Which edits to take back. */
export interface UndoRequest {
  /** The content at the present version, in parts: edits are taken back as far as `updates` reach. */
  readonly parts: ContentParts;
  readonly userId: string;
  /** Edits that follow one another within 500 ms are one. */
  readonly count: number;
  /** Earlier undos among the updates. */
  readonly undone: readonly Undone[];
}

/** Takes back the last edits of one user on the live content and leaves those of others. */
export function undoEdits(
  _content: Content,
  _request: UndoRequest,
  _random: Random,
): { readonly update: Uint8Array | undefined; readonly undone: number } {
  throw new StateSyncError("invalid");
}

/** Makes the live content what it was, with the attributes of its texts; comments stay. */
export function restoreContent(
  _content: Content,
  _old: ContentParts,
  _random: Random,
): Uint8Array | undefined {
  throw new StateSyncError("invalid");
}
