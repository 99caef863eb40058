/** Operations: what each does to a document, or why not (SPEC §2 and §3). */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { Operation } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { includes, nameOf, requireAccess } from "./access.ts";
import { type DecisionContext, type EntryParts, makeChange } from "./changes.ts";
import { type Edit, planEdit, readEdit } from "./crdt/operation.ts";
import { isEmptyPlan, type Plan } from "./crdt/plan.ts";
import { type Meeting, meetLater, type Stale } from "./crdt/stale.ts";
import { scopeOf } from "./crdt/touch.ts";
import type { Decision, Later } from "./documents.ts";
import { EditsSince } from "./edits_since.ts";
import { StateSyncError } from "./errors.ts";
import { checkOperationFields, numberOf, operationTypeOf } from "./limits.ts";
import { millisecondsOf, timestamp } from "./messages.ts";
import type { OpenDocument } from "./open_document.ts";
import { cutHlc, laterEdits, nextHlc } from "./recent_edits.ts";
import type { ConflictRecord, DocumentRecord, Entry, OperationStatus } from "./records.ts";
import type { DocumentStore } from "./store.ts";

/** Operations that a conflict names: the late one and those it meets. */
const CONFLICT_OPERATIONS_MAX = 16;
/** Targets that a conflict names. */
const CONFLICT_TARGETS_MAX = 64;

/** What an operation came to. */
export interface AppliedOperation {
  readonly operation: Operation;
  /** The document's version after it, and the offset of its entry. */
  readonly version: number;
  readonly offset: number;
  readonly isRepeated: boolean;
}

/** What decisions on operations need. */
export interface OperationsDeps {
  readonly store: Pick<DocumentStore, "versions" | "operationByKey">;
  readonly nowMs: () => number;
  readonly newId: () => string;
  readonly maxDocumentBytes: number;
}

/** One operation on its way: asked for its decision until nothing has to be waited for. */
export class OperationCall {
  readonly docId: string;
  readonly #deps: OperationsDeps;
  readonly #principal: Principal | undefined;
  readonly #userId: string;
  readonly #given: Operation;
  readonly #prevVersion: number;
  /** Empty when the operation has no id of its own: then none can be the same. */
  readonly #key: string;
  readonly #since: EditsSince;
  #read: { operation: Operation; edit: Edit } | undefined;
  /** The store was asked for the key when the document was of this generation. */
  #askedGeneration = -1;
  #earlier: Entry | undefined;

  /** @throws {StateSyncError} `invalid` */
  constructor(deps: OperationsDeps, principal: Principal | undefined, given: Operation) {
    this.#deps = deps;
    this.docId = given.docId;
    this.#principal = principal;
    // A worker may say for whom it does something.
    this.#userId = principal === undefined && given.userId !== "" ? given.userId : nameOf(principal);
    checkOperationFields(given);
    operationTypeOf(given.type, "operation.type");
    this.#prevVersion = numberOf(given.prevVersion, "operation.prev_version");
    this.#given = given;
    this.#key = given.id === "" ? "" : keyOf(given);
    this.#since = new EditsSince(deps.store, this.#prevVersion);
  }

