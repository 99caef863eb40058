/** What an operation is to do to a content as it is: the step between an edit that somebody meant and a change. */
import type { TextDelta } from "./delta.ts";

/** What is to be done. */
export interface Plan {
  /** Values to write, undefined to take away, by target (see Touch). */
  readonly properties: ReadonlyMap<string, unknown>;
  /** Changes of texts, by root. */
  readonly texts: ReadonlyMap<string, TextDelta>;
  /** Texts to empty, by root: those of removed objects. */
  readonly emptied: readonly string[];
}
