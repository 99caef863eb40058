/** Edits that are not known to be on the server's disk, kept in the browser so that a closed tab loses nothing. */

import * as Y from "yjs";
import type { SyncClient } from "./sync_client.ts";
import { throttled } from "./view.ts";

/** How often a draft is written while one writes, in ms. */
const WRITE_MS = 300;

const DATABASE = "aetherflow-console";
const STORE = "drafts";
/** Largest draft that is kept, in bytes: a browser gives a page more, but a copy is written after every pause. */
const DRAFT_BYTES_MAX = 8 * 1024 * 1024;

/** Drafts of one user. */
export interface Drafts {
  /** The draft of a document, if there is one. */
  read(documentId: string): Promise<Uint8Array | undefined>;
  write(documentId: string, update: Uint8Array): Promise<void>;
  remove(documentId: string): Promise<void>;
}

/** Opens the drafts of a user. A browser that keeps nothing, as in private windows, has none: edits live in memory then. */
export async function openDrafts(userId: string): Promise<Drafts> {
  let database: IDBDatabase;
  try {
    database = await open();
  } catch {
    return { read: () => Promise.resolve(undefined), write: nothing, remove: nothing };
  }
  const keyOf = (documentId: string) => [userId, documentId];

  function run<Value>(
    mode: IDBTransactionMode,
    act: (store: IDBObjectStore) => IDBRequest<Value>,
  ): Promise<Value> {
    const transaction = database.transaction(STORE, mode);
    return settled(act(transaction.objectStore(STORE)));
  }

  return {
    read: (id) => run<Uint8Array | undefined>("readonly", (store) => store.get(keyOf(id))),
    async write(id, update) {
      if (update.length <= DRAFT_BYTES_MAX) await run("readwrite", (store) => store.put(update, keyOf(id)));
    },
    async remove(id) {
      await run("readwrite", (store) => store.delete(keyOf(id)));
    },
  };
}

/** Keeps what is unsaved of a document as a draft until `signal` ends; what it returns is to be called when the client's
 *  state changes. */
export function keepDrafts(
  drafts: Drafts,
  documentId: string,
  client: SyncClient,
  signal: AbortSignal,
): () => void {
  let mayBeKept = true; // of an earlier visit
  const writeNow = () => {
    if (!client.state.isUnsaved) return;
    mayBeKept = true;
    drafts.write(documentId, Y.encodeStateAsUpdate(client.doc)).catch(ignore);
  };
  const write = throttled(WRITE_MS, writeNow);
  client.doc.on("update", () => {
    if (client.state.isUnsaved) write();
  });
  // The page may be gone before the next write is due.
  addEventListener("pagehide", writeNow, { signal });
  document.addEventListener("visibilitychange", writeNow, { signal });
  return () => {
    const { isUnsaved, isOnline } = client.state;
    if (isUnsaved || !isOnline || !mayBeKept) return;
    mayBeKept = false;
    drafts.remove(documentId).catch(ignore);
  };
}

/** A browser that is out of room keeps no draft: the edits stay in memory, and the page warns before it is left. */
function ignore(): void {}

function open(): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return settled(request);
}

function settled<Value>(request: IDBRequest<Value>): Promise<Value> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function nothing(): Promise<void> {}
