/** What the document's view knows of an editor, whichever type of document it is for. */
import type { SyncClient } from "../sync_client.ts";
import type { Me } from "../view.ts";

/** What an editor is made of. */
export interface EditorContext {
  readonly client: SyncClient;
  readonly me: Me;
  /** Ends when the view is left. */
  readonly signal: AbortSignal;
}

/** An editor of one document. */
export interface Editor {
  /** With its toolbar. */
  readonly element: HTMLElement;
  setReadOnly(isReadOnly: boolean): void;
  /** Objects that others hold locks on, and their holders' names; whiteboards and sheets. */
  setLocked?(holders: ReadonlyMap<string, string>): void;
  /** The object, cell or range that is selected, as locks and comments name it. */
  selected(): string | undefined;
  focus(): void;
}
