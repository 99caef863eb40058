/** A document's past: its versions, what changed between them and by whom, and going back. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { Random } from "../runtime/random.ts";
import { nameOf, requireAccess } from "./access.ts";
import { type DecisionContext, makeChange } from "./changes.ts";
import { Content } from "./crdt/content.ts";
import { type Difference, diffVersions, restoreContent, undoEdits, type Undone } from "./crdt/history.ts";
import { documentEntry } from "./document_decisions.ts";
import type { Documents, Later } from "./documents.ts";
import { entriesBetween } from "./edits_since.ts";
import { StateSyncError } from "./errors.ts";
import type { OpenDocument } from "./open_document.ts";
import { checkSize } from "./operations.ts";
import type { DocumentRecord, Entry, NamedVersion, StoredEntry } from "./records.ts";
import type { ContentParts, DocumentStore, StoredUpdate } from "./store.ts";

/** Versions back to which edits can be taken back. */
const UNDO_REACH = 2_000;
/** Versions compared at once. */
const DIFF_VERSIONS_MAX = 10_000;
/** Named versions of one document: each keeps a copy of the content. */
const NAMES_MAX = 1_000;

/** A version in a list. */
export interface ListedVersion {
  /** The change that made it; undefined where it was compacted, of named versions. */
  readonly entry: StoredEntry | undefined;
  readonly version: number;
  readonly name: NamedVersion | undefined;
}

/** What history needs. */
export interface HistoryDeps {
  readonly store: DocumentStore;
  readonly documents: Documents;
  readonly random: Random;
  readonly context: () => DecisionContext;
  readonly maxDocumentBytes: number;
}

/** The past of all documents. Callers have been found to be allowed to read. */
export class History {
  readonly #deps: HistoryDeps;

  constructor(deps: HistoryDeps) {
    this.#deps = deps;
  }

  /** Versions below `before`, newest first, up to `limit`; the named ones alone if `isNamed`. */
  async list(docId: string, before: number, limit: number, isNamed: boolean): Promise<ListedVersion[]> {
    const names = await this.#deps.store.names(docId);
    if (isNamed) {
      const listed = names.filter(({ version }) => version < before).reverse().slice(0, limit);
      return await Promise.all(listed.map(async (name) => ({
        entry: await this.#entryOf(docId, name.version),
        version: name.version,
        name,
      })));
    }
    const byVersion = new Map(names.map((name) => [name.version, name]));
    const entries = await this.#deps.store.versions(docId, before, limit);
    return entries.map((entry) => ({ entry, version: entry.version, name: byVersion.get(entry.version) }));
  }

  /** The oldest version that can be read, named ones aside. */
  async oldest(docId: string): Promise<number> {
    const [first] = await this.#deps.store.entries(docId, 1, 1);
    return first?.version ?? 1;
  }

  /** The newest version made at a time or before. @throws {StateSyncError} `versionGone` */
  async at(docId: string, atMs: number): Promise<number> {
    const version = await this.#deps.store.versionAt(docId, atMs);
    if (version === undefined) throw new StateSyncError("versionGone");
    return version;
  }

  /** One version in a list's form. */
  async one(docId: string, version: number): Promise<ListedVersion> {
    const names = await this.#deps.store.names(docId);
    return {
      entry: await this.#entryOf(docId, version),
      version,
      name: names.find((name) => name.version === version),
    };
  }

