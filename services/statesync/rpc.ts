/** StateSyncService on the wire. Messages are made as plain literals with their type name, which serialise as they are. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import {
  type ApplyOperationResponse,
  type CreateDocumentRequest,
  type DiffVersionsResponse,
  type Document as DocumentMessage,
  type GetOperationHistoryRequest,
  type GetVersionRequest,
  type ListDocumentsRequest,
  type Metadata,
  type Permissions as PermissionsMessage,
  StateSyncService as StateSyncServiceDesc,
  type SubscribeDocumentResponse,
  type SubscribeEventsResponse,
  type UpdateDocumentRequest,
  type Version as VersionMessage,
} from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { Buffer } from "node:buffer";
import { principalOf } from "../runtime/principal.ts";
import type { DocumentChange } from "./document_decisions.ts";
import { StateSyncError } from "./errors.ts";
import type { ListedVersion } from "./history.ts";
import {
  checkDocId,
  checkPageSize,
  conflictPolicyOf,
  documentStateOf,
  documentTypeOf,
  guuidOf,
  invalid,
  numberOf,
  operationStatusOf,
  operationTypeOf,
} from "./limits.ts";
import {
  conflictMessage,
  documentMessage,
  eventMessage,
  lockMessage,
  millisecondsOf,
  timestamp,
  versionMessage,
} from "./messages.ts";
import type { AppliedOperation } from "./operations.ts";
import type { DocumentRecord, Permissions, StoredEntry } from "./records.ts";
import { mapped, toConnectError } from "./rpc_errors.ts";
import type { StatesyncService } from "./service.ts";
import type { DocumentFilter, OperationFilter } from "./store.ts";
import type { Subscription } from "./subscriptions.ts";

/** What the handlers need. */
export interface StatesyncHandlersDeps {
  readonly service: StatesyncService;
}

