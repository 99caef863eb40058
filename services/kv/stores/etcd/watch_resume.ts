/** A client's watch stream that outlives the connections it runs on. The client sees one stream with its own watch ids;
 *  below, each connection gets the watchers anew, from the revision after the last one that was delivered.
 *
 *      opening ──► restoring: the watchers of the last connection are created again ──► open
 *         ▲                                                                              │
 *         └──────── the connection ended, and the reason passes by itself ───────────────┘
 *
 *  What is asked is passed on in order, and a create waits for the answer of the one before it, so that ids are given
 *  exactly as etcd gives them. */
import { create } from "@bufbuild/protobuf";
import {
  type ResponseHeader,
  type WatchCreateRequest,
  type WatchRequest,
  WatchRequestSchema,
  type WatchResponse,
  WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import type { EtcdError } from "../../../../storage/etcd/mod.ts";
import { Resuming, type StreamSource } from "./resuming.ts";

/** Requests that may wait, unanswered, before no more should be given. */
export const WATCH_REQUESTS_MAX = 1_024;
/** Answers not yet taken at which the connection is told to pause. Each is at most one of etcd's messages. */
const ANSWERS_MAX = 64;

const NO_WATCHER = -1n;

/** One connection's stream. */
export interface WatchConnection {
  send(request: WatchRequest): void;
  pause(): void;
  resume(): void;
  cancel(): void;
}

/** Where streams come from. */
export type WatchSource = StreamSource<WatchConnection, WatchResponse>;

interface Watcher {
  /** The client's. */
  readonly id: bigint;
  readonly request: WatchCreateRequest;
  /** First revision that was not delivered whole. */
  nextRevision: bigint;
  /** Events of `nextRevision` that were delivered, as fragments. */
  deliveredEvents: number;
  /** How many of those are still to be left out on this connection. */
  toSkip: number;
  /** The client has asked for its end. */
  isLeaving: boolean;
}

/** One client's stream. */
export class ResumingWatch {
  readonly #stream: Resuming<WatchConnection, WatchResponse>;
  readonly #onReady: () => void;
  readonly #watchers = new Map<bigint, Watcher>();
  /** Watchers by their ids on this connection, which are never given twice. */
  readonly #byUpstream = new Map<bigint, Watcher>();
  readonly #upstreamIds = new Map<Watcher, bigint>();
  /** Requests that were not sent yet. */
  readonly #requests: WatchRequest[] = [];
  /** The create that waits for its answer. */
  #creating: WatchCreateRequest | undefined;
  /** Watchers whose re-creation waits for its answer, in order. */
  #restoring: Watcher[] = [];
  #answers: WatchResponse[] = [];
  #isPaused = false;
  #lastUpstreamId = 0n;
  #lastHeader: ResponseHeader | undefined;
  #nextAutoId = 0n;

  /** `onReady` is called when `take` has something, and when the stream has failed. */
  constructor(source: WatchSource, onReady: () => void) {
    this.#onReady = onReady;
    this.#stream = new Resuming(source, {
      onOpen: (connection) => this.#restore(connection),
      onAnswer: (answer) => this.#take(answer),
      onClosed: () => this.#onReady(),
    });
  }

  /** True once it was closed or has failed. */
  get isClosed(): boolean {
    return this.#stream.isClosed;
  }

  /** Why it failed; undefined when it did not. */
  get failure(): EtcdError | undefined {
    return this.#stream.failure;
  }

  /** Whether no more requests should be given until some are answered. */
  get isFull(): boolean {
    return this.#requests.length >= WATCH_REQUESTS_MAX;
  }

  /** Takes a request of the client. The first one opens the connection. */
  request(request: WatchRequest): void {
    if (this.#stream.isClosed) return;
    this.#requests.push(request);
    if (this.#stream.connection === undefined) this.#stream.open();
    else this.#sendRequests();
  }

  /** Asks for the end of one watcher. */
  cancel(watchId: bigint): void {
    this.request(cancelMessage(watchId));
  }

  /** The next answer for the client; undefined when there is none now. */
  take(): WatchResponse | undefined {
    const answer = this.#answers.shift();
    if (this.#isPaused && this.#answers.length <= ANSWERS_MAX / 2) {
      this.#isPaused = false;
      this.#stream.connection?.resume();
    }
    return answer;
  }

  /** Ends the stream; answers that were not taken are gone. Idempotent. */
  close(): void {
    if (!this.#stream.isClosed) this.#answers = [];
    this.#stream.close();
  }

  // ---- connections ----

  /** Gives a new connection what the last one had. */
  #restore(connection: WatchConnection): void {
    this.#isPaused = false;
    this.#byUpstream.clear();
    this.#upstreamIds.clear();
    for (const watcher of [...this.#watchers.values()]) if (watcher.isLeaving) this.#left(watcher);
    this.#restoring = [...this.#watchers.values()];
    for (const watcher of this.#restoring) {
      watcher.toSkip = watcher.deliveredEvents;
      const watchId = this.#newUpstreamId(watcher);
      connection.send(
        createMessage({
          ...watcher.request,
          startRevision: watcher.nextRevision,
          watchId,
          progressNotify: true,
        }),
      );
    }
    if (this.#creating !== undefined) this.#sendCreate(this.#creating);
    this.#sendRequests();
    if (this.#answers.length > ANSWERS_MAX) this.#pause();
  }

  /** The connection ended before it confirmed the end of a watcher, which is no reason to begin it again. */
  #left(watcher: Watcher): void {
    this.#forget(watcher);
    this.#emit(
      create(WatchResponseSchema, {
        ...(this.#lastHeader === undefined ? {} : { header: this.#lastHeader }),
        watchId: watcher.id,
        canceled: true,
      }),
    );
  }

  #newUpstreamId(watcher: Watcher): bigint {
    const id = ++this.#lastUpstreamId;
    this.#byUpstream.set(id, watcher);
    this.#upstreamIds.set(watcher, id);
    return id;
  }

  // ---- requests ----

  #sendRequests(): void {
    const connection = this.#stream.connection;
    while (connection !== undefined && this.#creating === undefined && this.#restoring.length === 0) {
      const request = this.#requests.shift();
      if (request === undefined) return;
      const { requestUnion } = request;
      switch (requestUnion.case) {
        case "createRequest":
          this.#creating = requestUnion.value;
          this.#sendCreate(requestUnion.value);
          break;
        case "cancelRequest": {
          const watcher = this.#watchers.get(requestUnion.value.watchId);
          // etcd says nothing to the cancel of a watcher that is not there.
          if (watcher !== undefined) {
            watcher.isLeaving = true;
            connection.send(cancelMessage(this.#upstreamIds.get(watcher)!));
          }
          break;
        }
        default:
          connection.send(request);
      }
    }
  }

  #sendCreate(request: WatchCreateRequest): void {
    const holder = request.watchId === 0n ? undefined : this.#watchers.get(request.watchId);
    // A taken id is asked for again above, so that the refusal is etcd's own.
    const watchId = holder === undefined ? ++this.#lastUpstreamId : this.#upstreamIds.get(holder)!;
    this.#stream.connection!.send(createMessage({ ...request, watchId, progressNotify: true }));
  }

  // ---- answers ----

  #take(answer: WatchResponse): void {
    this.#lastHeader = answer.header;
    if (answer.created) this.#created(answer);
    else if (answer.canceled) this.#canceled(answer);
    else if (answer.events.length > 0) this.#delivered(answer);
    else this.#progressed(answer);
  }

  #created(answer: WatchResponse): void {
    const restored = this.#restoring.shift();
    if (restored !== undefined) {
      if (answer.canceled) {
        this.#forget(restored);
        this.#emit({ ...answer, created: false, watchId: restored.id });
      }
    } else this.#createdForClient(answer);
    this.#sendRequests();
  }

  #createdForClient(answer: WatchResponse): void {
    const request = this.#creating;
    if (request === undefined) return;
    this.#creating = undefined;
    if (answer.canceled && answer.watchId === NO_WATCHER) return this.#emit(answer);
    const id = request.watchId === 0n ? this.#autoId() : request.watchId;
    if (!answer.canceled) {
      const { startRevision } = request;
      const watcher: Watcher = {
        id,
        request,
        nextRevision: startRevision > 0n ? startRevision : (answer.header?.revision ?? 0n) + 1n,
        deliveredEvents: 0,
        toSkip: 0,
        isLeaving: false,
      };
      this.#watchers.set(id, watcher);
      this.#byUpstream.set(answer.watchId, watcher);
      this.#upstreamIds.set(watcher, answer.watchId);
    }
    this.#emit({ ...answer, watchId: id });
  }

  /** The rule by which etcd chooses ids: the next one up that nobody has. */
  #autoId(): bigint {
    while (this.#watchers.has(this.#nextAutoId)) this.#nextAutoId++;
    return this.#nextAutoId++;
  }

  #canceled(answer: WatchResponse): void {
    const watcher = this.#byUpstream.get(answer.watchId);
    if (watcher === undefined) return;
    this.#forget(watcher);
    this.#emit({ ...answer, watchId: watcher.id });
  }

  #delivered(answer: WatchResponse): void {
    const watcher = this.#byUpstream.get(answer.watchId);
    if (watcher === undefined) return;
    let { events } = answer;
    if (watcher.toSkip > 0) {
      let skipped = 0;
      while (skipped < watcher.toSkip && events[skipped]?.kv?.modRevision === watcher.nextRevision) skipped++;
      watcher.toSkip -= skipped;
      events = events.slice(skipped);
      if (events.length === 0) return;
    }
    const last = events[events.length - 1]!.kv?.modRevision ?? 0n;
    if (answer.fragment) {
      let count = 0;
      while (count < events.length && events[events.length - 1 - count]!.kv?.modRevision === last) count++;
      watcher.deliveredEvents = (last === watcher.nextRevision ? watcher.deliveredEvents : 0) + count;
      watcher.nextRevision = last;
    } else {
      watcher.deliveredEvents = 0;
      watcher.nextRevision = last + 1n;
    }
    this.#emit({ ...answer, watchId: watcher.id, events });
  }

  #progressed(answer: WatchResponse): void {
    if (answer.watchId === NO_WATCHER) return this.#emit(answer);
    const watcher = this.#byUpstream.get(answer.watchId);
    if (watcher === undefined) return;
    // Asked for on every watcher: so an idle one does not resume from a revision that is long compacted.
    const next = (answer.header?.revision ?? 0n) + 1n;
    if (watcher.deliveredEvents === 0 && next > watcher.nextRevision) watcher.nextRevision = next;
    if (watcher.request.progressNotify) this.#emit({ ...answer, watchId: watcher.id });
  }

  #forget(watcher: Watcher): void {
    this.#watchers.delete(watcher.id);
    const upstreamId = this.#upstreamIds.get(watcher);
    this.#upstreamIds.delete(watcher);
    if (upstreamId !== undefined) this.#byUpstream.delete(upstreamId);
  }

  #emit(answer: WatchResponse): void {
    this.#answers.push(answer);
    if (this.#answers.length > ANSWERS_MAX) this.#pause();
    this.#onReady();
  }

  #pause(): void {
    if (this.#isPaused || this.#stream.connection === undefined) return;
    this.#isPaused = true;
    this.#stream.connection.pause();
  }
}

function createMessage(value: WatchCreateRequest): WatchRequest {
  return create(WatchRequestSchema, { requestUnion: { case: "createRequest", value } });
}

function cancelMessage(watchId: bigint): WatchRequest {
  return create(WatchRequestSchema, { requestUnion: { case: "cancelRequest", value: { watchId } } });
}
