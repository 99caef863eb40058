/** Changes of a text as data: how edits that follow one another become one, and move over other people's. Positions are UTF-16
 *  code units. */

/** Attributes of text; null takes one away. */
export type Attributes = Readonly<Record<string, unknown>>;

/** One step of a change, from the start of the text on: pass over text (`attributes`: and style it), remove some, insert some,
 *  or put here what stands at `index` of the text before the change, and there goes. What is behind the last step stays. */
export type DeltaStep =
  | { readonly keep: number; readonly attributes?: Attributes | undefined }
  | { readonly remove: number }
  | { readonly insert: string; readonly attributes?: Attributes | undefined }
  | { readonly move: number; readonly length: number; readonly attributes?: Attributes | undefined };

/** A change of a text. */
export type TextDelta = readonly DeltaStep[];
