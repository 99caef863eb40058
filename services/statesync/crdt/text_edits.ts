/** Edits of a text one after the other, made into one change of the text as it was before them. */
import { StateSyncError } from "../errors.ts";
import type { Attributes, DeltaStep, TextDelta } from "./delta.ts";

/** One edit of a text, checked (see TextEdit of the contract). */
export interface TextEdit {
  readonly index: number;
  readonly remove: number;
  readonly insert: string;
  /** Undefined: none are set; inserted text has those of its place. */
  readonly attributes: Attributes | undefined;
  /** How much is styled or moved. */
  readonly length: number;
  /** Where to, for a move; undefined for others. */
  readonly to: number | undefined;
  /** `insert` is the whole text; the only edit then. */
  readonly isWhole: boolean;
}

/** A piece of the text between edits: of the old text, or new. */
type Piece =
  | {
    readonly from: number;
    readonly length: number;
    readonly isMoved: boolean;
    readonly attributes: Attributes | undefined;
  }
  | { readonly text: string; readonly attributes: Attributes | undefined };

/** Makes one change of `edits`, of a text of `length` code units. Takes time that grows with the square of their number, of
 *  which there are 1,000 at most.
 *  @throws {StateSyncError} `invalid`, naming the edit that is not within the text. */
export function composeEdits(length: number, edits: readonly TextEdit[]): TextDelta {
  const pieces: Piece[] = length === 0 ? [] : [{ from: 0, length, isMoved: false, attributes: undefined }];
  let total = length;
  edits.forEach((edit, i) => {
    const taken = edit.remove + edit.length;
    checkWithin(edit.index + taken, total, `edits[${i}]`);
    if (edit.to !== undefined) {
      checkWithin(edit.to, total, `edits[${i}].to`);
      move(pieces, edit.index, edit.length, edit.to);
      return;
    }
    const at = split(pieces, edit.index);
    const end = split(pieces, edit.index + taken);
    if (edit.remove > 0) pieces.splice(at, end - at);
    else if (edit.length > 0) style(pieces, at, end, edit.attributes ?? {});
    if (edit.insert !== "") pieces.splice(at, 0, { text: edit.insert, attributes: edit.attributes });
    total += edit.insert.length - edit.remove;
  });
  return toDelta(pieces, length);
}

function checkWithin(index: number, total: number, name: string): void {
  if (index > total) {
    throw new StateSyncError("invalid", `${name} reaches ${index}, the text has ${total} code units`);
  }
}

function move(pieces: Piece[], index: number, length: number, to: number): void {
  const end = index + length;
  if (to >= index && to <= end) return;
  const at = split(pieces, index);
  const taken = pieces.splice(at, split(pieces, end) - at).map((piece) =>
    "text" in piece ? piece : { ...piece, isMoved: true }
  );
  pieces.splice(split(pieces, to > end ? to - length : to), 0, ...taken);
}

function style(pieces: Piece[], at: number, end: number, attributes: Attributes): void {
  for (let i = at; i < end; i++) {
    const piece = pieces[i]!;
    pieces[i] = { ...piece, attributes: { ...piece.attributes, ...attributes } };
  }
}

/** Makes a piece begin at an index, and returns its place. */
function split(pieces: Piece[], index: number): number {
  let left = index;
  for (let i = 0; i < pieces.length; i++) {
    if (left === 0) return i;
    const piece = pieces[i]!;
    const size = "text" in piece ? piece.text.length : piece.length;
    if (left < size) {
      pieces.splice(i, 1, ...cut(piece, left));
      return i + 1;
    }
    left -= size;
  }
  return pieces.length;
}

function cut(piece: Piece, at: number): [Piece, Piece] {
  if ("text" in piece) {
    return [{ ...piece, text: piece.text.slice(0, at) }, { ...piece, text: piece.text.slice(at) }];
  }
  return [{ ...piece, length: at }, { ...piece, from: piece.from + at, length: piece.length - at }];
}

function toDelta(pieces: readonly Piece[], length: number): TextDelta {
  const steps: DeltaStep[] = [];
  let next = 0;
  for (const piece of pieces) {
    const { attributes } = piece;
    if ("text" in piece) steps.push({ insert: piece.text, attributes });
    else if (piece.isMoved) steps.push({ copy: piece.from, length: piece.length, attributes });
    else {
      if (piece.from > next) steps.push({ remove: piece.from - next });
      steps.push({ keep: piece.length, attributes });
      next = piece.from + piece.length;
    }
  }
  if (next < length) steps.push({ remove: length - next });
  return trimmed(steps);
}

/** Without the last steps that change nothing. */
function trimmed(steps: DeltaStep[]): TextDelta {
  for (let last = steps.at(-1); last !== undefined; last = steps.at(-1)) {
    if (!("keep" in last) || last.attributes !== undefined) break;
    steps.pop();
  }
  return steps;
}