  /** The content of a version. @throws {StateSyncError} `noVersion`, `versionGone` */
  async content({ id, type, version: present }: DocumentRecord, version: number): Promise<Content> {
    return Content.load(type, await this.#parts(id, version, present), this.#deps.random);
  }

  /** What changed from one version to another. @throws {StateSyncError} `invalid`, `noVersion`, `versionGone` */
  async diff({ id, type, version: present }: DocumentRecord, from: number, to: number): Promise<Difference> {
    if (from > to) {
      throw new StateSyncError("invalid", `from is ${from}, expected at most to, which is ${to}`);
    }
    if (to - from > DIFF_VERSIONS_MAX) {
      throw new StateSyncError("invalid", `from and to are more than ${DIFF_VERSIONS_MAX} versions apart`);
    }
    if (to > present) throw new StateSyncError("noVersion", `${to}, the present one is ${present}`);
    const parts = await this.#parts(id, from, present);
    return diffVersions(type, parts, updatesOf(await entriesBetween(this.#deps.store, id, from, to)));
  }

  /** Names a version; 0 is the present one. @throws {StateSyncError} */
  async name(
    principal: Principal | undefined,
    docId: string,
    version: number,
    name: string,
  ): Promise<number> {
    const { documents, store, context } = this.#deps;
    const record = await documents.read(docId, ({ record }) => {
      requireAccess(principal, record, "edit");
      return record;
    });
    const named = version || record.version;
    const names = await store.names(docId);
    if (names.length >= NAMES_MAX && !names.some((known) => known.version === named)) {
      throw new StateSyncError("tooMany", `${NAMES_MAX} named versions`);
    }
    const state = (await this.content(record, named)).encodeState();
    const made = await this.#entryOf(docId, named) ?? names.find((known) => known.version === named);
    const userId = nameOf(principal);
    return await documents.write(docId, ({ record }) => {
      requireAccess(principal, record, "edit");
      const entry = documentEntry(userId, "named");
      const data = { ...entry.data, version: String(named), name };
      return {
        value: named,
        change: makeChange(context(), record, {}, [{ ...entry, data }], {
          // Who made the version and when outlives the entry that says so.
          putNames: [{
            version: named,
            name,
            userId: made?.userId ?? userId,
            atMs: made?.atMs ?? record.updatedAtMs,
            state,
          }],
        }),
      };
    });
  }

  /** Takes a version's name; false if it has none. @throws {StateSyncError} */
  async unname(principal: Principal | undefined, docId: string, version: number): Promise<boolean> {
    const { documents, store, context } = this.#deps;
    const names = await store.names(docId);
    const isNamed = names.some((name) => name.version === version);
    return await documents.write(docId, ({ record }) => {
      requireAccess(principal, record, "edit");
      if (!isNamed) return { value: false };
      const entry = documentEntry(nameOf(principal), "named");
      const data = { ...entry.data, version: String(version), name: "" };
      return {
        value: true,
        change: makeChange(context(), record, {}, [{ ...entry, data }], { removeNames: [version] }),
      };
    });
  }

  /** Makes the content what it was at a version, as a new one. @throws {StateSyncError} */
  async restore(principal: Principal | undefined, docId: string, version: number): Promise<DocumentRecord> {
    const { documents, context, maxDocumentBytes } = this.#deps;
    const present = await documents.read(docId, ({ record }) => {
      checkEditable(principal, record);
      return record.version;
    });
    const parts = await this.#parts(docId, version, present);
    return await documents.write(docId, (document) => {
      const { record, locks, content } = document;
      checkEditable(principal, record);
      const { nowMs, newId } = context();
      const userId = nameOf(principal);
      locks.checkFree(userId, undefined, nowMs);
      checkSize(document, maxDocumentBytes);
      const update = restoreContent(content, parts);
      if (update === undefined) return { value: record };
      const entry = documentEntry(userId, "restored");
      const data = { ...entry.data, version: String(version) };
      const change = makeChange({ nowMs, newId }, record, {}, [{ ...entry, data, isVersion: true, update }]);
      return { value: change.record, change };
    });
  }

  /** Takes back the last edits of a user (empty: of the caller) and leaves those of others.
   *  @throws {StateSyncError} */
  async undo(
    principal: Principal | undefined,
    docId: string,
    ofUser: string,
    count: number,
  ): Promise<{ readonly record: DocumentRecord; readonly undone: number }> {
    const past = new Past(this.#deps.store);
    const userId = nameOf(principal);
    const whose = ofUser === "" ? userId : ofUser;
    return await this.#deps.documents.write(docId, (document) => {
      const { record, locks, content } = document;
      checkEditable(principal, record);
      if (whose !== userId) requireAccess(principal, record, "manage");
      const { nowMs, newId } = this.#deps.context();
      locks.checkFree(userId, undefined, nowMs);
      checkSize(document, this.#deps.maxDocumentBytes);
      const known = past.of(document);
      if ("wait" in known) return known;
      const { update, undone } = undoEdits(
        content,
        { parts: known.parts, userId: whose, count, undone: undosOf(known.entries) },
        this.#deps.random,
      );
      if (update === undefined) return { value: { record, undone } };
      const entry = documentEntry(userId, "undone");
      const data = { ...entry.data, user: whose, count: String(undone) };
      const change = makeChange({ nowMs, newId }, record, {}, [{ ...entry, data, isVersion: true, update }]);
      return { value: { record: change.record, undone }, change };
    });
  }

  async #entryOf(docId: string, version: number): Promise<StoredEntry | undefined> {
    const [entry] = await this.#deps.store.versions(docId, version + 1, 1);
    return entry?.version === version ? entry : undefined;
  }

  async #parts(docId: string, version: number, present: number): Promise<ContentParts> {
    if (version < 1 || version > present) {
      throw new StateSyncError("noVersion", `${version}, the present one is ${present}`);
    }
    const parts = await this.#deps.store.contentAt(docId, version);
    if (parts === undefined) throw new StateSyncError("versionGone", String(version));
    return parts;
  }
}

/** The content some versions ago and the entries since, for what looks at a document's past while it is changed. */
class Past {
  #generation = -1;
  #version = 0;
  #parts: ContentParts | undefined;
  #entries: readonly Entry[] = [];

  constructor(private readonly store: DocumentStore) {}

  of(document: OpenDocument): { parts: ContentParts; entries: readonly Entry[] } | Later {
    const recent = this.#generation === document.generation ? document.editsAfter(this.#version) : undefined;
    if (recent === undefined || this.#parts === undefined) return { wait: this.#read(document) };
    const { snapshot, updates } = this.#parts;
    return {
      parts: { snapshot, updates: [...updates, ...updatesOf(recent)] },
      entries: [...this.#entries, ...recent],
    };
  }

  async #read(document: OpenDocument): Promise<void> {
    await document.settled();
    const { generation, kept: { version } } = document;
    const oldest = (await this.store.entries(document.id, 1, 1))[0]?.version ?? version;
    const from = Math.max(1, oldest, version - UNDO_REACH);
    const parts = await this.store.contentAt(document.id, from);
    if (parts === undefined) throw new StateSyncError("versionGone", String(from));
    const entries = await entriesBetween(this.store, document.id, from, version);
    this.#parts = { snapshot: parts.snapshot, updates: [...parts.updates, ...updatesOf(entries)] };
    this.#entries = entries;
    this.#version = version;
    this.#generation = generation;
  }
}

function updatesOf(entries: readonly Entry[]): StoredUpdate[] {
  return entries.flatMap(({ offset, version, userId, atMs, update }) =>
    update === undefined ? [] : [{ offset, version, userId, atMs, update }]
  );
}

/** Earlier undos among entries. */
function undosOf(entries: readonly Entry[]): Undone[] {
  return entries.filter(({ data }) => data.change === "undone")
    .map(({ offset, data }) => ({ offset, userId: data.user ?? "", count: Number(data.count ?? 0) }));
}

/** @throws {StateSyncError} `notFound`, `denied`, `notActive` */
function checkEditable(principal: Principal | undefined, record: DocumentRecord): void {
  requireAccess(principal, record, "edit");
  if (record.state !== "active") throw new StateSyncError("notActive", `it is ${record.state}`);
}
