/** Documents that synchronising clients have open. */
import { nameOf, requireAccess } from "./access.ts";
import { type DecisionContext, makeChange } from "./changes.ts";
import { checkUpdate } from "./crdt/limits.ts";
import { scopeOf } from "./crdt/touch.ts";
import { decidePresence } from "./document_decisions.ts";
import type { Decision, Documents } from "./documents.ts";
import { StateSyncError } from "./errors.ts";
import { checkDocId } from "./limits.ts";
import type { Joined, LiveClient, LiveDocument, LiveDocuments, LiveListener } from "./live.ts";
import type { OpenDocument } from "./open_document.ts";
import { checkSize } from "./operations.ts";
import type { DocumentType } from "./records.ts";

/** How often an answer is made anew because what it had was lost to somebody else's change. */
const ANSWER_TRIES_MAX = 8;

/** What they need. */
export interface LiveDocumentsDeps {
  readonly documents: Documents;
  readonly context: () => DecisionContext;
  readonly limits: {
    readonly maxUpdateBytes: number;
    readonly maxUpdateStructs: number;
    readonly maxDocumentBytes: number;
  };
  /** Runs a function at the end of this turn of the event loop. */
  readonly endOfTurn: (run: () => void) => void;
  /** Makes a document for a client. */
  readonly create: (client: LiveClient, docId: string, type: DocumentType) => Promise<unknown>;
  /** Why nothing can be written, if so. */
  readonly failure: () => Error | undefined;
  readonly onTrouble: (text: string, error: unknown) => void;
}

/** The documents. */
export class OpenLiveDocuments implements LiveDocuments {
  readonly #deps: LiveDocumentsDeps;
  readonly #handles = new WeakMap<OpenDocument, LiveDocument>();
  readonly #announcing = new Set<Promise<void>>();
  #isClosed = false;

  constructor(deps: LiveDocumentsDeps) {
    this.#deps = deps;
  }

