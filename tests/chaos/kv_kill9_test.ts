/** Transactions, leases and compactions over gRPC, beside snapshots and changes of segments, against SIGKILL: on either
 *  embedded engine. */
import {
  Compare_CompareResult,
  Compare_CompareTarget,
  KV,
  Lease,
  Watch,
  type WatchResponse,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { type Event, Event_EventType, type KeyValue } from "$proto/mvccpb/kv_pb.ts";
import { assert, assertEquals } from "@std/assert";
import { createGrpcClient, type GrpcClient, type Outcome } from "../conformance/client.ts";
import { SimRandom } from "../sim/random.ts";
import { type Product, startProduct } from "../support/product.ts";

const SOAK = Deno.env.get("AETHERFLOW_SOAK") === "1";
/** Rounds of write, kill, restart, check of each engine: two seconds or so each. */
const ROUNDS = SOAK ? 300 : 6;
const CLIENTS = 6;
/** Answers after which the kill comes, at most. */
const ANSWERS_MAX = 500;
/** Keys of each client. */
const KEYS = 4;
/** Revisions that compactions leave. */
const KEPT = 60;
/** Times to live: one that lasts, one that ends within the test. In seconds. */
const LONG_SECONDS = 600;
const SHORT_SECONDS = 3;
/** What rounding and the way of an answer may take of a time to live, in seconds. */
const SLACK_SECONDS = 2;
/** When something that must happen counts as not happening, in ms. */
const GIVE_UP_MS = 20_000;

/** The least limits there are: some snapshots and segments in every round. */
const SMALL = ["kv.segmentBytes=65536", "kv.snapshotLogBytes=65536", "kv.lease.checkpointIntervalMs=1000"];

for (const engine of ["memory", "sqlite"]) {
  Deno.test(`SIGKILL under transactions, leases and compaction loses nothing acknowledged on ${engine}, ${ROUNDS} rounds`, async () => {
    const seed = Number(Deno.env.get("AETHERFLOW_SIM_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
    const data = await Deno.makeTempDir({ prefix: "aetherflow-kv-kill9-" });
    const args = [...SMALL, `kv.engine=${engine}`, "log.level=error"].flatMap((
      setting,
    ) => ["--set", setting]);
    const story = new Story(seed);
    try {
      for (let round = 0; round <= ROUNDS; round++) {
        const product = await startProduct({ data, args });
        using client = createGrpcClient(product.grpc);
        try {
          await story.check(client);
          if (round < ROUNDS) await story.write(client, product);
          else await story.checkEnded(client);
        } finally {
          product.kill("SIGKILL");
          await product.exited;
        }
      }
    } catch (cause) {
      throw new Error(
        `AETHERFLOW_SIM_SEED=${seed}, ${engine}: ${cause instanceof Error ? cause.message : cause}`,
        {
          cause,
        },
      );
    } finally {
      await Deno.remove(data, { recursive: true });
    }
  });
}

/** A key as its writer knows it; `mod` is 0 where the answer did not come. */
interface Held {
  readonly value: string;
  readonly mod: number;
  readonly lease: bigint;
}

/** What one client wrote: only it writes these keys and leases. */
interface Holdings {
  readonly keys: ReadonlyMap<string, Held>;
  /** Leases of LONG_SECONDS, with when they began to run or were last renewed for certain. */
  readonly leases: ReadonlyMap<bigint, number>;
}

interface Writer {
  readonly name: string;
  readonly number: number;
  /** As of the last answer. */
  known: Holdings;
  /** As `known` if the request under way, or cut off, is done. */
  maybe: Holdings | undefined;
  writes: number;
}

/** What was answered and seen, over all lives of the store. */
class Story {
  readonly #random: SimRandom;
  readonly #writers: Writer[];
  /** Changes of each revision as watchers saw them, and of each key as its writer was told. */
  readonly #seen = new Map<number, string>();
  readonly #told = new Map<number, string>();
  /** Keys on leases of SHORT_SECONDS, with when these were granted. */
  readonly #short = new Map<string, number>();
  #answers = 0;
  #isKilled = false;
  #revision = 1;
  /** Compaction that was answered, and the highest one asked for. */
  #compacted = 0;
  #compactAsked = 0;

  constructor(seed: number) {
    this.#random = new SimRandom(seed, "kill9");
    this.#writers = Array.from({ length: CLIENTS }, (_, number) => ({
      name: `w${number}/`,
      number,
      known: { keys: new Map(), leases: new Map() },
      maybe: undefined,
      writes: 0,
    }));
  }

  /** Writes from all sides until the kill, which comes after a random number of answers. */
  async write(client: GrpcClient, product: Product): Promise<void> {
    this.#isKilled = false;
    const watching = this.#watch(client, this.#revision + 1);
    const target = this.#answers + 20 + this.#random.below(ANSWERS_MAX);
    const sides = [
      ...this.#writers.map((writer) => this.#writeOn(client, writer)),
      this.#compactOn(client),
      this.#grantShort(client),
    ];
    await until(() => this.#answers >= target, () => `${this.#answers} of ${target} answers`, sides);
    this.#isKilled = true;
    product.kill("SIGKILL");
    await Promise.all([...sides, watching.ended]);
  }

  // ---- writing ----

  /** One request after the other until one is cut off. */
  async #writeOn(client: GrpcClient, writer: Writer): Promise<void> {
    while (await this.#writeOnce(client, writer)) this.#answers++;
  }

  #writeOnce(client: GrpcClient, writer: Writer): Promise<boolean> {
    const kind = this.#random.below(20);
    const { leases } = writer.known;
    if (kind < 6) return this.#txn(client, writer);
    if (kind < 8) return this.#delete(client, writer);
    if (kind < 10 && leases.size < 3) return this.#grant(client, writer);
    if (kind < 11 && leases.size > 0) return this.#renew(client, writer);
    if (kind < 12 && leases.size > 0) return this.#revoke(client, writer);
    return this.#put(client, writer);
  }

  async #put(client: GrpcClient, writer: Writer): Promise<boolean> {
    const key = this.#key(writer);
    const value = this.#value(writer);
    const { leases } = writer.known;
    const lease = leases.size > 0 && this.#random.chance(0.4) ? this.#random.pick([...leases.keys()]) : 0n;
    const to = (mod: number) => withKeys(writer.known, [[key, { value, mod, lease }]]);
    writer.maybe = to(0);
    const answer = await client.unary(KV.method.put, { key: bytes(key), value: bytes(value), lease });
    return this.#answered(writer, answer, (revision) => {
      this.#told.set(revision, `put ${key} ${value}`);
      return to(revision);
    });
  }

  /** Writes two keys if the first is still what it was, which it is. */
  async #txn(client: GrpcClient, writer: Writer): Promise<boolean> {
    const first = this.#key(writer);
    const keys = [first, `${writer.name}pair`];
    const value = this.#value(writer);
    const mod = writer.known.keys.get(first)?.mod ?? 0;
    const to = (mod: number) => withKeys(writer.known, keys.map((key) => [key, { value, mod, lease: 0n }]));
    writer.maybe = to(0);
    const putOf = (key: string, value: string) => ({
      request: { case: "requestPut" as const, value: { key: bytes(key), value: bytes(value) } },
    });
    const answer = await client.unary(KV.method.txn, {
      compare: [{
        key: bytes(first),
        target: Compare_CompareTarget.MOD,
        result: Compare_CompareResult.EQUAL,
        targetUnion: { case: "modRevision", value: BigInt(mod) },
      }],
      success: keys.map((key) => putOf(key, value)),
      failure: [putOf(first, "the key is not as it was")],
    });
    return this.#answered(writer, answer, (revision) => {
      assert(answer.ok && answer.message.succeeded, `${first} was not at revision ${mod}`);
      this.#told.set(revision, keys.map((key) => `put ${key} ${value}`).join());
      return to(revision);
    });
  }

  async #delete(client: GrpcClient, writer: Writer): Promise<boolean> {
    const key = this.#key(writer);
    const isThere = writer.known.keys.has(key);
    const gone = withKeys(writer.known, [[key, undefined]]);
    writer.maybe = gone;
    const answer = await client.unary(KV.method.deleteRange, { key: bytes(key) });
    return this.#answered(writer, answer, (revision) => {
      assertEquals(answer.ok && answer.message.deleted, isThere ? 1n : 0n, `deleted ${key}`);
      if (isThere) this.#told.set(revision, `delete ${key}`);
      return gone;
    });
  }

  async #grant(client: GrpcClient, writer: Writer): Promise<boolean> {
    const id = BigInt(++writer.writes * CLIENTS + writer.number + 1);
    const sinceMs = performance.now();
    const granted = withLease(writer.known, id, sinceMs);
    writer.maybe = granted;
    const answer = await client.unary(Lease.method.leaseGrant, { ID: id, TTL: BigInt(LONG_SECONDS) });
    return this.#answered(writer, answer, () => granted);
  }

  async #renew(client: GrpcClient, writer: Writer): Promise<boolean> {
    const [id] = this.#random.pick([...writer.known.leases]);
    const sinceMs = performance.now();
    const stream = client.bidi(Lease.method.leaseKeepAlive);
    const answer = Promise.withResolvers<bigint>();
    stream.onMessage = ({ TTL }) => answer.resolve(TTL);
    stream.send({ ID: id });
    const ttl = await Promise.race([answer.promise, stream.ended.then(() => undefined)]);
    stream.cancel();
    if (ttl === undefined) return false;
    assertEquals(ttl, BigInt(LONG_SECONDS), `renewed ${id}`);
    writer.known = withLease(writer.known, id, sinceMs);
    return true;
  }

  async #revoke(client: GrpcClient, writer: Writer): Promise<boolean> {
    const [id] = this.#random.pick([...writer.known.leases]);
    const keys = [...writer.known.keys].filter(([, { lease }]) => lease === id);
    const gone = withKeys(withLease(writer.known, id, undefined), keys.map(([key]) => [key, undefined]));
    writer.maybe = gone;
    const answer = await client.unary(Lease.method.leaseRevoke, { ID: id });
    return this.#answered(writer, answer, () => gone);
  }

  /** Whether the answer came; what it says is known from then on. */
  #answered(
    writer: Writer,
    answer: Outcome<{ readonly header?: { readonly revision: bigint } | undefined }>,
    outcome: (revision: number) => Holdings,
  ): boolean {
    if (!this.#came(answer)) return false;
    const revision = Number(answer.message.header!.revision);
    this.#revision = Math.max(this.#revision, revision);
    writer.known = outcome(revision);
    writer.maybe = undefined;
    return true;
  }

  /** Whether there is an answer. Only the kill may be why there is none. */
  #came<T>(answer: Outcome<T>): answer is Outcome<T> & { readonly ok: true } {
    if (!answer.ok) assert(this.#isKilled, answer.ok ? "" : `refused with ${answer.code}: ${answer.text}`);
    return answer.ok;
  }

  async #compactOn(client: GrpcClient): Promise<void> {
    for (let next = this.#answers + 40;; next += 40 + this.#random.below(80)) {
      await until(() => this.#answers >= next || this.#isKilled, () => "no answers");
      if (this.#isKilled) return;
      const revision = this.#revision - KEPT;
      if (revision <= this.#compactAsked) continue;
      this.#compactAsked = revision;
      const physical = this.#random.chance(0.5);
      const answer = await client.unary(KV.method.compact, { revision: BigInt(revision), physical });
      if (!this.#came(answer)) return;
      this.#compacted = revision;
    }
  }

  async #grantShort(client: GrpcClient): Promise<void> {
    const sinceMs = performance.now();
    const granted = await client.unary(Lease.method.leaseGrant, { TTL: BigInt(SHORT_SECONDS) });
    if (!this.#came(granted)) return;
    const key = `short/${granted.message.ID}`;
    const lease = granted.message.ID;
    if (
      this.#came(await client.unary(KV.method.put, { key: bytes(key), value: bytes("soon gone"), lease }))
    ) {
      this.#short.set(key, sinceMs);
    }
  }

  #key({ name }: Writer): string {
    return `${name}${this.#random.below(KEYS)}`;
  }

  #value(writer: Writer): string {
    return `${++writer.writes}:`.padEnd(this.#random.pick([10, 10, 200, 4_000, 12_000]), "x");
  }

  // ---- watching ----

  /** Notes every change from a revision on. */
  #watch(client: GrpcClient, from: number) {
    const stream = client.bidi(Watch.method.watch);
    stream.onMessage = (answer: WatchResponse) => {
      assert(!answer.canceled, answer.cancelReason);
      const revisions = Map.groupBy(answer.events, ({ kv }) => Number(kv!.modRevision));
      for (const [revision, events] of revisions) this.#saw(revision, events);
    };
    const range = { key: bytes("\0"), rangeEnd: bytes("\0"), startRevision: BigInt(from) };
    stream.send({ requestUnion: { case: "createRequest", value: range } });
    return stream;
  }

  /** A revision is the same whenever it is seen. */
  #saw(revision: number, events: readonly Event[]): void {
    const content = events.map(({ type, kv }) =>
      type === Event_EventType.DELETE ? `delete ${text(kv!.key)}` : `put ${text(kv!.key)} ${text(kv!.value)}`
    ).join();
    for (const before of [this.#seen.get(revision), this.#told.get(revision)]) {
      if (before !== undefined) assertEquals(content, before, `revision ${revision} seen again`);
    }
    this.#seen.set(revision, content);
  }

  // ---- checking ----

  /** Whether everything is there, after a restart. */
  async check(client: GrpcClient): Promise<void> {
    const kvs = await this.#checkKeys(client);
    await this.#checkLeases(client, kvs);
    await this.#checkHistory(client);
    for (const [key, sinceMs] of this.#short) {
      if (performance.now() - sinceMs > SHORT_SECONDS * 1_000) continue;
      assert(kvs.some((kv) => text(kv.key) === key), `${key} went before its time`);
    }
  }

  async #checkKeys(client: GrpcClient): Promise<readonly KeyValue[]> {
    const found = await client.unary(KV.method.range, { key: bytes("\0"), rangeEnd: bytes("\0") });
    assert(found.ok);
    const { kvs, header } = found.message;
    const revision = Number(header!.revision);
    assert(revision >= this.#revision, `revision ${revision}, but ${this.#revision} was told`);
    this.#revision = revision;
    for (const writer of this.#writers) {
      const mine = kvs.filter(({ key }) => text(key).startsWith(writer.name));
      const { known, maybe } = writer;
      const is = maybe !== undefined && !isHeld(known, mine) && isHeld(maybe, mine) ? maybe : known;
      assert(
        isHeld(is, mine),
        `${writer.name}: ${describe(mine)} is neither what was told nor what was asked`,
      );
      const keys = mine.map(({ key, value, modRevision, lease }): [string, Held] => [
        text(key),
        { value: text(value), mod: Number(modRevision), lease },
      ]);
      writer.known = { keys: new Map(keys), leases: is.leases };
      // Which leases there are tells about a request that was on leases alone.
      writer.maybe = maybe === undefined ? undefined : { keys: new Map(keys), leases: maybe.leases };
    }
    return kvs;
  }

  async #checkLeases(client: GrpcClient, kvs: readonly KeyValue[]): Promise<void> {
    const listed = await client.unary(Lease.method.leaseLeases, {});
    assert(listed.ok);
    const ids = new Set(listed.message.leases.map(({ ID }) => ID));
    for (const { key, lease } of kvs) {
      assert(lease === 0n || ids.has(lease), `${text(key)} is on no lease ${lease}`);
    }
    for (const writer of this.#writers) {
      const { known, maybe } = writer;
      writer.maybe = undefined;
      for (const id of new Set([...known.leases.keys(), ...maybe?.leases.keys() ?? []])) {
        const isSure = maybe === undefined || known.leases.has(id) === maybe.leases.has(id);
        if (isSure) assertEquals(ids.has(id), known.leases.has(id), `lease ${id} is there`);
        const sinceMs = known.leases.get(id) ?? maybe?.leases.get(id) ?? 0;
        writer.known = withLease(writer.known, id, ids.has(id) ? sinceMs : undefined);
        if (!ids.has(id)) continue;
        const answer = await client.unary(Lease.method.leaseTimeToLive, { ID: id, keys: true });
        assert(answer.ok);
        const { grantedTTL, TTL, keys } = answer.message;
        const least = LONG_SECONDS - (performance.now() - sinceMs) / 1_000 - SLACK_SECONDS;
        assert(
          TTL <= grantedTTL && Number(TTL) >= least,
          `lease ${id} has ${TTL} s, expected at least ${least}`,
        );
        const attached = kvs.filter(({ lease }) => lease === id).map(({ key }) => text(key));
        assertEquals([grantedTTL, keys.map(text).sort()], [BigInt(LONG_SECONDS), attached.sort()]);
      }
    }
  }

  /** Every revision that is kept is what it was; what was compacted stays so. */
  async #checkHistory(client: GrpcClient): Promise<void> {
    if (this.#compacted > 1) {
      const old = await client.unary(KV.method.range, {
        key: bytes("a"),
        revision: BigInt(this.#compacted - 1),
      });
      assertEquals(
        old.ok ? "it can be read" : old.text,
        "etcdserver: mvcc: required revision has been compacted",
      );
    }
    const last = this.#revision;
    const first = Math.max(this.#compactAsked + 1, 2);
    if (last < first) return;
    for (const revision of this.#seen.keys()) {
      if (revision >= first) this.#told.set(revision, this.#seen.get(revision)!);
    }
    this.#seen.clear();
    const watch = this.#watch(client, first);
    await until(() => this.#seen.has(last), () => `revision ${last} of ${[...this.#seen.keys()]}`, [
      watch.ended,
    ]);
    watch.cancel();
    for (let revision = first; revision <= last; revision++) {
      assert(this.#seen.has(revision), `revision ${revision} is missing`);
    }
  }

  /** Short leases end after all, and take their keys along. */
  async checkEnded(client: GrpcClient): Promise<void> {
    const range = { key: bytes("short/"), rangeEnd: bytes("short0"), countOnly: true };
    let left: Outcome<{ readonly count: bigint }>;
    do left = await client.unary(KV.method.range, range); while (left.ok && left.message.count > 0n);
    assert(left.ok, "the store is gone");
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function bytes(value: string): Uint8Array {
  return encoder.encode(value);
}

function text(value: Uint8Array): string {
  return decoder.decode(value);
}

function withKeys(holdings: Holdings, changes: readonly [string, Held | undefined][]): Holdings {
  const keys = new Map(holdings.keys);
  for (const [key, held] of changes) {
    if (held === undefined) keys.delete(key);
    else keys.set(key, held);
  }
  return { ...holdings, keys };
}

function withLease(holdings: Holdings, id: bigint, sinceMs: number | undefined): Holdings {
  const leases = new Map(holdings.leases);
  if (sinceMs === undefined) leases.delete(id);
  else leases.set(id, sinceMs);
  return { ...holdings, leases };
}

/** Whether the keys are the writer's; the revision of one whose answer did not come may be any. */
function isHeld({ keys }: Holdings, kvs: readonly KeyValue[]): boolean {
  return kvs.length === keys.size && kvs.every(({ key, value, modRevision, lease }) => {
    const held = keys.get(text(key));
    return held !== undefined && held.value === text(value) && held.lease === lease &&
      (held.mod === 0 || held.mod === Number(modRevision));
  });
}

function describe(kvs: readonly KeyValue[]): string {
  return kvs.map(({ key, value, modRevision }) => `${text(key)}=${text(value).slice(0, 20)}@${modRevision}`)
    .join();
}

/** Waits for the condition; what fails or ends meanwhile ends the wait. */
async function until(
  condition: () => boolean,
  state: () => string,
  sides: readonly Promise<unknown>[] = [],
): Promise<void> {
  const deadline = performance.now() + GIVE_UP_MS;
  let failure: { readonly error: unknown } | undefined;
  for (const side of sides) side.catch((error) => failure = { error });
  while (!condition()) {
    if (failure !== undefined) throw failure.error;
    assert(performance.now() < deadline, `not so within ${GIVE_UP_MS} ms: ${state()}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