/** The implementation of StateSyncService. */
export function createStatesyncHandlers(
  { service }: StatesyncHandlersDeps,
): ServiceImpl<typeof StateSyncServiceDesc> {
  const show = (record: DocumentRecord, content?: Uint8Array): DocumentMessage =>
    documentMessage(record, { epoch: service.epoch, content, activeUsers: service.activeUsers(record.id) });

  return {
    createDocument: answer(async (request, principal) => ({
      $typeName: "aetherflow.statesync.v1.CreateDocumentResponse" as const,
      document: show(await service.create(principal, creationOf(request))),
    })),
    getDocument: answer(async (request, principal) => {
      const { record, content } = await service.get(
        principal,
        checkDocId(request.docId),
        !request.withoutContent,
      );
      return {
        $typeName: "aetherflow.statesync.v1.GetDocumentResponse" as const,
        document: show(record, content),
      };
    }),
    updateDocument: answer(async (request, principal) => {
      const docId = checkDocId(request.document?.id ?? "", "document.id");
      const ifVersion = request.ifVersion === undefined
        ? undefined
        : numberOf(request.ifVersion, "if_version");
      return {
        $typeName: "aetherflow.statesync.v1.UpdateDocumentResponse" as const,
        document: show(await service.update(principal, docId, changeOf(request), ifVersion)),
      };
    }),
    deleteDocument: answer(async (request, principal) => ({
      $typeName: "aetherflow.statesync.v1.DeleteDocumentResponse" as const,
      deleted: await service.delete(principal, checkDocId(request.docId), request.purge),
    })),
    restoreDocument: answer(async (request, principal) => ({
      $typeName: "aetherflow.statesync.v1.RestoreDocumentResponse" as const,
      document: show(await service.restore(principal, checkDocId(request.docId))),
    })),
    listDocuments: answer(async (request, principal) => {
      const { documents, next } = await service.list(
        principal,
        filterOf(request),
        afterId(request.pageToken),
        checkPageSize(request.pageSize),
      );
      return {
        $typeName: "aetherflow.statesync.v1.ListDocumentsResponse" as const,
        documents: documents.map((record) => show(record)),
        nextPageToken: next === undefined ? "" : Buffer.from(next).toString("base64url"),
      };
    }),
    getAccess: answer(async (request, principal) => {
      const { access, record } = await service.access(principal, checkDocId(request.docId));
      return {
        $typeName: "aetherflow.statesync.v1.GetAccessResponse" as const,
        access,
        version: BigInt(record.version),
        offset: BigInt(record.offset),
        epoch: service.epoch,
      };
    }),

    applyOperation: answer((request, principal) => {
      const { operation } = request;
      if (operation === undefined) throw invalid("operation is not set");
      checkDocId(operation.docId, "operation.doc_id");
      return service.applyOperation(principal, operation).then(appliedMessage);
    }),
    getOperationHistory: answer(async (request, principal) => {
      const limit = checkPageSize(request.pageSize);
      const entries = await service.operations(
        principal,
        checkDocId(request.docId),
        operationFilterOf(request),
        beforeNumber(request.pageToken),
        limit,
      );
      return {
        $typeName: "aetherflow.statesync.v1.GetOperationHistoryResponse" as const,
        operations: entries.map(({ operation }) => operation!),
        nextPageToken: entries.length < limit ? "" : String(entries.at(-1)!.offset),
      };
    }),

    subscribeDocument: (request, context) =>
      stream(
        context,
        (principal) =>
          service.subscribe(
            principal,
            checkDocId(request.docId),
            numberOf(request.startOffset, "start_offset"),
            request.epoch,
          ),
        (subscription): SubscribeDocumentResponse => ({
          $typeName: "aetherflow.statesync.v1.SubscribeDocumentResponse",
          offset: BigInt(subscription.position),
          event: undefined,
          subscriberId: subscription.id,
          epoch: service.epoch,
        }),
        (entry): SubscribeDocumentResponse => ({
          $typeName: "aetherflow.statesync.v1.SubscribeDocumentResponse",
          offset: BigInt(entry.offset),
          event: eventMessage(entry, service.epoch),
          subscriberId: "",
          epoch: service.epoch,
        }),
      ),
    subscribeEvents: (request, context) =>
      stream(
        context,
        (principal) =>
          service.subscribeAll(
            principal,
            isGlobal(request.scope),
            numberOf(request.startSequence, "start_sequence"),
            request.epoch,
          ),
        (subscription): SubscribeEventsResponse => ({
          $typeName: "aetherflow.statesync.v1.SubscribeEventsResponse",
          sequence: BigInt(subscription.position),
          event: undefined,
          epoch: service.epoch,
        }),
        (entry): SubscribeEventsResponse => ({
          $typeName: "aetherflow.statesync.v1.SubscribeEventsResponse",
          sequence: BigInt(entry.sequence),
          event: eventMessage(entry, service.epoch),
          epoch: service.epoch,
        }),
      ),
    unsubscribeDocument: answer((request, principal) => ({
      $typeName: "aetherflow.statesync.v1.UnsubscribeDocumentResponse" as const,
      unsubscribed: service.unsubscribe(principal, checkDocId(request.docId), request.subscriberId),
    })),

    acquireLock: answer(async (request, principal) => {
      const { objectId, sessionId, ttlMs } = request;
      const lock = await service.acquireLock(principal, checkDocId(request.docId), {
        objectId,
        sessionId,
        ttlMs,
      });
      return {
        $typeName: "aetherflow.statesync.v1.AcquireLockResponse" as const,
        lock: lockMessage(lock, service.nowMs()),
      };
    }),
    extendLock: answer(async (request, principal) => {
      const lock = await service.extendLock(
        principal,
        checkDocId(request.docId),
        guuidOf(request.lockId, "lock_id"),
        request.ttlMs,
      );
      return {
        $typeName: "aetherflow.statesync.v1.ExtendLockResponse" as const,
        lock: lockMessage(lock, service.nowMs()),
      };
    }),
    releaseLock: answer(async (request, principal) => ({
      $typeName: "aetherflow.statesync.v1.ReleaseLockResponse" as const,
      released: await service.releaseLock(principal, checkDocId(request.docId), {
        lockId: request.lockId === "" ? "" : guuidOf(request.lockId, "lock_id"),
        objectId: request.objectId,
      }),
    })),
    isLocked: answer(async (request, principal) => {
      const locks = await service.locks(principal, checkDocId(request.docId), request.objectId);
      return {
        $typeName: "aetherflow.statesync.v1.IsLockedResponse" as const,
        locked: locks.length > 0,
        locks: locks.map((lock) => lockMessage(lock, service.nowMs())),
      };
    }),

    listConflicts: answer(async (request, principal) => {
      const limit = checkPageSize(request.pageSize);
      const conflicts = await service.conflicts(
        principal,
        checkDocId(request.docId),
        request.open,
        request.pageToken === "" ? "" : guuidOf(request.pageToken, "page_token"),
        limit,
      );
      return {
        $typeName: "aetherflow.statesync.v1.ListConflictsResponse" as const,
        conflicts: conflicts.map(conflictMessage),
        nextPageToken: conflicts.length < limit ? "" : conflicts.at(-1)!.id,
      };
    }),
    resolveConflict: answer(async (request, principal) => {
      const { conflict, version } = await service.resolveConflict(
        principal,
        checkDocId(request.docId),
        guuidOf(request.conflictId, "conflict_id"),
        request.choice,
        request.operation,
      );
      return {
        $typeName: "aetherflow.statesync.v1.ResolveConflictResponse" as const,
        conflict: conflictMessage(conflict),
        version: BigInt(version),
      };
    }),

    listVersions: answer(async (request, principal) => {
      const limit = checkPageSize(request.pageSize);
      const { versions, oldest } = await service.versions(
        principal,
        checkDocId(request.docId),
        beforeNumber(request.pageToken),
        limit,
        request.named,
      );
      return {
        $typeName: "aetherflow.statesync.v1.ListVersionsResponse" as const,
        versions: versions.map(listedMessage),
        nextPageToken: versions.length < limit ? "" : String(versions.at(-1)!.version),
        oldestVersion: BigInt(oldest),
      };
    }),
    getVersion: answer(async (request, principal) => {
      const { version, content } = await service.version(
        principal,
        checkDocId(request.docId),
        whichVersion(request),
      );
      return {
        $typeName: "aetherflow.statesync.v1.GetVersionResponse" as const,
        version: listedMessage(version),
        content: content.canonical() as Uint8Array<ArrayBuffer>,
        state: (request.withState ? content.encodeState() : NO_BYTES) as Uint8Array<ArrayBuffer>,
      };
    }),
    nameVersion: answer(async (request, principal) => ({
      $typeName: "aetherflow.statesync.v1.NameVersionResponse" as const,
      version: listedMessage(
        await service.nameVersion(
          principal,
          checkDocId(request.docId),
          numberOf(request.version, "version"),
          request.name,
        ),
      ),
    })),
    deleteVersionName: answer(async (request, principal) => ({
      $typeName: "aetherflow.statesync.v1.DeleteVersionNameResponse" as const,
      deleted: await service.unnameVersion(
        principal,
        checkDocId(request.docId),
        numberOf(request.version, "version"),
      ),
    })),
    diffVersions: answer(async (request, principal): Promise<DiffVersionsResponse> => {
      const { from, to, difference } = await service.diff(
        principal,
        checkDocId(request.docId),
        numberOf(request.from, "from"),
        numberOf(request.to, "to"),
      );
      return {
        $typeName: "aetherflow.statesync.v1.DiffVersionsResponse",
        from: BigInt(from),
        to: BigInt(to),
        text: difference.text.map(({ kind, text, userId }) => ({
          $typeName: "aetherflow.statesync.v1.TextPiece",
          kind,
          text,
          userId,
        })),
        changes: difference.changes.map(({ target, before, after, userId }) => ({
          $typeName: "aetherflow.statesync.v1.PropertyChange",
          target,
          before: valueMessage(before),
          after: valueMessage(after),
          userId,
        })),
      };
    }),
    restoreVersion: answer(async (request, principal) => ({
      $typeName: "aetherflow.statesync.v1.RestoreVersionResponse" as const,
      document: show(
        await service.restoreVersion(
          principal,
          checkDocId(request.docId),
          numberOf(request.version, "version"),
        ),
      ),
    })),
    undoEdits: answer(async (request, principal) => {
      const { record, undone } = await service.undo(
        principal,
        checkDocId(request.docId),
        request.userId,
        request.count,
      );
      return {
        $typeName: "aetherflow.statesync.v1.UndoEditsResponse" as const,
        document: show(record),
        undone,
      };
    }),

    getStats: answer(async (_request, principal) => {
      const counts = await service.counts(principal);
      const { subscribers, clients } = service.figures();
      return {
        $typeName: "aetherflow.statesync.v1.GetStatsResponse" as const,
        stats: {
          $typeName: "aetherflow.statesync.v1.Stats" as const,
          totalDocuments: BigInt(counts.documents),
          activeDocuments: BigInt(counts.active),
          archivedDocuments: BigInt(counts.archived),
          totalOperations: BigInt(counts.operations),
          totalConflicts: BigInt(counts.conflicts),
          resolvedConflicts: BigInt(counts.resolvedConflicts),
          activeSubscribers: BigInt(subscribers),
          activeLocks: BigInt(counts.locks),
          lastUpdated: timestamp(service.nowMs()),
          connectedClients: BigInt(clients),
        },
      };
    }),
  };
}

