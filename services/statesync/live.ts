/** Documents as clients that synchronise them see them: what `sync/` needs of the service. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { DocumentType } from "./records.ts";

/** What somebody may do with a document, each more than the one before. */
export const ACCESS_LEVELS = ["none", "read", "comment", "edit", "manage"] as const;
export type AccessLevel = typeof ACCESS_LEVELS[number];

/** A client of an open document, as the service tells it things. None of these may throw. */
export interface LiveClient {
  readonly principal: Principal | undefined;
  /** What it may do has changed; `none` is followed by `onClosed`. */
  onAccess(access: AccessLevel): void;
  /** Something that was refused because of a lock, or what the server lacked, may be offered again. */
  onAskAgain(): void;
  /** The document is gone, or the client may not have it any more: it is left. */
  onClosed(error: Error): void;
}

/** All clients of one link that have a document open. */
export interface LiveListener {
  /** An edit (Yjs update, v1) that became durable, by whomever. The array is shared: not to be changed. */
  onUpdate(update: Uint8Array): void;
}

/** A document that is open. */
export interface LiveDocument {
  readonly id: string;
  /** Yjs state vector of the durable content. The array is shared. */
  stateVector(): Uint8Array;
  /** What a client with that state vector lacks, as updates to be applied in order. Equal questions about the same content
   *  get the same arrays, so that they can be sent once. May be a snapshot that is a little old, with the updates behind
   *  it. Rejects with a StateSyncError `invalid` for what is no state vector. */
  answer(stateVector: Uint8Array): Promise<readonly Uint8Array[]>;
  /** Takes a client's edit; resolves when it is on disk (at once when it brought nothing new). Rejects with a
   *  StateSyncError: `hostile` or `invalid` (the client is to be closed), `denied` (it may not edit), `locked` (names who
   *  holds the lock until when; `onAskAgain` comes when it may be offered again), `missing` (it builds on edits that the
   *  server has not: ask the client for all it has), and what the store says. */
  update(client: LiveClient, update: Uint8Array): Promise<void>;
  /** Tells a link's listener of edits from now on; the returned function ends that. */
  listen(listener: LiveListener): () => void;
  /** The client leaves. Idempotent. */
  leave(client: LiveClient): void;
}

/** A client that was let in. */
export interface Joined {
  readonly document: LiveDocument;
  readonly access: Exclude<AccessLevel, "none">;
}

/** The part of the service that `sync/` uses. */
export interface LiveDocuments {
  /** Opens a document for a client, which counts as one of its active users until it leaves. With `createType`, it is made
   *  when there is none and the caller may. Rejects with a StateSyncError `notFound`, `denied`, `tooMany`, … */
  join(docId: string, client: LiveClient, createType: DocumentType | undefined): Promise<Joined>;
}
