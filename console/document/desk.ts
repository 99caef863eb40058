/** What the panels beside a document share. */
import { ACCESS, type Access, type DocumentEvent, type DocumentRecord } from "../records.ts";
import type { SyncClient } from "../sync_client.ts";
import type { Me } from "../view.ts";

/** The document that is open, and what the panels may do with its view. */
export interface Desk {
  readonly record: DocumentRecord;
  readonly access: Access;
  readonly me: Me;
  /** Ends when the view is left. */
  readonly signal: AbortSignal;
  readonly client: SyncClient;
  /** What is selected in the editor, as locks and comments name it. */
  selected(): string | undefined;
  /** Shows a picture in place of the editor, with words above it; without one the editor again. */
  preview(picture?: HTMLElement, words?: string): void;
  /** Locks of others have changed. */
  onLocks(document: string | undefined, objects: ReadonlyMap<string, string>): void;
  /** How many conflicts wait. */
  onConflicts(count: number): void;
}

/** One panel. */
export interface Panel {
  readonly title: string;
  readonly element: HTMLElement;
  /** Reads the present state; called when the panel is opened, and when the stream of events begins anew. */
  refresh(): Promise<void>;
  /** Whether an event changes what `refresh` reads. */
  concerns(event: DocumentEvent): boolean;
  /** Whether it is read even while the panel is closed. */
  readonly isAlwaysFresh: boolean;
  /** The panel is closed, or makes room for another one. */
  leave?(): void;
}

/** Whether `access` is `least` or more. */
export function mayAtLeast(access: Access, least: Access): boolean {
  return ACCESS.indexOf(access) >= ACCESS.indexOf(least);
}