const NO_BYTES = new Uint8Array(0);

/** A handler of `run`, which is told who calls; what the domain throws becomes an error of the wire. */
function answer<I, O>(
  run: (request: I, principal: Principal | undefined) => O | Promise<O>,
): (request: I, context: HandlerContext) => O | Promise<O> {
  return (request, context) => mapped(() => run(request, callerOf(context)));
}

/** Who calls. A caller that names nobody is a worker of the product. */
function callerOf(context: HandlerContext): Principal | undefined {
  return principalOf(context.requestHeader);
}

/** The messages of a subscription, until either side ends it. */
async function* stream<Message>(
  context: HandlerContext,
  subscribe: (principal: Principal | undefined) => Promise<Subscription>,
  first: (subscription: Subscription) => Message,
  next: (entry: StoredEntry) => Message,
): AsyncGenerator<Message, void, void> {
  const { signal } = context;
  let subscription: Subscription | undefined;
  const leave = () => subscription?.close();
  signal.addEventListener("abort", leave);
  try {
    subscription = await subscribe(callerOf(context));
    if (signal.aborted) return;
    yield first(subscription);
    for (;;) {
      const entries = await subscription.take();
      if (entries === undefined) return;
      for (const entry of entries) yield next(entry);
    }
  } catch (error) {
    throw toConnectError(error);
  } finally {
    signal.removeEventListener("abort", leave);
    subscription?.close();
  }
}

