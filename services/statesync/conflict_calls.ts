/** Deciding conflicts that wait (SPEC §3.4). */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { Operation } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import { nameOf, requireAccess } from "./access.ts";
import { type DecisionContext, type EntryParts, makeChange } from "./changes.ts";
import type { Edit } from "./crdt/operation.ts";
import { planEdit, readEdit } from "./crdt/operation.ts";
import type { Plan } from "./crdt/plan.ts";
import { meetLater } from "./crdt/stale.ts";
import type { Decision, Later } from "./documents.ts";
import { EditsSince } from "./edits_since.ts";
import { StateSyncError } from "./errors.ts";
import { checkOperationFields, invalid, operationTypeOf } from "./limits.ts";
import { timestamp } from "./messages.ts";
import type { OpenDocument } from "./open_document.ts";
import { checkSize, keyOf, type OperationsDeps, scopeOfPlan } from "./operations.ts";
import { laterEdits, nextHlc } from "./recent_edits.ts";
import type { ConflictRecord, DocumentRecord } from "./records.ts";
import type { DocumentStore } from "./store.ts";

/** How a conflict is decided. */
export const CHOICES = ["theirs", "mine", "merge", "operation"] as const;
export type Choice = typeof CHOICES[number];

/** What deciding needs. */
export interface ConflictDeps extends OperationsDeps {
  readonly store: Pick<DocumentStore, "versions" | "operationByKey" | "conflict">;
}

/** What was decided. */
export interface Resolved {
  readonly conflict: ConflictRecord;
  readonly version: number;
}

/** What is known of the conflict, read from the store. */
interface Read {
  readonly generation: number;
  readonly conflict: ConflictRecord | undefined;
  /** Offset of the entry of the operation that came late. */
  readonly offset: number | undefined;
}

/** One conflict being decided: asked for its decision until nothing has to be waited for. */
export class ResolveCall {
  readonly #deps: ConflictDeps;
  readonly #principal: Principal | undefined;
  readonly #conflictId: string;
  readonly #choice: Choice;
  readonly #given: Operation | undefined;
  #read: Read | undefined;
  /** What the given operation means. */
  #own: { readonly operation: Operation; readonly edit: Edit } | undefined;
  #since: EditsSince | undefined;

  /** @throws {StateSyncError} `invalid` */
  constructor(
    deps: ConflictDeps,
    principal: Principal | undefined,
    conflictId: string,
    choice: string,
    given: Operation | undefined,
  ) {
    if (!(CHOICES as readonly string[]).includes(choice)) {
      throw invalid(`choice is ${JSON.stringify(choice.slice(0, 64))}, expected ${CHOICES.join(", ")}`);
    }
    if ((choice === "operation") !== (given !== undefined)) {
      throw invalid("operation is given with the choice `operation`, and with no other");
    }
    if (given !== undefined) {
      checkOperationFields(given);
      operationTypeOf(given.type, "operation.type");
    }
    this.#deps = deps;
    this.#principal = principal;
    this.#conflictId = conflictId;
    this.#choice = choice as Choice;
    this.#given = given;
  }