  /** What to do with the document as it is.
   *  @throws {StateSyncError} */
  decide(document: OpenDocument): Decision<AppliedOperation> | Later {
    const { record } = document;
    const access = requireAccess(this.#principal, record, "read");
    if (this.#key !== "") {
      const earlier = this.#earlierOf(document);
      if (earlier instanceof Promise) return { wait: earlier };
      if (earlier !== undefined) return { value: answerOf(earlier, true) };
    }
    const nowMs = this.#deps.nowMs();
    const context: DecisionContext = { nowMs, newId: this.#deps.newId };
    this.#read ??= readEdit(this.#given, record.type, { userId: this.#userId, ...context });
    const { edit } = this.#read;
    this.#checkRight(document, edit, access);
    if (record.state !== "active") throw new StateSyncError("notActive", `it is ${record.state}`);
    const prepared = this.#prepared(record, nowMs);
    if (this.#prevVersion > record.version) {
      throw new StateSyncError(
        "versionMismatch",
        `prev_version is ${this.#prevVersion}, the present one is ${record.version}`,
      );
    }
    if (this.#prevVersion === 0 || this.#prevVersion === record.version) {
      return this.#apply(document, context, prepared, planEdit(document.content, edit));
    }
    const since = this.#since.of(document);
    if ("wait" in since) return since;
    return this.#decideStale(document, context, prepared, since.edits);
  }

  #earlierOf(document: OpenDocument): Entry | undefined | Promise<void> {
    const pending = document.pendingByKey(this.#key);
    if (pending !== undefined) return pending;
    if (this.#askedGeneration === document.generation) return this.#earlier;
    this.#askedGeneration = document.generation;
    const found = this.#deps.store.operationByKey(this.docId, this.#key);
    if (!(found instanceof Promise)) return this.#earlier = found;
    return found.then((found) => void (this.#earlier = found));
  }

  #checkRight(
    document: OpenDocument,
    { type, change }: Edit,
    access: ReturnType<typeof requireAccess>,
  ): void {
    const needed = change.kind === "comment" ? "comment" : "edit";
    requireAccess(this.#principal, document.record, needed);
    if (change.kind !== "comment" || type === "create" || includes(access, "manage")) return;
    const author = document.content.commentAuthor(change.commentId);
    if (author !== undefined && author !== this.#userId) {
      throw new StateSyncError("denied", "the comment is another's");
    }
  }

  /** The operation with what the server fills in. */
  #prepared(record: DocumentRecord, nowMs: number): Operation {
    const { operation } = this.#read!;
    return {
      ...operation,
      id: operation.id === "" ? this.#deps.newId() : operation.id,
      userId: this.#userId,
      sessionId: this.#principal?.sessionId || operation.sessionId,
      timestamp: operation.timestamp === undefined
        ? timestamp(nowMs)
        : timestamp(Math.min(nowMs, millisecondsOf(operation.timestamp))),
      version: 0n,
      status: "pending",
      hlc: operation.hlc === 0n ? nextHlc(record.hlc, nowMs) : cutHlc(operation.hlc, nowMs),
      conflictId: "",
    };
  }

  #apply(
    document: OpenDocument,
    context: DecisionContext,
    prepared: Operation,
    plan: Plan,
    conflict?: ConflictRecord,
  ): Decision<AppliedOperation> {
    this.#checkLocks(document, plan, context.nowMs);
    if (prepared.type !== "delete") checkSize(document, this.#deps.maxDocumentBytes);
    const update = document.content.apply(plan);
    const { record } = document;
    const operation: Operation = {
      ...prepared,
      version: BigInt(record.version + 1),
      status: "applied",
      conflictId: conflict?.id ?? "",
    };
    const entries: EntryParts[] = [
      { ...this.#entry("operation_applied", operation, "applied"), isVersion: true, update },
    ];
    if (conflict !== undefined) {
      entries.push({
        type: "conflict_resolved",
        userId: this.#userId,
        conflict: withLate(conflict, operation),
      });
    }
    return this.#decided(document, context, entries, operation, conflict, 0);
  }

  #decideStale(
    document: OpenDocument,
    context: DecisionContext,
    prepared: Operation,
    later: readonly Entry[],
  ): Decision<AppliedOperation> | Later {
    const { content, record } = document;
    const stale = meetLater(
      content,
      this.#read!.edit,
      laterEdits(later, (update) => content.touchOf(update)),
    );
    if (stale.meetings.length === 0 || record.conflictPolicy === "merge") {
      return this.#apply(document, context, prepared, stale.merge(prepared.hlc, keyOf(prepared)));
    }
    const conflict = this.#conflictOf(record, context, prepared, stale, later);
    if (record.conflictPolicy === "manual") {
      this.#checkLocks(document, stale.force(), context.nowMs);
      const operation: Operation = { ...prepared, status: "conflict", conflictId: conflict.id };
      const waiting = withLate(conflict, operation);
      return this.#decided(
        document,
        context,
        [{ ...this.#entry("conflict_detected", operation, "conflict"), conflict: waiting }],
        operation,
        waiting,
        1,
      );
    }
    const { plan, lost, won } = stale.lww(prepared.hlc, keyOf(prepared));
    const isLost = won.length === 0 && isEmptyPlan(plan);
    const winner = won.length > 0 ? undefined : winnerOf(lost, later);
    const decided: ConflictRecord = {
      ...conflict,
      resolution: "lww",
      resolvedBy: this.#userId,
      resolvedOperation: winner,
      resolvedAtMs: context.nowMs,
    };
    if (!isLost) {
      return this.#apply(document, context, prepared, plan, decided);
    }
    const operation: Operation = { ...prepared, status: "rejected", conflictId: conflict.id };
    const rejected = withLate(decided, operation);
    return this.#decided(
      document,
      context,
      [{ ...this.#entry("conflict_resolved", operation, "rejected"), conflict: rejected }],
      operation,
      rejected,
      0,
    );
  }

  #decided(
    document: OpenDocument,
    context: DecisionContext,
    entries: readonly EntryParts[],
    operation: Operation,
    conflict: ConflictRecord | undefined,
    opened: number,
  ): Decision<AppliedOperation> {
    const { record } = document;
    const change = makeChange(
      context,
      record,
      {
        hlc: operation.hlc > record.hlc ? operation.hlc : record.hlc,
        ...(opened === 0 ? {} : { openConflicts: record.openConflicts + opened }),
      },
      entries,
      conflict === undefined ? {} : { putConflicts: [withLate(conflict, operation)] },
    );
    return { value: answerOf(change.entries[0]!, false), change };
  }

  #entry(type: EntryParts["type"], operation: Operation, operationStatus: OperationStatus): EntryParts {
    return { type, userId: this.#userId, operation, operationStatus, operationKey: keyOf(operation) };
  }

  #conflictOf(
    { id: docId }: DocumentRecord,
    { nowMs, newId }: DecisionContext,
    prepared: Operation,
    { meetings }: Stale,
    later: readonly Entry[],
  ): ConflictRecord {
    const met = [...new Set(meetings.flatMap(({ edits }) => edits))].sort((a, b) => a - b)
      .map((i) => later[i]!.operation)
      .filter((operation) => operation !== undefined);
    const targets = meetings.slice(0, CONFLICT_TARGETS_MAX).map(({ target }) => target);
    return {
      id: newId(),
      docId,
      operations: [prepared, ...met.slice(0, CONFLICT_OPERATIONS_MAX - 1)],
      targets,
      description: `an operation on version ${prepared.prevVersion} meets edits of ${targets.join(", ")}`,
      detectedAtMs: nowMs,
      resolution: "",
      resolvedBy: "",
      resolvedOperation: undefined,
      resolvedAtMs: undefined,
    };
  }

  #checkLocks({ locks }: OpenDocument, plan: Plan, nowMs: number): void {
    const token = this.#given.fencingToken;
    if (token === 0n && !locks.hasOthers(this.#userId, nowMs)) return;
    const { objects, hasContent } = scopeOfPlan(plan);
    if (hasContent) locks.checkFree(this.#userId, objects, nowMs);
    if (token !== 0n) {
      locks.checkToken(numberOf(token, "operation.fencing_token"), this.#userId, objects, nowMs);
    }
  }
}

/** What decides that two operations are one: the client's id with the operation's. */
export function keyOf({ clientId, id }: { readonly clientId: string; readonly id: string }): string {
  return `${clientId}\0${id}`;
}

/** What of a document a plan is about. */
export function scopeOfPlan({ properties, texts, emptied }: Plan): ReturnType<typeof scopeOf> {
  const roots = new Map<string, { inserted: []; removed: [] }>();
  for (const root of texts.keys()) roots.set(root, NO_TEXT);
  for (const root of emptied) roots.set(root, NO_TEXT);
  return scopeOf({ properties, texts: roots, hasOthers: false });
}

/** Refuses edits that would make a document larger once it is as large as one may be.
 *  @throws {StateSyncError} `tooLarge` */
export function checkSize(document: OpenDocument, maxBytes: number, addedBytes = 0): void {
  if (document.stateBytes + addedBytes <= maxBytes) return;
  if (!document.hasExactSize) {
    // What was counted is more than there is: what one update brought another may have taken away.
    document.stateBytes = document.content.encodeState().length;
    document.hasExactSize = true;
  }
  if (document.stateBytes + addedBytes <= maxBytes) return;
  throw new StateSyncError(
    "tooLarge",
    `it has ${document.stateBytes} bytes, at most ${maxBytes} (statesync.maxDocumentBytes)`,
  );
}

const NO_TEXT: { inserted: []; removed: [] } = { inserted: [], removed: [] };

/** The conflict, of which the late operation is this by now, and the winner if nobody else is. */
function withLate(conflict: ConflictRecord, operation: Operation): ConflictRecord {
  const { operations, resolution, resolvedOperation } = conflict;
  return {
    ...conflict,
    operations: [operation, ...operations.slice(1)],
    resolvedOperation: resolution !== "" && operation.status === "applied" ? operation : resolvedOperation,
  };
}

/** The operation with the highest clock of those that an operation lost to; undefined where they were edits of another kind. */
function winnerOf(lost: readonly Meeting[], later: readonly Entry[]): Operation | undefined {
  let winner: Operation | undefined;
  for (const { edits } of lost) {
    for (const i of edits) {
      const operation = later[i]!.operation;
      if (operation !== undefined && (winner === undefined || operation.hlc > winner.hlc)) winner = operation;
    }
  }
  return winner;
}

/** Of an entry that tells of an operation. */
function answerOf({ operation, version, offset }: Entry, isRepeated: boolean): AppliedOperation {
  return { operation: operation!, version, offset, isRepeated };
}