// ---- what requests say ----

function creationOf(request: CreateDocumentRequest) {
  const { docId, name, type, createdBy, content, metadata, conflictPolicy } = request;
  return {
    docId,
    name,
    type: documentTypeOf(type),
    createdBy,
    content,
    conflictPolicy: conflictPolicy === "" ? undefined : conflictPolicyOf(conflictPolicy),
    tags: metadata?.tags ?? [],
    description: metadata?.description ?? "",
    properties: metadata?.properties ?? {},
    permissions: permissionsOf(metadata?.permissions),
  };
}

function permissionsOf(message: PermissionsMessage | undefined): Permissions | undefined {
  if (message === undefined) return undefined;
  const { owner, editors, commenters, viewers, public: isPublic } = message;
  return { owner, editors, commenters, viewers, public: isPublic };
}

type MutableChange = { -readonly [Field in keyof DocumentChange]: DocumentChange[Field] };

const PROPERTY_PATH = "metadata.properties.";

/** @throws {StateSyncError} `invalid` */
function changeOf({ document, updateMask }: UpdateDocumentRequest): DocumentChange {
  const message = document!;
  const { metadata } = message;
  const paths = updateMask?.paths ?? [];
  const change: MutableChange = {};
  if (paths.length === 0) {
    if (message.name !== "") change.name = message.name;
    if (message.state !== "") change.state = newStateOf(message.state);
    if (message.conflictPolicy !== "") change.conflictPolicy = conflictPolicyOf(message.conflictPolicy);
    if (message.content.length > 0) change.content = message.content;
    if (metadata !== undefined) setMetadata(change, metadata, true);
    return change;
  }
  for (const path of paths) {
    if (path === "name") change.name = message.name;
    else if (path === "state") change.state = newStateOf(message.state);
    else if (path === "conflict_policy") change.conflictPolicy = conflictPolicyOf(message.conflictPolicy);
    else if (path === "content") change.content = message.content;
    else if (path === "metadata") setMetadata(change, metadata, false);
    else if (path === "metadata.tags") change.tags = metadata?.tags ?? [];
    else if (path === "metadata.description") change.description = metadata?.description ?? "";
    else if (path === "metadata.properties") change.properties = metadata?.properties ?? {};
    else if (path === "metadata.permissions") change.permissions = newPermissionsOf(metadata);
    else if (path.startsWith(PROPERTY_PATH)) {
      const name = path.slice(PROPERTY_PATH.length);
      change.propertyEntries = { ...change.propertyEntries, [name]: metadata?.properties[name] };
    } else {
      throw invalid(
        `update_mask has ${path.slice(0, 64)}, expected name, state, conflict_policy, content, metadata, ` +
          "metadata.tags, metadata.description, metadata.properties, metadata.properties.<name> or " +
          "metadata.permissions",
      );
    }
  }
  return change;
}