  /** What to do with the document as it is.
   *  @throws {StateSyncError} */
  decide(document: OpenDocument): Decision<Resolved> | Later {
    const { record } = document;
    requireAccess(this.#principal, record, "edit");
    if (record.state !== "active") throw new StateSyncError("notActive", `it is ${record.state}`);
    if (this.#read?.generation !== document.generation) return { wait: this.#ask(document) };
    const { conflict, offset } = this.#read;
    if (conflict === undefined) throw new StateSyncError("noConflict");
    if (conflict.resolvedAtMs !== undefined || document.decided.has(conflict.id)) {
      throw new StateSyncError("decided", conflict.resolution);
    }
    const context: DecisionContext = { nowMs: this.#deps.nowMs(), newId: this.#deps.newId };
    const late = conflict.operations[0]!;
    const wanted = this.#wanted(document, conflict, late, context);
    if ("wait" in wanted) return wanted;
    return this.#decided(document, context, conflict, offset, wanted.plan);
  }

  async #ask(document: OpenDocument): Promise<void> {
    const { generation, id: docId } = document;
    const { store } = this.#deps;
    const conflict = await store.conflict(docId, this.#conflictId);
    const late = conflict?.operations[0];
    const offset = late === undefined ? undefined : (await store.operationByKey(docId, keyOf(late)))?.offset;
    this.#read = { generation, conflict, offset };
  }

  #wanted(
    document: OpenDocument,
    conflict: ConflictRecord,
    late: Operation,
    context: DecisionContext,
  ): { readonly plan: Plan | undefined } | Later {
    const { content, record } = document;
    if (this.#choice === "theirs") return { plan: undefined };
    if (this.#choice === "operation") {
      this.#own ??= readEdit(this.#given!, record.type, { ...context, userId: nameOf(this.#principal) });
      return { plan: planEdit(content, this.#own.edit) };
    }
    this.#since ??= new EditsSince(this.#deps.store, Number(late.prevVersion));
    const since = this.#since.of(document);
    if ("wait" in since) return since;
    const stale = meetLater(
      content,
      readEdit(late, record.type, { ...context, userId: late.userId }).edit,
      laterEdits(since.edits, (update) => content.touchOf(update)),
    );
    return {
      plan: this.#choice === "mine" ? stale.force() : stale.merge(late.hlc, keyOf(conflict.operations[0]!)),
    };
  }

  #decided(
    document: OpenDocument,
    context: DecisionContext,
    conflict: ConflictRecord,
    lateOffset: number | undefined,
    plan: Plan | undefined,
  ): Decision<Resolved> {
    const { record } = document;
    const userId = nameOf(this.#principal);
    let update: Uint8Array | undefined;
    if (plan !== undefined) {
      const { objects, hasContent } = scopeOfPlan(plan);
      if (hasContent) document.locks.checkFree(userId, objects, context.nowMs);
      checkSize(document, this.#deps.maxDocumentBytes);
      update = document.content.apply(plan);
    }
    const entries: EntryParts[] = [];
    const late: Operation = { ...conflict.operations[0]!, status: "resolved", conflictId: conflict.id };
    const own = this.#choice === "operation"
      ? this.#ownOperation(record, context, conflict.id, userId)
      : undefined;
    if (own !== undefined) {
      entries.push({
        type: "operation_applied",
        userId,
        isVersion: true,
        update,
        operation: own,
        operationStatus: "applied",
        operationKey: keyOf(own),
      });
    }
    const resolved: ConflictRecord = {
      ...conflict,
      operations: [late, ...conflict.operations.slice(1)],
      resolution: this.#choice === "merge" ? "merge" : "manual",
      resolvedBy: userId,
      resolvedOperation: own ?? (this.#choice === "theirs" ? conflict.operations[1] : late),
      resolvedAtMs: context.nowMs,
    };
    const isChanged = own === undefined && update !== undefined;
    entries.push({
      type: "conflict_resolved",
      userId,
      isVersion: isChanged,
      update: isChanged ? update : undefined,
      conflict: resolved,
      data: { change: "resolved", choice: this.#choice },
    });
    const hlc = own === undefined ? nextHlc(record.hlc, context.nowMs) : own.hlc;
    const change = makeChange(
      context,
      record,
      { hlc, openConflicts: Math.max(0, record.openConflicts - 1) },
      entries,
      {
        putConflicts: [resolved],
        ...(lateOffset === undefined
          ? {}
          : { operationStatuses: [{ offset: lateOffset, status: "resolved" as const }] }),
      },
    );
    document.decided.add(conflict.id);
    return { value: { conflict: resolved, version: change.record.version }, change };
  }

  #ownOperation(
    record: DocumentRecord,
    context: DecisionContext,
    conflictId: string,
    userId: string,
  ): Operation {
    const { operation } = this.#own!;
    return {
      ...operation,
      // One of its own: it answers no operation that was sent before.
      id: context.newId(),
      docId: record.id,
      userId,
      sessionId: this.#principal?.sessionId || operation.sessionId,
      timestamp: timestamp(context.nowMs),
      version: BigInt(record.version + 1),
      status: "applied",
      hlc: nextHlc(record.hlc, context.nowMs),
      conflictId,
    };
  }
}
