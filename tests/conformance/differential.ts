/** Sends one seeded sequence of operations to two servers and stops at the first answer that differs. */
import {
  type HashKVResponse,
  KV,
  Lease,
  Maintenance,
  type RangeRequest,
  type RangeResponse,
  type TxnRequest,
  type TxnResponse,
  Watch,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { SimRandom } from "../sim/random.ts";
import { alignTimeLeft, canonical, outcomeText } from "./canonical.ts";
import type { Outcome } from "./client.ts";
import { hasOpenOrder, isRefusedByLaterEtcds } from "./differences.ts";
import { type Operation, OperationSource } from "./operations.ts";
import { type Delivered, Side } from "./side.ts";

/** What to compare. */
export interface DifferentialOptions {
  /** `host:port` of the server that is right. */
  readonly reference: string;
  /** `host:port` of the server under test. Both must be empty. */
  readonly subject: string;
  readonly seed: number;
  readonly operations: number;
  /** Operations of services that it returns false for are drawn and not sent; all are sent when left out. */
  readonly serves?: (service: string) => boolean;
  /** Changes the subject's answers; for tests of the comparison itself. */
  readonly tamper?: (operation: Operation, outcome: Outcome<unknown>) => Outcome<unknown>;
}

/** Operations after which every watcher is looked at, at the latest. */
const DRAIN_EVERY = 100;
/** Operations before the differing one that a report shows. */
const SHOWN = 12;

/** How much of two answers a report shows, from how far before their first difference, in characters. */
const SHOWN_CHARACTERS = 1_000;
const SHOWN_BEFORE = 300;

/** Two answers differ, or a promise is broken. */
export class DifferenceError extends Error {
  override readonly name = "DifferenceError";
}

/** Compares. Returns how often each kind of operation was sent.
 *  @throws {DifferenceError} at the first difference, with the seed, the operation, both answers and what went before. */
export async function compareServers(options: DifferentialOptions): Promise<Map<string, number>> {
  const source = new OperationSource(new SimRandom(options.seed), options.seed % 2 === 1);
  using reference = new Side("reference", options.reference);
  using subject = new Side("subject", options.subject);
  const sent = new Map<string, number>();
  const shown: string[] = [];
  let drained = 0;
  let recordedTo = 1n;

  function fail(index: number, what: string): never {
    throw new DifferenceError(
      `seed ${options.seed}, operation ${index}: ${what}\n\nthe last operations:\n${shown.join("\n")}`,
    );
  }

  async function drain(index: number): Promise<void> {
    drained = index;
    const [one, other] = await Promise.all([
      reference.drain(source.revision),
      subject.drain(source.revision),
    ]).catch((error) => fail(index, error.message));
    for (const side of [reference, subject]) {
      if (side.violations.length > 0) fail(index, `${side.name}: ${side.violations.join("\n")}`);
    }
    const recorded = [reference, subject].map((side) => ({
      events: side.recordedFrom(recordedTo),
      canceled: "",
    })) as [Delivered, Delivered];
    one.set("the record of all events", recorded[0]);
    other.set("the record of all events", recorded[1]);
    for (const [who, delivered] of one) {
      const problem = deliveryProblem(delivered, other.get(who));
      if (problem !== undefined) fail(index, `${who}: ${problem}`);
    }
    recordedTo = source.revision + 1n;
  }

  for (let index = 0; index < options.operations; index++) {
    const operation = source.next();
    const name = nameOf(operation);
    if (options.serves?.(serviceOf(operation)) === false) continue;
    sent.set(name, (sent.get(name) ?? 0) + 1);
    if (index - drained >= DRAIN_EVERY || needsDrain(operation)) await drain(index);
    if (reference.isOvertaken(operation)) continue;
    shown.push(`  ${index} ${operationText(operation)}`);
    if (shown.length > SHOWN) shown.shift();
    const compacted = source.compacted;
    let [expected, actual] = await Promise.all([
      reference.run(operation, compacted),
      subject.run(operation, compacted),
    ]);
    if (options.tamper !== undefined) actual = options.tamper(operation, actual);
    alignTimeLeft(expected, actual);
    [expected, actual] = [expected, actual].map((outcome) =>
      comparable(operation, outcome, source.autoLeases > 0)
    ) as [Outcome<unknown>, Outcome<unknown>];
    const [right, got] = [outcomeText(expected, reference), outcomeText(actual, subject)];
    if (right !== got && !isRefusedByLaterEtcds(operation, expected, actual)) {
      fail(index, `${operationText(operation)}\n${contrast(right, got)}`);
    }
    source.observe(operation, expected);
    if (source.compacted !== compacted) {
      for (const side of [reference, subject]) side.forget(source.compacted);
    }
  }
  await drain(options.operations);
  return sent;
}

/** What of an answer is compared: without the order that etcd leaves open, without checksums of what differs. */
function comparable(
  operation: Operation,
  outcome: Outcome<unknown>,
  hasAutoLeases: boolean,
): Outcome<unknown> {
  if (!outcome.ok || operation.kind !== "call") return outcome;
  if (operation.method === KV.method.range) {
    return {
      ok: true,
      message: comparableRange(operation.request as RangeRequest, outcome.message as RangeResponse),
    };
  }
  if (operation.method === KV.method.txn) {
    return {
      ok: true,
      message: comparableTxn(operation.request as TxnRequest, outcome.message as TxnResponse),
    };
  }
  if (operation.method === Maintenance.method.hashKV && hasAutoLeases) {
    return { ok: true, message: { ...outcome.message as HashKVResponse, hash: 0 } };
  }
  return outcome;
}

function comparableRange(request: RangeRequest, answer: RangeResponse): unknown {
  return hasOpenOrder(request, answer.count) ? { ...answer, kvs: answer.kvs.length } : answer;
}

function comparableTxn(request: TxnRequest, answer: TxnResponse): unknown {
  const ops = answer.succeeded ? request.success : request.failure;
  const responses = answer.responses.map((op, i) => {
    const asked = ops[i]?.request;
    const { response } = op;
    if (asked?.case === "requestRange" && response.case === "responseRange") {
      return comparableRange(asked.value, response.value);
    }
    if (asked?.case === "requestTxn" && response.case === "responseTxn") {
      return comparableTxn(asked.value, response.value);
    }
    return op;
  });
  return { ...answer, responses };
}

/** Two texts side by side, from a little before where they part. */
function contrast(right: string, got: string): string {
  let at = 0;
  while (at < right.length && right[at] === got[at]) at++;
  const from = at < SHOWN_BEFORE ? 0 : at - SHOWN_BEFORE;
  const part = (text: string) => (from > 0 ? "…" : "") + text.slice(from, from + SHOWN_CHARACTERS);
  return `  reference: ${part(right)}\n  subject:   ${part(got)}`;
}

/** Whether deliveries would race with what the operation does. */
function needsDrain(operation: Operation): boolean {
  return operation.kind === "watchCancel" || operation.kind === "watchClose" ||
    (operation.kind === "call" && operation.method === KV.method.compact);
}

function deliveryProblem(right: Delivered, got: Delivered | undefined): string | undefined {
  if (got === undefined) return "the subject has no such watcher";
  if (right.canceled !== got.canceled) {
    return `cancelled\n  reference: ${right.canceled}\n  subject:   ${got.canceled}`;
  }
  const length = Math.max(right.events.length, got.events.length);
  for (let i = 0; i < length; i++) {
    if (right.events[i] !== got.events[i]) {
      return `event ${i}\n  reference: ${right.events[i]}\n  subject:   ${got.events[i]}`;
    }
  }
  return undefined;
}

function nameOf(operation: Operation): string {
  return operation.kind === "call" ? operation.method.name : operation.kind;
}

/** The service's full name. */
function serviceOf(operation: Operation): string {
  if (operation.kind === "call") return operation.method.parent.typeName;
  return operation.kind === "keepAlive" ? Lease.typeName : Watch.typeName;
}

function operationText(operation: Operation): string {
  const { kind, ...rest } = operation;
  if (operation.kind !== "call") return `${kind} ${plain(rest)}`;
  const as = operation.user === "" ? "" : ` as ${operation.user}`;
  return `${operation.method.name} ${plain(operation.request)}${as}`;
}

/** A request as text, without what is unset. */
function plain(value: unknown): string {
  const text = JSON.stringify(canonical(value, { leaseName: () => undefined }), (_key, item) => {
    if (typeof item !== "object" || item === null || Array.isArray(item)) return item;
    return Object.fromEntries(
      Object.entries(item).filter(([, field]) =>
        field !== "" && field !== "0" && field !== 0 && field !== false &&
        !(Array.isArray(field) && field.length === 0)
      ),
    );
  });
  return text.length > 4_000 ? `${text.slice(0, 4_000)}…` : text;
}
