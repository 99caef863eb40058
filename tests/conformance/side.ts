/** One server under comparison: carries operations out, keeps what the server chose (lease ids, tokens), and collects
 *  what its watches deliver. */
import {
  Auth,
  Lease,
  Watch,
  WatchCreateRequest_FilterType,
  type WatchCreateRequestSchema,
  type WatchRequestSchema,
  type WatchResponse,
  type WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import type { Event } from "$proto/mvccpb/kv_pb.ts";
import { type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { canonical, type Names } from "./canonical.ts";
import { createGrpcClient, type GrpcClient, type Outcome, type Streams } from "./client.ts";
import {
  AUTO_LEASES,
  AUTO_LEASES_MAX,
  compareBytes,
  type Operation,
  type WatchOperation,
} from "./operations.ts";

/** How long deliveries may take until they count as lost, in ms. */
const DELIVERY_DEADLINE_MS = 10_000;

/** What one watcher delivered since the last look. */
export interface Delivered {
  /** Events as text, one by one. */
  readonly events: string[];
  /** Text of its cancellation by the server, if any. */
  canceled: string;
}

interface Watcher extends Delivered {
  readonly key: Uint8Array;
  readonly rangeEnd: Uint8Array;
  readonly startRevision: bigint;
  readonly prevKv: boolean;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly fragment: boolean;
  /** Whether the server has to cancel it, as it starts in compacted history. */
  readonly isTooOld: boolean;
  /** How much of the record of all events was looked at, and what this watcher has to deliver of it. */
  nextRevision: bigint;
  expected: string[];
  lastRevision: bigint;
  isInFragments: boolean;
}

interface WatchStream {
  readonly streams: Streams<typeof WatchRequestSchema, typeof WatchResponseSchema>;
  readonly watchers: Map<bigint, Watcher>;
  /** Watchers in the order of their creation, ended ones included. */
  all: Watcher[];
  /** Ids of watches that compaction cancelled. */
  readonly overtaken: Set<bigint>;
  /** What came in answer to requests since the last fence. */
  controls: unknown[];
  /** Creations asked for and not answered. */
  readonly asked: Asked[];
  /** Called with the answer to a progress request, or undefined when the stream ends. */
  fence: ((answer: WatchResponse | undefined) => void) | undefined;
}

/** A creation that was asked for, and whether it starts in compacted history. */
interface Asked {
  readonly create: MessageInitShape<typeof WatchCreateRequestSchema>;
  readonly isTooOld: boolean;
}

/** One event of the whole store. */
interface Recorded {
  readonly event: Event;
  readonly revision: bigint;
}

/** One server. Dispose to close its connection. */
export class Side implements Names, Disposable {
  readonly client: GrpcClient;
  readonly #leases: bigint[] = [];
  readonly #leaseNames = new Map<bigint, bigint>();
  readonly #tokens = new Map<string, string>([["?", "no-such-token.1"]]);
  readonly #streams = new Map<number, WatchStream>();
  readonly #tap: Streams<typeof WatchRequestSchema, typeof WatchResponseSchema>;
  #recorded: Recorded[] = [];
  #recordedRevision = 1n;
  #changed = () => {};
  /** Broken promises of watching, in words. */
  readonly violations: string[] = [];

  /** `name` is for messages; `address` is `host:port`. */
  constructor(readonly name: string, address: string) {
    this.client = createGrpcClient(address);
    this.#tap = this.client.bidi(Watch.method.watch);
    this.#tap.onMessage = (message) => this.#record(message);
    this.#tap.send({
      requestUnion: {
        case: "createRequest",
        value: { key: Uint8Array.of(0), rangeEnd: Uint8Array.of(0), startRevision: 1n, prevKv: true },
      },
    });
  }

  [Symbol.dispose](): void {
    this.#tap.cancel();
    for (const { streams } of this.#streams.values()) streams.cancel();
    this.client[Symbol.dispose]();
  }

  leaseName(id: bigint): bigint | undefined {
    return this.#leaseNames.get(id);
  }

  /** Carries one operation out. `compacted` is what history is compacted at. */
  async run(operation: Operation, compacted: bigint): Promise<Outcome<unknown>> {
    switch (operation.kind) {
      case "call": {
        const { method } = operation;
        const request = this.#resolve(operation.request) as MessageShape<DescMessage>;
        const outcome = await this.client.unary(method, request, { token: this.#tokens.get(operation.user) });
        if (outcome.ok && method === Lease.method.leaseGrant && (request as { ID?: bigint }).ID === 0n) {
          const { ID } = outcome.message as unknown as { ID: bigint };
          this.#leaseNames.set(ID, AUTO_LEASES + BigInt(this.#leases.length));
          this.#leases.push(ID);
        }
        if (outcome.ok && method === Auth.method.authenticate) {
          const { name } = request as unknown as { name: string };
          this.#tokens.set(name, (outcome.message as unknown as { token: string }).token);
        }
        return outcome;
      }
      case "keepAlive":
        return await this.#keepAlive(this.#leaseId(operation.id), operation.user);
      default:
        return await this.#runWatch(operation, compacted);
    }
  }

  /** Waits until every event up to `revision` was delivered to whom it concerns, and hands over what was, by watcher. */
  async drain(revision: bigint): Promise<Map<string, Delivered>> {
    await this.#until(
      () => this.#recordedRevision >= revision,
      () => `the record is at ${this.#recordedRevision}`,
    );
    const delivered = new Map<string, Delivered>();
    for (const [number, { all }] of this.#streams) {
      for (const [index, watcher] of all.entries()) {
        this.#expect(watcher);
        await this.#until(
          () =>
            watcher.canceled !== "" ||
            (!watcher.isTooOld && watcher.events.length >= watcher.expected.length),
          () =>
            `watcher ${number}/${index} has ${watcher.events.length} of ${watcher.expected.length} events`,
        );
        if (watcher.canceled === "") this.#check(`watcher ${number}/${index}`, watcher);
        delivered.set(`watcher ${number}/${index}`, {
          events: watcher.events.splice(0),
          canceled: watcher.canceled,
        });
        watcher.expected = [];
      }
    }
    return delivered;
  }

  /** Every event of the store from `from` on, as text. */
  recordedFrom(from: bigint): string[] {
    return this.#recorded.filter(({ revision }) => revision >= from).map(({ event }) =>
      this.#text(event, true)
    );
  }

  /** Forgets events that no watcher can ask for any more. */
  forget(compacted: bigint): void {
    this.#recorded = this.#recorded.filter(({ revision }) => revision >= compacted);
  }

  /** Whether the operation is about a watch that compaction cancelled. */
  isOvertaken(operation: Operation): boolean {
    if (operation.kind !== "watchCancel" && operation.kind !== "watchCreate") return false;
    const overtaken = this.#streams.get(operation.stream)?.overtaken;
    if (overtaken === undefined || overtaken.size === 0) return false;
    if (operation.kind === "watchCancel") return overtaken.has(operation.watchId);
    // An id that the server shall choose may be one that is free only in AetherFlow.
    const { watchId = 0n } = operation.create;
    return watchId === 0n || overtaken.has(watchId);
  }

  // ---- names ----

  #leaseId(id: bigint): bigint {
    const index = Number(id - AUTO_LEASES);
    return id >= AUTO_LEASES && id < AUTO_LEASES + AUTO_LEASES_MAX ? this.#leases[index] ?? id : id;
  }

  /** The message with this server's lease ids in place of the common ones. */
  #resolve(value: unknown): unknown {
    if (typeof value === "bigint") return this.#leaseId(value);
    if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
    if (Array.isArray(value)) return value.map((item) => this.#resolve(item));
    const copy = Object.create(Object.getPrototypeOf(value));
    for (const [name, item] of Object.entries(value)) copy[name] = this.#resolve(item);
    return copy;
  }

  // ---- leases ----

  async #keepAlive(id: bigint, user: string): Promise<Outcome<unknown>> {
    const streams = this.client.bidi(Lease.method.leaseKeepAlive, { token: this.#tokens.get(user) });
    const answer = Promise.withResolvers<Outcome<unknown>>();
    streams.onMessage = (message) => answer.resolve({ ok: true, message });
    streams.ended.then((end) => answer.resolve(end));
    streams.send({ ID: id });
    const outcome = await answer.promise;
    streams.end();
    await streams.ended;
    return outcome;
  }

  // ---- watches ----

  async #runWatch(operation: WatchOperation, compacted: bigint): Promise<Outcome<unknown>> {
    if (operation.kind === "watchOpen") {
      this.#open(operation.stream, operation.user);
      return { ok: true, message: undefined };
    }
    const stream = this.#streams.get(operation.stream);
    if (stream === undefined) throw new Error(`stream ${operation.stream} is not open`);
    switch (operation.kind) {
      case "watchClose":
        this.#streams.delete(operation.stream);
        // Half-closed, etcd's stream stays open.
        stream.streams.cancel();
        await stream.streams.ended;
        return { ok: true, message: undefined };
      case "watchCreate":
        stream.asked.push({
          create: operation.create,
          isTooOld: isTooOld(operation.create, compacted),
        });
        stream.streams.send({ requestUnion: { case: "createRequest", value: operation.create } });
        return await this.#fence(stream);
      case "watchCancel": {
        const value = { watchId: operation.watchId };
        stream.streams.send({ requestUnion: { case: "cancelRequest", value } });
        return await this.#fence(stream);
      }
      case "watchProgress":
        return await this.#fence(stream);
    }
  }

  #open(number: number, user: string): void {
    const stream: WatchStream = {
      streams: this.client.bidi(Watch.method.watch, { token: this.#tokens.get(user) }),
      watchers: new Map(),
      overtaken: new Set(),
      all: [],
      controls: [],
      asked: [],
      fence: undefined,
    };
    stream.streams.onMessage = (message) => this.#deliver(stream, message);
    this.#streams.set(number, stream);
  }

  /** Asks for progress, and hands over what the stream answered until that was answered. */
  async #fence(stream: WatchStream): Promise<Outcome<unknown>> {
    const fence = Promise.withResolvers<WatchResponse | undefined>();
    stream.fence = fence.resolve;
    stream.streams.ended.then(() => fence.resolve(undefined));
    stream.streams.send({ requestUnion: { case: "progressRequest", value: {} } });
    const timer = setTimeout(
      () => fence.reject(new Error(`${this.name}: no answer to a progress request`)),
      DELIVERY_DEADLINE_MS,
    );
    const answer = await fence.promise;
    clearTimeout(timer);
    stream.fence = undefined;
    const controls = stream.controls.splice(0);
    if (answer === undefined) return await stream.streams.ended;
    return { ok: true, message: { header: answer.header, watchId: answer.watchId, controls } };
  }

  #deliver(stream: WatchStream, message: WatchResponse): void {
    const watcher = stream.watchers.get(message.watchId);
    if (message.created) {
      const asked = stream.asked.shift();
      stream.controls.push(message);
      if (!message.canceled && asked !== undefined) {
        const made = watcherOf(asked, message.header?.revision ?? 0n);
        stream.watchers.set(message.watchId, made);
        stream.all.push(made);
        // When etcd cancels it is up to its next look at watches that are behind.
        if (made.isTooOld) stream.overtaken.add(message.watchId);
      }
    } else if (message.canceled) {
      stream.watchers.delete(message.watchId);
      // One that the server cancels comes whenever it comes: it belongs to the watcher, not to a request.
      if (message.compactRevision > 0n && watcher !== undefined) {
        stream.overtaken.add(message.watchId);
        watcher.canceled = JSON.stringify(canonical(message, this));
      } else {
        stream.controls.push(message);
        stream.all = stream.all.filter((one) => one !== watcher);
      }
    } else if (message.watchId === -1n && message.events.length === 0) {
      stream.fence?.(message);
    } else if (watcher === undefined) {
      this.violations.push(`events for watch ${message.watchId}, which there is not`);
    } else {
      this.#take(watcher, message);
    }
    this.#changed();
  }

  #take(watcher: Watcher, message: WatchResponse): void {
    for (const event of message.events) {
      const revision = event.kv?.modRevision ?? 0n;
      if (revision < watcher.lastRevision) {
        this.violations.push(`not ordered: ${revision} after ${watcher.lastRevision}`);
      }
      // A revision goes on in a later answer only in fragments.
      if (revision === watcher.lastRevision && event === message.events[0] && !watcher.isInFragments) {
        this.violations.push(`not atomic: revision ${revision} in two answers`);
      }
      if (revision > (message.header?.revision ?? 0n)) {
        this.violations.push(`not bookmarkable: event ${revision} under header ${message.header?.revision}`);
      }
      watcher.lastRevision = revision;
      watcher.events.push(this.#text(event, true));
    }
    if (message.fragment && !watcher.fragment) this.violations.push("a fragment nobody asked for");
    watcher.isInFragments = message.fragment;
  }

  /** What the record says this watcher has to deliver since the last look. */
  #expect(watcher: Watcher): void {
    if (watcher.isTooOld) return;
    for (const { event, revision } of this.#recorded) {
      if (revision < watcher.nextRevision || !concerns(watcher, event)) continue;
      watcher.expected.push(this.#text(event, watcher.prevKv));
    }
    watcher.nextRevision = max(watcher.nextRevision, this.#recordedRevision + 1n);
  }

  #check(who: string, watcher: Watcher): void {
    const wrong = watcher.expected.findIndex((event, i) => event !== watcher.events[i]);
    if (wrong >= 0 || watcher.events.length > watcher.expected.length) {
      const at = wrong >= 0 ? wrong : watcher.expected.length;
      this.violations.push(
        `${who} delivered ${watcher.events[at]} where the store's events have ${watcher.expected[at]}`,
      );
    }
  }

  #record(message: WatchResponse): void {
    for (const event of message.events) {
      this.#recorded.push({ event, revision: event.kv?.modRevision ?? 0n });
    }
    const last = message.events.at(-1)?.kv?.modRevision;
    if (last !== undefined) this.#recordedRevision = last;
    if (message.canceled) this.violations.push(`the record was cancelled: ${message.cancelReason}`);
    this.#changed();
  }

  #text(event: Event, prevKv: boolean): string {
    return JSON.stringify(canonical(prevKv ? event : { ...event, prevKv: undefined }, this));
  }

  async #until(condition: () => boolean, state: () => string): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(
      () => late.reject(new Error(`${this.name}: events are missing: ${state()}`)),
      DELIVERY_DEADLINE_MS,
    );
    try {
      while (!condition()) {
        await Promise.race([late.promise, new Promise<void>((resolve) => this.#changed = resolve)]);
      }
    } finally {
      clearTimeout(timer);
      this.#changed = () => {};
    }
  }
}

function isTooOld(
  { startRevision = 0n }: MessageInitShape<typeof WatchCreateRequestSchema>,
  compacted: bigint,
): boolean {
  return startRevision !== 0n && startRevision < compacted;
}

function watcherOf({ create: asked, isTooOld }: Asked, revision: bigint): Watcher {
  const { key = new Uint8Array(0), rangeEnd = new Uint8Array(0), startRevision = 0n, filters = [] } = asked;
  const start = startRevision === 0n ? revision + 1n : startRevision;
  return {
    key: key.length === 0 ? Uint8Array.of(0) : key,
    rangeEnd,
    startRevision: start,
    prevKv: asked.prevKv ?? false,
    noPut: filters.includes(WatchCreateRequest_FilterType.NOPUT),
    noDelete: filters.includes(WatchCreateRequest_FilterType.NODELETE),
    fragment: asked.fragment ?? false,
    isTooOld,
    nextRevision: start,
    expected: [],
    events: [],
    canceled: "",
    lastRevision: 0n,
    isInFragments: false,
  };
}

function concerns(watcher: Watcher, event: Event): boolean {
  if (event.type === 0 ? watcher.noPut : watcher.noDelete) return false;
  const key = event.kv?.key ?? new Uint8Array(0);
  if (watcher.rangeEnd.length === 0) return compareBytes(key, watcher.key) === 0;
  if (compareBytes(key, watcher.key) < 0) return false;
  const isOpen = watcher.rangeEnd.length === 1 && watcher.rangeEnd[0] === 0;
  return isOpen || compareBytes(key, watcher.rangeEnd) < 0;
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
