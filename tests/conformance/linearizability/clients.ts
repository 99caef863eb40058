/** Clients of a store over gRPC that keep a history of what they asked and were told. */
import {
  KV,
  Watch,
  type WatchRequestSchema,
  type WatchResponse,
  type WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import type { KeyValue } from "$proto/mvccpb/kv_pb.ts";
import type { SimRandom } from "../../sim/random.ts";
import { createGrpcClient, type GrpcClient, type Streams } from "../client.ts";
import type { Operation } from "./checker.ts";
import type { KvEntry, KvInput, KvOutput } from "./kv_model.ts";
import { type WatchedEvent, WatchLog } from "./watch_log.ts";

/** One call and what came of it. */
export type KvOperation = Operation<KvInput, KvOutput>;

/** The keys that clients share. */
export const KEYS = ["lin/a", "lin/b", "lin/c"] as const;

/** gRPC codes after which nobody knows whether the call happened: cancelled, unknown, deadline exceeded, unavailable. */
const UNKNOWN_OUTCOME = [1, 2, 4, 14];
/** What the client library says of a call that it never sent. */
const NEVER_SENT = /^No connection established/;
const CALL_TIMEOUT_MS = 5_000;
/** Pause after a call that failed: the server is away. */
const PAUSE_MS = 20;

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const everything = { key: Uint8Array.of(0), rangeEnd: Uint8Array.of(0) };

/** Calls the store until `stop` says so, one call after the other; returns what was asked and answered.
 *  `name` makes the values of this client its own; `onAnswer` is called for each answer.
 *  @throws {Error} on a refusal that no fault explains. */
export async function runClient(
  address: string,
  name: string,
  random: SimRandom,
  stop: { readonly isSet: boolean },
  onAnswer: () => void,
): Promise<KvOperation[]> {
  using client = createGrpcClient(address);
  const history: KvOperation[] = [];
  const seen = new Map<string, number>();
  for (let i = 0; !stop.isSet; i++) {
    const input = draw(random, `${name}.${i}`, seen);
    const operation = await call(client, input);
    if (operation.output === undefined) {
      // A read that was not answered says nothing, nor does what nobody was asked.
      const isRead = input.kind === "get" || input.kind === "getAll";
      if (!isRead && !operation.isUnsent) history.push(operation);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      continue;
    }
    history.push(operation);
    const { entry, entries } = operation.output;
    if (input.kind === "get" || input.kind === "swap") seen.set(input.key, entry?.mod ?? 0);
    for (const [key, { mod }] of Object.entries(entries ?? {})) seen.set(key, mod);
    onAnswer();
  }
  return history;
}

/** Makes one call.
 *  @throws {Error} on a refusal that no fault explains. */
export async function call(
  client: GrpcClient,
  input: KvInput,
): Promise<KvOperation & { isUnsent?: boolean }> {
  const start = performance.now();
  const outcome = await send(client, input);
  const end = performance.now();
  if (outcome.ok) return { input, output: outcome.message, start, end };
  if (!UNKNOWN_OUTCOME.includes(outcome.code)) {
    throw new Error(`${JSON.stringify(input)} was refused: ${outcome.code} ${outcome.text}`);
  }
  return { input, output: undefined, start, end, isUnsent: NEVER_SENT.test(outcome.text) };
}

function draw(random: SimRandom, value: string, seen: ReadonlyMap<string, number>): KvInput {
  const key = random.pick(KEYS);
  return random.pick<() => KvInput>([
    () => ({ kind: "get", key }),
    () => ({ kind: "getAll" }),
    () => ({ kind: "put", key, value }),
    () => ({ kind: "put", key, value }),
    () => ({ kind: "putBoth", keys: [KEYS[0], KEYS[2]], value }),
    () => ({ kind: "delete", key }),
    () => ({ kind: "swap", key, expected: seen.get(key) ?? 0, value }),
  ])();
}

type Sent = { readonly ok: true; readonly message: KvOutput } | {
  readonly ok: false;
  readonly code: number;
  readonly text: string;
};

async function send(client: GrpcClient, input: KvInput): Promise<Sent> {
  const options = { timeoutMs: CALL_TIMEOUT_MS };
  const put = (key: string, value: string) => ({
    request: {
      case: "requestPut" as const,
      value: { key: encoder.encode(key), value: encoder.encode(value) },
    },
  });
  switch (input.kind) {
    case "get": {
      const answer = await client.unary(KV.method.range, { key: encoder.encode(input.key) }, options);
      if (!answer.ok) return answer;
      const { header, kvs } = answer.message;
      return { ok: true, message: { revision: Number(header?.revision), entry: entryOf(kvs[0]) } };
    }
    case "getAll": {
      const answer = await client.unary(KV.method.range, everything, options);
      if (!answer.ok) return answer;
      const entries = Object.fromEntries(
        answer.message.kvs.map((kv) => [decoder.decode(kv.key), entryOf(kv)!]),
      );
      return { ok: true, message: { revision: Number(answer.message.header?.revision), entries } };
    }
    case "put": {
      const request = put(input.key, input.value).request.value;
      const answer = await client.unary(KV.method.put, request, options);
      return answer.ok
        ? { ok: true, message: { revision: Number(answer.message.header?.revision) } }
        : answer;
    }
    case "putBoth": {
      const success = input.keys.map((key) => put(key, input.value));
      const answer = await client.unary(KV.method.txn, { success }, options);
      return answer.ok
        ? { ok: true, message: { revision: Number(answer.message.header?.revision) } }
        : answer;
    }
    case "delete": {
      const answer = await client.unary(KV.method.deleteRange, { key: encoder.encode(input.key) }, options);
      if (!answer.ok) return answer;
      const { header, deleted } = answer.message;
      return { ok: true, message: { revision: Number(header?.revision), deleted: Number(deleted) } };
    }
    case "swap": {
      const key = encoder.encode(input.key);
      const answer = await client.unary(KV.method.txn, {
        compare: [{
          key,
          target: 2,
          result: 0,
          targetUnion: { case: "modRevision", value: BigInt(input.expected) },
        }],
        success: [put(input.key, input.value)],
        failure: [{ request: { case: "requestRange", value: { key } } }],
      }, options);
      if (!answer.ok) return answer;
      const { header, succeeded, responses } = answer.message;
      const revision = Number(header?.revision);
      const read = responses[0]?.response;
      return {
        ok: true,
        message: succeeded || read?.case !== "responseRange"
          ? { revision, succeeded }
          : { revision, succeeded, entry: entryOf(read.value.kvs[0]) },
      };
    }
  }
}

function entryOf(kv: KeyValue | undefined): KvEntry | null {
  return kv === undefined ? null : {
    value: decoder.decode(kv.value),
    create: Number(kv.createRevision),
    mod: Number(kv.modRevision),
    version: Number(kv.version),
  };
}

/** A watcher of the whole store that comes back where it was when its connection breaks. Dispose to end it. */
export interface Follower extends Disposable {
  readonly log: WatchLog;
  /** Goes on at another address, where the server is now. */
  moveTo(address: string): void;
  /** Resolves when everything up to `revision` was told; rejects if that takes longer than `timeoutMs`. */
  reach(revision: number, timeoutMs: number): Promise<void>;
}

/** Starts a watcher from the first revision. */
export function follow(address: string): Follower {
  const log = new WatchLog(2);
  let client = createGrpcClient(address);
  let streams: Streams<typeof WatchRequestSchema, typeof WatchResponseSchema> | undefined;
  let isOver = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let changed = () => {};

  function open(): void {
    const mine = client.bidi(Watch.method.watch);
    streams = mine;
    mine.onMessage = (message) => {
      if (streams !== mine) return; // from a connection that was given up
      if (message.canceled) log.broken.push(`the watch was cancelled: ${message.cancelReason}`);
      if (message.events.length > 0) {
        log.take({ revision: Number(message.header?.revision), events: eventsOf(message) });
      }
      changed();
    };
    mine.ended.then(() => {
      if (!isOver && streams === mine) timer = setTimeout(open, PAUSE_MS);
    });
    mine.send({
      requestUnion: {
        case: "createRequest",
        value: { ...everything, startRevision: BigInt(log.revision + 1), prevKv: true },
      },
    });
  }

  open();
  return {
    log,
    moveTo(address) {
      const [old, last] = [client, streams];
      clearTimeout(timer);
      client = createGrpcClient(address);
      open();
      last?.cancel();
      old[Symbol.dispose]();
    },
    async reach(revision, timeoutMs) {
      const late = Promise.withResolvers<void>();
      const deadline = setTimeout(
        () => late.reject(new Error(`a watcher is at revision ${log.revision}, the store at ${revision}`)),
        timeoutMs,
      );
      try {
        while (log.revision < revision) {
          await Promise.race([late.promise, new Promise<void>((resolve) => changed = resolve)]);
        }
      } finally {
        clearTimeout(deadline);
      }
    },
    [Symbol.dispose]() {
      isOver = true;
      clearTimeout(timer);
      streams?.cancel();
      client[Symbol.dispose]();
    },
  };
}

function eventsOf(message: WatchResponse): WatchedEvent[] {
  return message.events.map(({ type, kv, prevKv }) => ({
    revision: Number(kv?.modRevision),
    key: decoder.decode(kv?.key),
    value: type === 0 ? decoder.decode(kv?.value) : undefined,
    version: Number(kv?.version),
    create: Number(kv?.createRevision),
    previous: prevKv === undefined ? undefined : decoder.decode(prevKv.value),
  }));
}
