/** What stands behind channels that are not free: documents, the key-value store, sessions. One stream a channel, opened in the
 *  gateway's own name; who may hear it is asked in the caller's. */
import { create } from "@bufbuild/protobuf";
import type {
  DescMessage,
  DescMethodServerStreaming,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { Maintenance } from "$proto/etcdserverpb/rpc_pb.ts";
import { type Change, KeyValueService, WatchResponseSchema } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import {
  SessionEventType,
  SessionService,
  WatchSessionsResponseSchema,
} from "$proto/aetherflow/session/v1/session_pb.ts";
import {
  ApplyOperationResponseSchema,
  type Operation,
  type OperationEvent,
  OperationEventSchema,
  OperationSchema,
  StateSyncService,
} from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import type { JsonValue } from "@bufbuild/protobuf";
import { callUnary } from "../../../transport/rpc/mod.ts";
import { isAdmin, mayUse, PRINCIPAL_METADATA, SYSTEM_KEYS } from "../../runtime/principal.ts";
import { GatewayError } from "../problem.ts";
import type { Caller } from "../stages.ts";
import type { Timer } from "../timer.ts";
import { messageFromValue, messageToJson } from "../transcode.ts";
import { type ChannelName, isPrefix } from "./channel_name.ts";
import type { Source, SourceEvent } from "./followed_channel.ts";
import type { HubServices } from "./hub.ts";

/** What it is made of. */
export interface HubServicesDeps {
  transport(service: string): Transport;
  readonly timer: Timer;
}

/** How long a question may take, in milliseconds. */
const ANSWER_MS = 5_000;
/** How long an operation may take, in milliseconds: what it writes is on disk then. */
const OPERATION_MS = 30_000;
/** Services whose grants a scoped key needs for free channels. */
const CHANNELS = "channels";
/** Sessions count the offsets of all their lives in one row. */
const SESSIONS_EPOCH = "sessions";
/** Changes of a document that leave alone who may read it. */
const HARMLESS_CHANGES: ReadonlySet<string> = new Set(["content", "named", "undone"]);

const encoder = new TextEncoder();
const SYSTEM_BYTES = encoder.encode(SYSTEM_KEYS);

/** Creates it. */
export function createHubServices(deps: HubServicesDeps): HubServices {
  async function authorize(name: ChannelName, caller: Caller, isWrite: boolean): Promise<string> {
    const { principal } = caller;
    const headers = { [PRINCIPAL_METADATA]: caller.encoded };
    const options = { headers, timeoutMs: ANSWER_MS };
    switch (name.kind) {
      case "free":
        if (principal.isScoped && !mayUse(principal, CHANNELS, name.text, isWrite)) {
          throw denied(`this key has no grant for ${CHANNELS} that covers ${name.text}`);
        }
        return name.text;
      case "store":
        if (!mayUse(principal, "kv", name.rest, false)) {
          throw denied("no grant to read for kv covers these keys");
        }
        return name.text;
      case "document":
        await callUnary(
          deps.transport("statesync"),
          StateSyncService.method.getAccess,
          { docId: name.rest },
          options,
        );
        return name.text;
      case "sessions":
        if (principal.isScoped && !mayUse(principal, "sessions", principal.userId, false)) {
          throw denied("this key has no grant for sessions");
        }
        if (name.rest !== "*") {
          await callUnary(
            deps.transport("session"),
            SessionService.method.getSession,
            { sessionId: name.rest },
            options,
          );
          return name.text;
        }
        // Everybody's to administrators, one's own to others: names have no control characters.
        return isAdmin(principal) ? name.text : `${name.text}\0${principal.userId}`;
    }
  }

  function source(name: ChannelName, key: string): Source {
    switch (name.kind) {
      case "document":
        return documentSource(deps, name.rest);
      case "store":
        return storeSource(deps, name.rest);
      case "sessions":
        return sessionSource(deps, name.rest, key.slice(name.text.length + 1));
      case "free":
        throw new TypeError("a free channel has no service behind it");
    }
  }

  async function operate(
    data: Readonly<Record<string, unknown>>,
    caller: Caller,
    requestId: string,
  ): Promise<string> {
    const operation = messageFromValue(OperationSchema, data as JsonValue, "aetherflow") as Operation;
    if (operation.docId === "") throw new GatewayError("invalid_argument", "doc_id is required");
    const headers = {
      [PRINCIPAL_METADATA]: caller.encoded,
      ...requestId === "" ? {} : { "x-request-id": encodeURIComponent(requestId) },
    };
    const answer = await callUnary(
      deps.transport("statesync"),
      StateSyncService.method.applyOperation,
      { operation },
      { headers, timeoutMs: OPERATION_MS },
    );
    return `{"success":true,${messageToJson(ApplyOperationResponseSchema, answer, "aetherflow").slice(1)}`;
  }

  return { authorize, source, operate };
}

function denied(text: string): GatewayError {
  return new GatewayError("permission_denied", text);
}

// ---- streams ----

/** Events of a document. */
function documentSource(deps: HubServicesDeps, docId: string): Source {
  return {
    async open(from, signal) {
      const { first, rest } = await openStream(
        deps,
        "statesync",
        StateSyncService.method.subscribeDocument,
        signal,
        {
          docId,
          ...from === undefined ? {} : { startOffset: BigInt(from.offset) + 1n, epoch: from.epoch },
        },
      );
      const position = { epoch: first.epoch, offset: Number(first.offset) };
      async function* events(): AsyncGenerator<SourceEvent> {
        for await (const { offset, event, epoch } of rest) {
          if (event === undefined) continue;
          yield {
            epoch: epoch || position.epoch,
            offset: Number(offset),
            event: event.type,
            data: messageToJson(OperationEventSchema, event, "aetherflow"),
            changesAccess: changesAccess(event),
          };
        }
      }
      return { position, events: events() };
    },
  };
}

function changesAccess({ type, data }: OperationEvent): boolean {
  return type === "document_updated" && !HARMLESS_CHANGES.has(data.change ?? "");
}

/** Changes of a key, or of all under a prefix, by the store's revision. A restored store is another one. */
function storeSource(deps: HubServicesDeps, keys: string): Source {
  const bytes = encoder.encode(keys);
  const what = isPrefix(keys) ? { prefix: bytes } : { key: bytes };
  return {
    async open(from, signal) {
      const { header } = await callUnary(
        deps.transport("kv"),
        Maintenance.method.status,
        {},
        { timeoutMs: ANSWER_MS, signal },
      );
      const epoch = (header?.clusterId ?? 0n).toString(16);
      const isSame = from?.epoch === epoch;
      if (isSame && BigInt(from!.offset) > (header?.revision ?? 0n)) {
        throw new GatewayError("out_of_range", "the store has not come that far");
      }
      const { first, rest } = await openStream(deps, "kv", KeyValueService.method.watch, signal, {
        ...what,
        ...isSame ? { startRevision: BigInt(from!.offset) + 1n } : {},
      });
      return { position: { epoch, offset: Number(first.revision) }, events: storeEvents(epoch, rest) };
    },
  };
}

async function* storeEvents(
  epoch: string,
  answers: AsyncIterable<MessageShape<typeof WatchResponseSchema>>,
): AsyncGenerator<SourceEvent> {
  // A revision too large for one message comes in pieces, all but the last of which name the revision before it.
  let pieces: Change[] = [];
  for await (const answer of answers) {
    const changes = answer.changes.filter(({ entry }) => !isSystemKey(entry?.key));
    const actual = answer.changes[0]?.entry?.modRevision ?? answer.revision;
    const isPiece = answer.revision < actual;
    if (isPiece) {
      pieces.push(...changes);
      continue;
    }
    const whole = [...pieces, ...changes];
    pieces = [];
    if (whole.length === 0) continue;
    const message = create(WatchResponseSchema, { revision: answer.revision, changes: whole });
    yield {
      epoch,
      offset: Number(answer.revision),
      event: "changed",
      data: messageToJson(WatchResponseSchema, message, "aetherflow"),
      changesAccess: false,
    };
  }
}

/** Whether workers keep the key for themselves: nobody's business, whoever may read everything. */
function isSystemKey(key: Uint8Array | undefined): boolean {
  return key !== undefined && SYSTEM_BYTES.every((byte, i) => key[i] === byte);
}

/** Events of one session, or of all of a user (`""`: everybody's). */
function sessionSource(deps: HubServicesDeps, sessionId: string, userId: string): Source {
  return {
    async open(from, signal) {
      const { first, rest } = await openStream(deps, "session", SessionService.method.watchSessions, signal, {
        userId,
        ...from === undefined ? {} : { startOffset: BigInt(from.offset) + 1n },
      });
      const position = { epoch: SESSIONS_EPOCH, offset: Number(first.offset) };
      async function* events(): AsyncGenerator<SourceEvent> {
        for await (const message of rest) {
          if (sessionId !== "*" && message.session?.sessionId !== sessionId) continue;
          yield {
            epoch: SESSIONS_EPOCH,
            offset: Number(message.offset),
            event: SessionEventType[message.type]!.toLowerCase(),
            data: messageToJson(WatchSessionsResponseSchema, message, "aetherflow"),
            changesAccess: false,
          };
        }
      }
      return { position, events: events() };
    },
  };
}

/** Opens a stream of which the first message says where it begins. */
async function openStream<I extends DescMessage, O extends DescMessage>(
  { transport, timer }: HubServicesDeps,
  service: string,
  method: DescMethodServerStreaming<I, O>,
  signal: AbortSignal,
  request: MessageInitShape<I>,
): Promise<{ first: MessageShape<O>; rest: AsyncIterable<MessageShape<O>> }> {
  const late = new AbortController();
  const cancel = timer.after(ANSWER_MS, () => late.abort());
  const ended = AbortSignal.any([signal, late.signal]);
  try {
    const call = await transport(service).stream(method, ended, undefined, undefined, one(request));
    const messages = call.message[Symbol.asyncIterator]();
    const first = await messages.next();
    if (first.done === true) {
      throw new GatewayError("unavailable", `${service} ended the stream before it began`);
    }
    return { first: first.value, rest: { [Symbol.asyncIterator]: () => messages } };
  } catch (error) {
    if (!late.signal.aborted) throw error;
    throw new GatewayError("unavailable", `${service} did not begin the stream in time`, { cause: error });
  } finally {
    cancel();
  }
}

async function* one<T>(value: T): AsyncGenerator<T> {
  yield value;
}
