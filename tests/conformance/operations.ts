/** Draws operations of etcd's API from a seed: few keys and ids, so that things collide, and many edges. */
import { Permission_Type } from "$proto/authpb/auth_pb.ts";
import {
  AlarmRequest_AlarmAction,
  AlarmType,
  Auth,
  Cluster,
  Compare_CompareResult,
  Compare_CompareTarget,
  type CompareSchema,
  KV,
  Lease,
  Maintenance,
  RangeRequest_SortOrder,
  RangeRequest_SortTarget,
  type RangeRequestSchema,
  type RequestOpSchema,
  type TxnRequestSchema,
  WatchCreateRequest_FilterType,
  type WatchCreateRequestSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { Lock } from "$proto/v3lockpb/v3lock_pb.ts";
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import type { SimRandom } from "../sim/random.ts";
import { isCheckedByLaterEtcds, isCountedOtherwise, overlookedByEtcd } from "./differences.ts";
import type { Outcome } from "./client.ts";

/** A message as both servers get it, but for what stands for something each server chose; see `AUTO_LEASES`. */
export interface Call {
  readonly kind: "call";
  readonly method: DescMethodUnary;
  readonly request: MessageShape<DescMessage>;
  /** Whose token goes along: one of USERS, "" for none, "?" for one that no server gave. */
  readonly user: string;
}

/** What happens to the streams of watches. Every one is followed by a progress request, whose answer shows that what was
 *  asked before it has been dealt with. */
export type WatchOperation =
  | { readonly kind: "watchOpen"; readonly stream: number; readonly user: string }
  | {
    readonly kind: "watchCreate";
    readonly stream: number;
    readonly create: MessageInitShape<typeof WatchCreateRequestSchema>;
  }
  | { readonly kind: "watchCancel"; readonly stream: number; readonly watchId: bigint }
  | { readonly kind: "watchProgress"; readonly stream: number }
  | { readonly kind: "watchClose"; readonly stream: number };

/** One step of a run. `keepAlive` is one request on a stream of its own. */
export type Operation =
  | Call
  | WatchOperation
  | { readonly kind: "keepAlive"; readonly id: bigint; readonly user: string };

/** Lease ids from here on stand for the n-th one that the server itself chose: they differ between servers. */
export const AUTO_LEASES = 7_000_000_000_000n;
/** How many such ids there may be in a run. */
export const AUTO_LEASES_MAX = 1_000_000n;

/** Users of the runs; `root` has the role `root` while authentication is on. */
export const USERS = ["root", "ann", "bob"] as const;
const ROLES = ["root", "reader", "writer"] as const;
/** Streams of watches that may be open at a time. */
export const WATCH_STREAMS = 4;
/** Watches of one stream are created until this many are known; enough for ids to collide. */
const WATCHES_PER_STREAM = 12;
/** Operations between the start and the end of a time with authentication. */
const AUTH_PHASE = 60;
const CHOSEN_LEASES = [1n, 2n, 3n, 4n, 5n, 6n, -3n, 9_223_372_036_854_775_807n];
/** Longer than any run, so that none expires: expiry has a scenario of its own. */
const LEASE_TTLS = [10_000n, 20_000n, 100_000n, 9_000_000_000n];

/** Draws operations; `observe` tells it what came of them, so that it can aim at edges. */
export class OperationSource {
  readonly #random: SimRandom;
  /** Newest revision known. */
  revision = 1n;
  /** What history was compacted at; -1 is never. */
  compacted = -1n;
  /** Leases whose ids the servers chose so far. */
  autoLeases = 0;
  readonly #streams = new Map<number, { watches: bigint[]; user: string }>();
  /** Operations that come next whatever chance says. */
  readonly #planned: Operation[] = [];
  /** Keys of watchers that start in the past and may not have caught up: a put of the key shows when they have. */
  readonly #catchingUp = new Set<string>();
  #isAuthEnabled = false;
  /** Users who ever got a token. */
  readonly #hasToken = new Set<string>();
  /** Operations left of a time with authentication; 0 outside. */
  #authPhase = 0;

  /** Without `serverChosenLeases` all data is the same on both sides, so that checksums can be compared. */
  constructor(random: SimRandom, readonly serverChosenLeases: boolean) {
    this.#random = random;
  }

  /** The next operation. */
  next(): Operation {
    const operation = this.#next();
    // Tokens from before mean nothing while authentication is off, but 3.4 looks at them.
    return "user" in operation && !this.#isAuthEnabled ? { ...operation, user: "" } : operation;
  }

  #next(): Operation {
    for (let planned; (planned = this.#planned.shift()) !== undefined;) {
      // Whether a watcher is overtaken by a compaction while it catches up would be chance.
      const isCompact = planned.kind === "call" && planned.method === KV.method.compact;
      if (!isCompact || this.#catchingUp.size === 0) return planned;
    }
    if (this.#authPhase > 0 && --this.#authPhase === 0) return this.#endAuth();
    return this.#draw();
  }

  /** What came of an operation at the reference. */
  observe(operation: Operation, outcome: Outcome<unknown>): void {
    if (!outcome.ok) return;
    const message = outcome.message as { header?: { revision: bigint }; ID?: bigint } | undefined;
    const revision = message?.header?.revision;
    if (revision !== undefined && revision > this.revision) this.revision = revision;
    if (operation.kind !== "call") return;
    const request = operation.request as unknown as {
      revision: bigint;
      ID: bigint;
      key: Uint8Array;
      name: string;
    };
    if (operation.method === KV.method.put) this.#catchingUp.delete(String(request.key));
    if (operation.method === KV.method.compact) this.compacted = request.revision;
    if (operation.method === Auth.method.authenticate) this.#hasToken.add(request.name);
    if (operation.method === Auth.method.authEnable) this.#isAuthEnabled = true;
    if (operation.method === Auth.method.authDisable) this.#isAuthEnabled = false;
    if (operation.method === Lease.method.leaseGrant && request.ID === 0n) this.autoLeases++;
  }

  /** One that neither begins something longer nor is treated in another way under an alarm. */
  #drawPlain(): Operation {
    const random = this.#random;
    while (true) {
      const operation = random.pick([
        () => this.#call(KV.method.range, this.#range()),
        () => this.#call(KV.method.deleteRange, this.#delete()),
        () => this.#txn(),
        () => this.#call(Lease.method.leaseGrant, { ID: this.#lease(), TTL: 10_000n }),
        () => this.#call(Lease.method.leaseRevoke, { ID: this.#lease() }),
        () => this.#call(Lease.method.leaseTimeToLive, { ID: this.#lease(), keys: true }),
        () => this.#call(KV.method.compact, { revision: max(1n, this.compacted) }),
        () => this.#call(Auth.method.roleAdd, { name: "other" }),
      ])();
      if (operation.kind !== "call" || !isCountedOtherwise(operation)) return operation;
    }
  }

  #draw(): Operation {
    const random = this.#random;
    const table: [weight: number, draw: () => Operation][] = [
      [24, () => this.#call(KV.method.range, this.#range())],
      [22, () => this.#call(KV.method.put, this.#put())],
      [7, () => this.#call(KV.method.deleteRange, this.#delete())],
      [22, () => this.#txn()],
      [1.2, () => this.#compact()],
      [4, () => this.#leaseGrant()],
      [2, () => this.#call(Lease.method.leaseRevoke, { ID: this.#lease() })],
      [3, () => this.#call(Lease.method.leaseTimeToLive, { ID: this.#lease(), keys: random.chance(0.7) })],
      [1, () => this.#call(Lease.method.leaseLeases, {})],
      // 3.4 lets anybody renew a lease, which shows in the times left.
      [2, () => ({ kind: "keepAlive", id: this.#lease(), user: this.#authPhase > 0 ? "root" : "" })],
      [7, () => this.#watch()],
      // Under an alarm 3.4 forgets to ask for rights.
      [this.#authPhase > 0 ? 0 : 0.3, () => this.#alarm()],
      [0.5, () => this.#maintenance()],
      [0.5, () => this.#lock()],
      [this.#authPhase > 0 ? 20 : 1, () => this.#auth()],
      [this.#authPhase > 0 ? 0 : 0.12, () => this.#beginAuth()],
    ];
    let left = random.float() * table.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, draw] of table) if ((left -= weight) < 0) return draw();
    return this.#call(KV.method.range, this.#range());
  }

  #call<I extends DescMessage>(
    method: DescMethodUnary<I>,
    request: MessageInitShape<I>,
    user = this.#user(),
  ): Call {
    const call: Call = {
      kind: "call",
      method: method as unknown as DescMethodUnary,
      request: create(method.input, request) as MessageShape<DescMessage>,
      user,
    };
    if (this.#authPhase === 0) return call;
    // Anybody, even nobody, may revoke a lease without keys there.
    if (call.method === Lease.method.leaseRevoke && user !== "?" && !this.#hasToken.has(user)) {
      return { ...call, user: "root" };
    }
    return isCheckedByLaterEtcds(call) ? { ...call, user: "root" } : call;
  }

  // ---- keys and numbers ----

  #key(): Uint8Array {
    const random = this.#random;
    if (random.chance(0.04)) {
      return bytes(random.pick(["", "\0", "\xff", "\xff\xff", "a\0", "a\xff", "\0\0"]));
    }
    let key = random.pick(["a", "b", "c", "d"]);
    while (key.length < 3 && random.chance(0.45)) key += random.pick(["a", "b", "\0", "\xff"]);
    return bytes(key);
  }

  /** Empty, the end of a prefix, everything above, another key: also before `key`, or `key` itself. */
  #rangeEnd(key: Uint8Array): Uint8Array {
    const end = this.#anyRangeEnd(key);
    const isOpen = end.length === 0 || (end.length === 1 && end[0] === 0);
    return this.#authPhase > 0 && !isOpen && compareBytes(end, key) <= 0 ? prefixEnd(key) : end;
  }

  #anyRangeEnd(key: Uint8Array): Uint8Array {
    const random = this.#random;
    switch (random.below(8)) {
      case 0:
      case 1:
      case 2:
        return bytes("");
      case 3:
      case 4:
        return prefixEnd(key);
      case 5:
        return bytes("\0");
      case 6:
        return random.chance(0.2) ? key : bytes("z");
      default:
        return this.#key();
    }
  }

  #revision(): bigint {
    const random = this.#random;
    switch (random.below(9)) {
      case 0:
      case 1:
      case 2:
        return this.revision - BigInt(random.below(10));
      case 3:
        return this.compacted + BigInt(random.below(3)) - 1n;
      case 4:
        return this.revision + BigInt(random.below(3));
      case 5:
        return random.pick([1n, 2n, -1n, -5n, 1n << 62n]);
      default:
        return this.compacted + BigInt(random.below(Number(this.revision - this.compacted) + 1));
    }
  }

  #value(): Uint8Array {
    const random = this.#random;
    if (random.chance(0.02)) return random.fill(new Uint8Array(random.below(2_000)));
    return bytes(random.pick(["", "0", "1", "v", "value", "w\0x", "\xff"]));
  }

  #lease(): bigint {
    const random = this.#random;
    if (this.autoLeases > 0 && random.chance(0.3)) {
      return AUTO_LEASES + BigInt(random.below(this.autoLeases));
    }
    if (random.chance(0.03)) return 0n;
    return random.pick(CHOSEN_LEASES);
  }

  #user(): string {
    if (this.#authPhase === 0) return "";
    return this.#random.pick(["root", "root", "ann", "ann", "ann", "bob", "bob", "", "?"]);
  }

  #oneOf<T>(probability: number, draw: () => T, otherwise: T): T {
    return this.#random.chance(probability) ? draw() : otherwise;
  }

  // ---- KV ----

  #range(): MessageInitShape<typeof RangeRequestSchema> {
    const random = this.#random;
    const key = this.#key();
    const bound = () => this.#oneOf(0.06, () => this.#revision(), 0n);
    return {
      key,
      rangeEnd: this.#rangeEnd(key),
      limit: this.#oneOf(0.3, () => BigInt(random.pick([1, 1, 2, 3, 5, 100, -1])), 0n),
      revision: this.#oneOf(0.25, () => this.#revision(), 0n),
      sortOrder: this.#oneOf(
        0.3,
        () =>
          random.pick([
            RangeRequest_SortOrder.ASCEND,
            RangeRequest_SortOrder.DESCEND,
            RangeRequest_SortOrder.NONE,
          ]),
        RangeRequest_SortOrder.NONE,
      ),
      sortTarget: this.#oneOf(
        0.3,
        () => random.below(5) as RangeRequest_SortTarget,
        RangeRequest_SortTarget.KEY,
      ),
      serializable: random.chance(0.1),
      keysOnly: random.chance(0.1),
      countOnly: random.chance(0.1),
      minModRevision: bound(),
      maxModRevision: bound(),
      minCreateRevision: bound(),
      maxCreateRevision: bound(),
    };
  }

  #put() {
    const random = this.#random;
    return {
      key: this.#key(),
      value: this.#value(),
      lease: this.#oneOf(0.25, () => this.#lease(), 0n),
      prevKv: random.chance(0.3),
      ignoreValue: random.chance(0.06),
      ignoreLease: random.chance(0.06),
    };
  }

  #delete() {
    const key = this.#key();
    return { key, rangeEnd: this.#rangeEnd(key), prevKv: this.#random.chance(0.4) };
  }

  #compare(): MessageInitShape<typeof CompareSchema> {
    const random = this.#random;
    const key = this.#key();
    const target = random.below(5) as Compare_CompareTarget;
    const lease = this.#oneOf(0.6, () => this.#lease(), 0n);
    // Which of two ids that servers chose is greater is chance.
    const isOrdered = target !== Compare_CompareTarget.LEASE || lease < AUTO_LEASES || lease > 1n << 62n;
    const result = isOrdered
      ? random.below(4) as Compare_CompareResult
      : random.pick([Compare_CompareResult.EQUAL, Compare_CompareResult.NOT_EQUAL]);
    const revision = () => random.chance(0.4) ? 0n : this.revision - BigInt(random.below(20));
    const values: Record<number, MessageInitShape<typeof CompareSchema>["targetUnion"]> = {
      [Compare_CompareTarget.VERSION]: { case: "version", value: BigInt(random.below(4)) },
      [Compare_CompareTarget.CREATE]: { case: "createRevision", value: revision() },
      [Compare_CompareTarget.MOD]: { case: "modRevision", value: revision() },
      [Compare_CompareTarget.VALUE]: { case: "value", value: this.#value() },
      [Compare_CompareTarget.LEASE]: { case: "lease", value: lease },
    };
    return {
      key,
      rangeEnd: this.#oneOf(0.25, () => this.#rangeEnd(key), bytes("")),
      target,
      result,
      // Now and then nothing to compare with, or the value of another target.
      targetUnion: random.chance(0.03) ? { case: undefined } : values[random.chance(0.02) ? 0 : target] ??
        { case: undefined },
    };
  }

  #op(depth: number): MessageInitShape<typeof RequestOpSchema> {
    const random = this.#random;
    const range = () => {
      const value = this.#range();
      return { ...value, revision: max(value.revision ?? 0n, 0n) };
    };
    const kind = random.float();
    if (random.chance(0.004)) return { request: { case: undefined } };
    if (kind < 0.3) return { request: { case: "requestRange", value: range() } };
    if (kind < 0.7 || depth >= 3) return { request: { case: "requestPut", value: this.#put() } };
    if (kind < 0.85) return { request: { case: "requestDeleteRange", value: this.#delete() } };
    return { request: { case: "requestTxn", value: this.#txnRequest(depth + 1) } };
  }

  #txnRequest(depth: number): MessageInitShape<typeof TxnRequestSchema> {
    const random = this.#random;
    const list = <T>(draw: () => T, most: number): T[] =>
      Array.from({ length: random.below(most + 1) }, draw);
    // Around the bound of 128 operations, which nested transactions share.
    const large = random.chance(depth === 1 ? 0.01 : 0.02);
    const many = () =>
      Array.from({ length: random.pick([100, 127, 128, 129]) }, () => ({
        request: { case: "requestRange" as const, value: { key: this.#key(), countOnly: true } },
      }));
    return {
      compare: list(() => this.#compare(), 2),
      success: [...(large ? many() : []), ...list(() => this.#op(depth), 3)],
      failure: list(() => this.#op(depth), 3),
    };
  }

  #txn(): Operation {
    while (true) {
      const call = this.#call(KV.method.txn, this.#txnRequest(1));
      if (!overlookedByEtcd(call.request as MessageShape<typeof TxnRequestSchema>)) return call;
    }
  }

  #compact(): Operation {
    const random = this.#random;
    const revision = random.chance(0.6)
      ? this.compacted + BigInt(1 + random.below(Math.max(1, Number(this.revision - this.compacted) - 20)))
      : this.#revision();
    const compact = this.#call(KV.method.compact, {
      revision: revision === 0n ? 1n : revision,
      physical: random.chance(0.2),
    });
    const puts = [...this.#catchingUp].map((key) =>
      this.#call(KV.method.put, { key: Uint8Array.from(key.split(","), Number), value: bytes("caught up") })
    );
    const [first = compact, ...others] = [...puts, compact];
    this.#planned.push(...others);
    return first;
  }

  // ---- leases ----

  #leaseGrant(): Operation {
    const random = this.#random;
    if (random.chance(0.06)) {
      const TTL = random.pick([9_000_000_001n, 1n << 62n]);
      return this.#call(Lease.method.leaseGrant, { ID: this.#lease(), TTL });
    }
    if (random.chance(0.04)) {
      // Raised to the shortest that etcd grants, 2 s: revoked at once, or a run would depend on the clock.
      const ID = 77n;
      this.#planned.push(this.#call(Lease.method.leaseRevoke, { ID }, "root"));
      return this.#call(Lease.method.leaseGrant, { ID, TTL: random.pick([0n, -1n, 1n, 2n]) });
    }
    const ID = this.serverChosenLeases && random.chance(0.2) ? 0n : random.pick(CHOSEN_LEASES);
    return this.#call(Lease.method.leaseGrant, { ID, TTL: random.pick(LEASE_TTLS) });
  }

  // ---- watches ----

  #watch(): Operation {
    const random = this.#random;
    const stream = random.below(WATCH_STREAMS);
    const open = this.#streams.get(stream);
    if (open === undefined) {
      const user = this.#user();
      this.#streams.set(stream, { watches: [], user });
      return { kind: "watchOpen", stream, user };
    }
    if (random.chance(0.05)) {
      this.#streams.delete(stream);
      return { kind: "watchClose", stream };
    }
    if (random.chance(0.15)) return { kind: "watchProgress", stream };
    if (open.watches.length >= WATCHES_PER_STREAM || random.chance(0.15)) {
      const watchId = random.chance(0.9) && open.watches.length > 0
        ? open.watches.splice(random.below(open.watches.length), 1)[0] ?? 0n
        : BigInt(random.below(20));
      return { kind: "watchCancel", stream, watchId };
    }
    const watchId = random.chance(0.6) ? 0n : BigInt(random.below(8));
    open.watches.push(BigInt(open.watches.length));
    const key = this.#key();
    // Each one that starts in the past waits for etcd's next look at such watches, every 100 ms.
    const past = this.#revision();
    const start = past === this.compacted ? past + 1n : max(past, 0n);
    const startRevision = this.#oneOf(0.2, () => start, 0n);
    if (startRevision !== 0n) this.#catchingUp.add(String(key.length === 0 ? bytes("\0") : key));
    const filters = [
      WatchCreateRequest_FilterType.NODELETE,
      ...(startRevision === 0n ? [WatchCreateRequest_FilterType.NOPUT] : []),
    ];
    return {
      kind: "watchCreate",
      stream,
      create: {
        key,
        rangeEnd: this.#rangeEnd(key),
        startRevision,
        progressNotify: random.chance(0.2),
        filters: filters.filter(() => random.chance(0.15)),
        prevKv: random.chance(0.4),
        watchId,
        fragment: random.chance(0.2),
      },
    };
  }

  // ---- maintenance, cluster, locks ----

  #alarm(): Operation {
    const random = this.#random;
    const alarm = random.pick([AlarmType.NOSPACE, AlarmType.NOSPACE, AlarmType.CORRUPT]);
    if (random.chance(0.4)) {
      const alarm = random.below(3) as AlarmType;
      return this.#call(Maintenance.method.alarm, { action: AlarmRequest_AlarmAction.GET, alarm });
    }
    // Raised for a few operations: under an alarm little happens.
    for (let i = random.below(6); i >= 0; i--) {
      let operation = this.#call(KV.method.put, this.#put()) as Operation;
      if (random.chance(0.7)) operation = this.#drawPlain();
      this.#planned.push(operation);
    }
    const end = { action: AlarmRequest_AlarmAction.DEACTIVATE, alarm: AlarmType.NONE };
    for (const alarm of [AlarmType.NOSPACE, AlarmType.CORRUPT]) {
      this.#planned.push(this.#call(Maintenance.method.alarm, { ...end, alarm }));
    }
    return this.#call(Maintenance.method.alarm, { action: AlarmRequest_AlarmAction.ACTIVATE, alarm });
  }

  #maintenance(): Operation {
    const random = this.#random;
    switch (random.below(8)) {
      case 0:
      case 1:
        return this.#call(Maintenance.method.status, {});
      case 2:
      case 3:
        return this.#call(Maintenance.method.hashKV, {
          revision: this.#oneOf(0.7, () => this.#revision(), 0n),
        });
      case 4:
        return this.#call(Maintenance.method.moveLeader, { targetID: BigInt(random.below(3)) });
      case 5:
        return this.#call(Cluster.method.memberPromote, { ID: 99n });
      case 6:
        return this.#call(Cluster.method.memberUpdate, { ID: 99n, peerURLs: ["http://127.0.0.1:1"] });
      default:
        return this.#call(Cluster.method.memberList, {});
    }
  }

  #lock(): Operation {
    const name = bytes(`lock-${this.#random.pick(["a", "b"])}`);
    // Only what answers at once: a lock of an unknown lease, and unlocking of what may not be there.
    return this.#random.chance(0.5)
      ? this.#call(Lock.method.lock, { name, lease: 1_234_567n })
      : this.#call(Lock.method.unlock, { key: this.#random.chance(0.5) ? this.#key() : name });
  }

  // ---- auth ----

  #beginAuth(): Operation {
    this.#authPhase = AUTH_PHASE;
    const user = "";
    const add = (name: string) =>
      this.#call(Auth.method.userAdd, { name, password: `${name}-password` }, user);
    const authenticate = (name: string) =>
      this.#call(Auth.method.authenticate, { name, password: `${name}-password` }, user);
    const read = (role: string, key: string, rangeEnd: string, permType: Permission_Type) =>
      this.#call(Auth.method.roleGrantPermission, {
        name: role,
        perm: { permType, key: bytes(key), rangeEnd: bytes(rangeEnd) },
      }, user);
    this.#planned.push(
      ...USERS.map(add),
      ...ROLES.map((name) => this.#call(Auth.method.roleAdd, { name }, user)),
      this.#call(Auth.method.userGrantRole, { user: "root", role: "root" }, user),
      this.#call(Auth.method.userGrantRole, { user: "ann", role: "writer" }, user),
      this.#call(Auth.method.userGrantRole, { user: "bob", role: "reader" }, user),
      read("writer", "a", "c", Permission_Type.READWRITE),
      read("reader", "b", "\0", Permission_Type.READ),
      this.#call(Auth.method.userChangePassword, { name: "root", password: "root-password" }, user),
      this.#call(Auth.method.authEnable, {}, user),
      ...USERS.map(authenticate),
    );
    return this.#call(Auth.method.authDisable, {}, user);
  }

  #endAuth(): Operation {
    const deletes = [
      ...USERS.map((name) => this.#call(Auth.method.userDelete, { name }, "")),
      ...ROLES.map((role) => this.#call(Auth.method.roleDelete, { role }, "")),
    ].filter(() => this.#random.chance(0.5));
    // Streams keep the token they were opened with, which means nothing afterwards, but 3.4 looks at it.
    const closes = [...this.#streams.keys()].map((stream) => ({ kind: "watchClose" as const, stream }));
    this.#streams.clear();
    this.#planned.push(this.#call(Auth.method.authDisable, {}, "root"), ...closes, ...deletes);
    return this.#call(Auth.method.authenticate, { name: "root", password: "root-password" }, "");
  }

  #auth(): Operation {
    const random = this.#random;
    // The users and roles that the rest relies on stay: root keeps its password and its role while it matters.
    const name = random.chance(0.03) ? "" : random.pick(["ann", "bob", "carl"]);
    const role = random.chance(0.03) ? "" : random.pick(["reader", "writer", "other"]);
    const password = random.chance(0.9) ? `${name}-password` : "wrong";
    const user = random.chance(0.7) && this.#authPhase > 0 ? "root" : this.#user();
    const key = this.#key();
    const rangeEnd = this.#rangeEnd(key);
    const permType = random.below(3) as Permission_Type;
    switch (random.below(16)) {
      case 0:
        return this.#call(Auth.method.userAdd, {
          name,
          password,
          ...(random.chance(0.1) ? { options: { noPassword: true } } : {}),
        }, user);
      case 1:
        return this.#call(Auth.method.userDelete, { name: random.chance(0.1) ? "root" : name }, user);
      case 2:
        return this.#call(Auth.method.userGet, { name: random.pick([name, "root"]) }, user);
      case 3:
        return this.#call(Auth.method.userList, {}, user);
      case 4:
        return this.#call(Auth.method.userChangePassword, { name, password }, user);
      case 5:
        return this.#call(Auth.method.userGrantRole, { user: name, role: random.pick([role, "root"]) }, user);
      case 6:
        return this.#call(Auth.method.userRevokeRole, { name, role }, user);
      case 7:
        return this.#call(Auth.method.roleAdd, { name: random.pick([role, role, "root"]) }, user);
      case 8:
        return this.#call(Auth.method.roleDelete, { role }, user);
      case 9:
        return this.#call(Auth.method.roleGet, { role: random.pick([role, role, "root"]) }, user);
      case 10:
        return this.#call(Auth.method.roleList, {}, user);
      case 11:
      case 12:
        return this.#call(Auth.method.roleGrantPermission, {
          name: role,
          perm: {
            permType,
            key: key.length === 0 ? bytes("a") : key,
            rangeEnd: compareBytes(rangeEnd, key) > 0 ? rangeEnd : bytes(random.pick(["", "\0"])),
          },
        }, user);
      case 13:
        return this.#call(Auth.method.roleRevokePermission, { role, key, rangeEnd }, user);
      case 14:
        // Root may still be there from an earlier time with authentication: then this begins another, a short one.
        if (this.#authPhase === 0) this.#authPhase = 1;
        return this.#call(Auth.method.authEnable, {}, user);
      default:
        return this.#call(Auth.method.authenticate, { name, password }, "");
    }
  }
}

/** Text of one character a byte as bytes. */
export function bytes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** The end of the range of keys that begin with `key`. */
export function prefixEnd(key: Uint8Array): Uint8Array {
  for (let i = key.length - 1; i >= 0; i--) {
    const byte = key[i] ?? 0;
    if (byte < 0xff) return Uint8Array.of(...key.subarray(0, i), byte + 1);
  }
  return bytes("\0");
}

/** Orders keys as etcd does. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
