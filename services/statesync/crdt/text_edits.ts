/** One edit of a text, checked (see TextEdit of the contract). */
export interface TextEdit {
  readonly index: number;
  readonly remove: number;
  readonly insert: string;
  /** Empty: none are set. */
  readonly attributes: Readonly<Record<string, unknown>>;
  /** How much is styled or moved. */
  readonly length: number;
  /** Where to, for a move; undefined for others. */
  readonly to: number | undefined;
  readonly isWhole: boolean;
}