  /** Clients of all open documents. */
  get clients(): number {
    let count = 0;
    for (const document of this.#deps.documents.all()) count += document.clients.size;
    return count;
  }

  async join(docId: string, client: LiveClient, createType: DocumentType | undefined): Promise<Joined> {
    checkDocId(docId);
    const document = await this.#open(docId, client, createType);
    const access = requireAccess(client.principal, document.record, "read");
    if (document.clients.size === 0 && this.#deps.documents.isFull) {
      throw new StateSyncError("tooMany", "open documents take statesync.openBytesMax");
    }
    if (document.enter(client, access)) this.announce(document);
    let handle = this.#handles.get(document);
    if (handle === undefined) {
      handle = new LiveHandle(this, this.#deps, document);
      this.#handles.set(document, handle);
    }
    return { document: handle, access: access as Joined["access"] };
  }

  /** Sees to it that entries tell of who has come and gone. Many at once are one change. */
  announce(document: OpenDocument): void {
    if (document.isAnnouncing || document.failure !== undefined || document.isRemoved) return;
    if (!document.hasNewUsers || this.#deps.failure() !== undefined) return;
    document.isAnnouncing = true;
    const announcing = this.#announce(document)
      .catch((error) => this.#deps.onTrouble("writing down who has a document open failed", error))
      .finally(() => {
        this.#announcing.delete(announcing);
        document.isAnnouncing = false;
        // Others may have come or gone meanwhile.
        this.announce(document);
        this.#deps.documents.resized(document);
      });
    this.#announcing.add(announcing);
  }

  /** Ends it for all clients; resolves when it is written down that they have gone. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const document of this.#deps.documents.all()) {
      document.closeClients(new StateSyncError("stopped"));
      this.announce(document);
    }
    while (this.#announcing.size > 0) await Promise.all(this.#announcing);
  }

  async #open(
    docId: string,
    client: LiveClient,
    createType: DocumentType | undefined,
  ): Promise<OpenDocument> {
    for (let isNew = createType !== undefined;; isNew = false) {
      if (this.#isClosed) throw new StateSyncError("stopped");
      const document = await this.#deps.documents.open(docId);
      // Between being found and being awaited it may have gone.
      if (document !== undefined && document.failure === undefined && !document.isRemoved) return document;
      if (!isNew || document !== undefined) throw new StateSyncError("notFound");
      try {
        await this.#deps.create(client, docId, createType!);
      } catch (error) {
        // Somebody else was faster.
        if (!(error instanceof StateSyncError && error.kind === "exists")) throw error;
      }
    }
  }

  #announce(document: OpenDocument): Promise<void> {
    const { documents, context, endOfTurn } = this.#deps;
    return new Promise((resolve, reject) =>
      endOfTurn(() => {
        documents.write(document.id, (document) => decidePresence(document, context())).then(resolve, reject);
      })
    );
  }
}

class LiveHandle implements LiveDocument {
  readonly id: string;

  constructor(
    private readonly owner: OpenLiveDocuments,
    private readonly deps: LiveDocumentsDeps,
    private readonly document: OpenDocument,
  ) {
    this.id = document.id;
  }

  stateVector(): Uint8Array {
    return this.document.keptVector();
  }

  async answer(stateVector: Uint8Array): Promise<readonly Uint8Array[]> {
    const { document } = this;
    for (let tries = 1;; tries++) {
      if (document.reloading !== undefined) await document.reloading;
      if (document.failure !== undefined) throw document.failure;
      const before = document.shared.bytes;
      const answer = document.shared.answer(stateVector);
      if (document.shared.bytes !== before) this.deps.documents.resized(document);
      if (document.pending === 0 || await document.settled()) return answer;
      if (tries === ANSWER_TRIES_MAX) {
        throw new StateSyncError("unavailable", "others change it all the time");
      }
    }
  }

  async update(client: LiveClient, update: Uint8Array): Promise<void> {
    const { documents, limits: { maxUpdateBytes, maxUpdateStructs, maxDocumentBytes }, context } = this.deps;
    checkUpdate(update, { maxBytes: maxUpdateBytes, maxStructs: maxUpdateStructs });
    await documents.write(
      this.id,
      (document) => decideClientUpdate(document, client, update, maxDocumentBytes, context()),
    );
  }

  listen(listener: LiveListener): () => void {
    this.document.listeners.add(listener);
    return () => this.document.listeners.delete(listener);
  }

  leave(client: LiveClient): void {
    const { document } = this;
    const isGone = document.leave(client);
    if (document.clients.size === 0) {
      // What new clients are given is made again when one comes.
      document.shared.drop();
      this.deps.documents.resized(document);
    }
    if (isGone) this.owner.announce(document);
  }
}

/** Takes a client's update, which was checked, into the document.
 *  @throws {StateSyncError} */
function decideClientUpdate(
  document: OpenDocument,
  client: LiveClient,
  update: Uint8Array,
  maxDocumentBytes: number,
  context: DecisionContext,
): Decision<void> {
  const { record, content, locks } = document;
  if (!document.clients.has(client)) throw new StateSyncError("unavailable", "the client has left");
  const access = requireAccess(client.principal, record, "read");
  const { isMissing, touch } = content.inspect(update);
  const { objects, hasContent, comments } = scopeOf(touch);
  if (access === "read") {
    if (isMissing || hasContent || comments.size > 0) {
      throw new StateSyncError("denied", "the caller may read only");
    }
    // What a reader answers has the deletions of others, which are here.
    return { value: undefined };
  }
  if (isMissing) throw new StateSyncError("missing");
  const userId = nameOf(client.principal);
  if (access === "comment" && hasContent) {
    throw new StateSyncError("denied", "the caller may write comments only");
  }
  if (comments.size > 0 && access !== "manage" && content.foreignComments(touch, userId).length > 0) {
    throw new StateSyncError("denied", "the comment is another's");
  }
  if (hasContent || comments.size > 0) {
    if (record.state !== "active") {
      document.refused.add(client);
      throw new StateSyncError("notActive", `it is ${record.state}`);
    }
  }
  if (hasContent && locks.hasOthers(userId, context.nowMs)) {
    try {
      locks.checkFree(userId, objects, context.nowMs);
    } catch (error) {
      document.refused.add(client);
      throw error;
    }
  }
  checkSize(document, maxDocumentBytes, update.length);
  const fresh = content.applyRemote(update);
  if (fresh === undefined) return { value: undefined };
  if (document.join(client, fresh)) return { value: undefined, isJoined: true };
  const change = makeChange(context, record, {}, [
    { type: "document_updated", userId, isVersion: true, update: fresh, data: CONTENT },
  ]);
  return { value: undefined, change, client };
}

const CONTENT: Readonly<Record<string, string>> = { change: "content" };