function setMetadata(change: MutableChange, metadata: Metadata | undefined, isSetOnly: boolean): void {
  const { tags = [], description = "", properties = {}, permissions } = metadata ?? {};
  if (!isSetOnly || tags.length > 0) change.tags = tags;
  if (!isSetOnly || description !== "") change.description = description;
  if (!isSetOnly || Object.keys(properties).length > 0) change.properties = properties;
  if (permissions !== undefined) change.permissions = permissionsOf(permissions);
}

function newPermissionsOf(metadata: Metadata | undefined): Permissions {
  return permissionsOf(metadata?.permissions) ??
    { owner: "", editors: [], commenters: [], viewers: [], public: false };
}

/** @throws {StateSyncError} `invalid`; `deleted` is what DeleteDocument makes */
function newStateOf(text: string): "active" | "archived" {
  if (text === "active" || text === "archived") return text;
  throw invalid(`document.state is ${JSON.stringify(text.slice(0, 64))}, expected active or archived`);
}

function filterOf(request: ListDocumentsRequest): DocumentFilter {
  const { type, state, createdBy, userId, tag, name } = request;
  return {
    type: type === "" ? undefined : documentTypeOf(type),
    state: state === "" ? undefined : documentStateOf(state),
    createdBy: createdBy || undefined,
    member: userId === "" ? undefined : [userId],
    tag: tag || undefined,
    name: name || undefined,
  };
}

function operationFilterOf(request: GetOperationHistoryRequest): OperationFilter {
  const { userId, type, status, fromTime, toTime, minVersion, maxVersion } = request;
  return {
    userId: userId || undefined,
    type: type === "" ? undefined : operationTypeOf(type),
    status: status === "" ? undefined : operationStatusOf(status),
    fromMs: fromTime === undefined ? undefined : millisecondsOf(fromTime),
    toMs: toTime === undefined ? undefined : millisecondsOf(toTime),
    minVersion: minVersion === 0n ? undefined : numberOf(minVersion, "min_version"),
    maxVersion: maxVersion === 0n ? undefined : numberOf(maxVersion, "max_version"),
  };
}

/** Where a page of ids begins. @throws {StateSyncError} `badPageToken` */
function afterId(token: string): string {
  if (token === "") return "";
  const id = Buffer.from(token, "base64url").toString();
  if (id === "" || Buffer.from(id).toString("base64url") !== token) throw new StateSyncError("badPageToken");
  return id;
}

/** Where a page of numbers begins, which go down. @throws {StateSyncError} `badPageToken` */
function beforeNumber(token: string): number {
  if (token === "") return Number.MAX_SAFE_INTEGER;
  if (!/^[1-9][0-9]{0,14}$/.test(token)) throw new StateSyncError("badPageToken");
  return Number(token);
}

/** @throws {StateSyncError} `invalid` */
function isGlobal(scope: string): boolean {
  if (scope === "" || scope === "user") return false;
  if (scope === "global") return true;
  throw invalid(`scope is ${JSON.stringify(scope.slice(0, 64))}, expected user or global`);
}

/** @throws {StateSyncError} `invalid` */
function whichVersion({ version, at }: GetVersionRequest): { version: number } | { atMs: number } {
  if ((version === 0n) === (at === undefined)) throw invalid("expected exactly one of version and at");
  return at === undefined ? { version: numberOf(version, "version") } : { atMs: millisecondsOf(at) };
}

// ---- messages ----

function appliedMessage(
  { operation, version, offset, isRepeated }: AppliedOperation,
): ApplyOperationResponse {
  return {
    $typeName: "aetherflow.statesync.v1.ApplyOperationResponse",
    operation,
    version: BigInt(version),
    offset: BigInt(offset),
    repeatedOperation: isRepeated,
  };
}

function listedMessage({ entry, version, name }: ListedVersion): VersionMessage {
  if (entry !== undefined) return versionMessage(entry, name?.name ?? "");
  return {
    $typeName: "aetherflow.statesync.v1.Version",
    version: BigInt(version),
    name: name?.name ?? "",
    authors: name === undefined ? [] : [name.userId],
    createdAt: name === undefined ? undefined : timestamp(name.atMs),
    change: "",
    operationId: "",
  };
}

function valueMessage(value: unknown): Value | undefined {
  return value === undefined ? undefined : fromJson(ValueSchema, value as JsonValue);
}
