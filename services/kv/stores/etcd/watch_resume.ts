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

/** What a connection tells. */
export interface WatchConnectionListener {
  onAnswer(answer: WatchResponse): void;
  /** Told once; undefined when the server ended the stream in peace. */
  onEnd(error: EtcdError | undefined): void;
}

/** Where streams come from. */
export interface WatchSource {
  /** Opens a stream, waiting while that is worthwhile. `tries`: how often it failed in a row before this time.
   *  @throws {EtcdError} when it cannot be opened; `mayResume` says whether to ask again. */
  open(listener: WatchConnectionListener, tries: number): Promise<WatchConnection>;
  /** Whether a stream that ended so may go on with another. */
  mayResume(error: EtcdError | undefined): boolean;
}

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
  readonly #source: WatchSource;
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
  #connection: WatchConnection | undefined;
  #isPaused = false;
  #lastUpstreamId = 0n;
  #lastHeader: ResponseHeader | undefined;
  #nextAutoId = 0n;
  #failure: EtcdError | undefined;
  #isClosed = false;
  #isOpening = false;

  /** `onReady` is called when `take` has something, and when the stream has failed. */
  constructor(source: WatchSource, onReady: () => void) {
    this.#source = source;
    this.#onReady = onReady;
  }

  /** True once it was closed or has failed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Why it failed; undefined when it did not. */
  get failure(): EtcdError | undefined {
    return this.#failure;
  }

  /** Whether no more requests should be given until some are answered. */
  get isFull(): boolean {
    return this.#requests.length >= WATCH_REQUESTS_MAX;
  }

  /** Takes a request of the client. The first one opens the connection. */
  request(request: WatchRequest): void {
    if (this.#isClosed) return;
    this.#requests.push(request);
    if (this.#connection === undefined) this.#open(0);
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
      this.#connection?.resume();
    }
    return answer;
  }

  /** Ends the stream; answers that were not taken are gone. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#answers = [];
    this.#connection?.cancel();
    this.#onReady();
  }

  // ---- connections ----

  #open(tries: number): void {
    if (this.#isOpening || this.#isClosed) return;
    this.#isOpening = true;
    let hasEnded = false;
    let hasAnswered = false;
    const listener: WatchConnectionListener = {
      onAnswer: (answer) => {
        hasAnswered = true;
        if (!hasEnded && !this.#isClosed) this.#take(answer);
      },
      onEnd: (error) => {
        hasEnded = true;
        if (this.#connection !== undefined) this.#lost(error, hasAnswered ? 0 : tries + 1);
      },
    };
    this.#source.open(listener, tries).then(
      (connection) => {
        this.#isOpening = false;
        if (this.#isClosed) return connection.cancel();
        this.#connection = connection;
        if (hasEnded) return this.#lost(undefined, tries + 1);
        this.#restore();
      },
      (error) => {
        this.#isOpening = false;
        this.#lost(error, tries + 1);
      },
    );
  }

  #lost(error: EtcdError | undefined, tries: number): void {
    this.#connection = undefined;
    this.#isPaused = false;
    if (this.#isClosed) return;
    if (this.#source.mayResume(error)) return this.#open(tries);
    this.#failure = error;
    this.#isClosed = true;
    this.#onReady();
  }

  /** Gives a new connection what the last one had. */
  #restore(): void {
    const connection = this.#connection!;
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
    const connection = this.#connection;
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
    this.#connection!.send(createMessage({ ...request, watchId, progressNotify: true }));
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
    if (this.#isPaused || this.#connection === undefined) return;
    this.#isPaused = true;
    this.#connection.pause();
  }
}

function createMessage(value: WatchCreateRequest): WatchRequest {
  return create(WatchRequestSchema, { requestUnion: { case: "createRequest", value } });
}

function cancelMessage(watchId: bigint): WatchRequest {
  return create(WatchRequestSchema, { requestUnion: { case: "cancelRequest", value: { watchId } } });
}
