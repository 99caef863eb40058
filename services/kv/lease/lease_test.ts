import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { createManualClock } from "../../runtime/clock.ts";
import { createSeededRandom } from "../../runtime/random.ts";
import { Lessor } from "./lease.ts";
import { decodeLeaseEntry, encodeLeaseEntry, leaseEntryName, leaseIdOf } from "./lease_entry.ts";
import { RecordError } from "../record.ts";
import { MvccState } from "../state.ts";
import { type PutOp, runDelete, runPut, type WriteLog } from "../txn.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array) => new TextDecoder().decode(value);

/** A lessor on a state, without a service: writes are applied when they are made. */
function open(options: { leasesMax?: number } = {}) {
  const clock = createManualClock();
  const lessor = new Lessor({
    clock,
    random: createSeededRandom(5),
    minTtlSeconds: 2,
    leasesMax: options.leasesMax ?? 1_000,
  });
  const state = new MvccState(1);
  /** Runs a write as KvService.mutate does and returns the named entries it changed. */
  const write = (change: (log: WriteLog) => void): string[] => {
    const entries: [string, Uint8Array | undefined][] = [];
    const log: WriteLog = {
      put() {},
      touch() {},
      delete() {},
      deleteRange() {},
      meta: (name, value) => entries.push([name, value]),
    };
    change(log);
    if (state.hasChanges) lessor.endOwn(state, log);
    const hasRows = state.hasChanges;
    const revision = state.commit();
    for (const [name, value] of entries) lessor.load(name, value);
    if (hasRows) lessor.applied(state, revision);
    return entries.map(([name, value]) => (value === undefined ? "-" : "+") + leaseIdOf(name));
  };
  const grant = (id: bigint, ttlSeconds: number) =>
    write((log) => {
      const lease = lessor.plan(id, BigInt(ttlSeconds));
      log.meta(
        leaseEntryName(lease.id),
        encodeLeaseEntry({ ttlMs: lease.ttlMs, remainingMs: undefined, isOwn: false }),
      );
    });
  const putOp = (key: string, options: Partial<PutOp>): PutOp => ({
    kind: "put",
    key: bytes(key),
    value: bytes("1"),
    lease: 0n,
    prevKv: false,
    ignoreValue: false,
    ignoreLease: false,
    ...options,
  });
  const put = (key: string, options: Partial<PutOp> = {}) =>
    write((log) => void runPut(state, lessor, putOp(key, options), log));
  const del = (...keys: string[]) =>
    write((log) => {
      for (const key of keys) {
        runDelete(state, { kind: "delete", key: bytes(key), range: "single", prevKv: false }, 0, log);
      }
    });
  const leaseOf = (key: string) => {
    const row = state.rowAt(bytes(key), Infinity);
    return row < 0 ? undefined : state.leaseOf(row);
  };
  return { clock, lessor, state, write, grant, put, putOp, del, leaseOf };
}

const keysOf = (lessor: Lessor, id: bigint) => lessor.keysOf(id).map(text);

Deno.test("a lease's entry has its bytes, and refuses others", () => {
  assertEquals(leaseEntryName(-1n), "lease/ffffffffffffffff");
  assertEquals(leaseEntryName(26n), "lease/000000000000001a");
  for (const id of [1n, -1n, 2n ** 63n - 1n, -(2n ** 63n)]) assertEquals(leaseIdOf(leaseEntryName(id)), id);
  const whole = { ttlMs: 1_500, remainingMs: undefined, isOwn: true };
  assertEquals([...encodeLeaseEntry(whole)], [1, 0x40, 0x97, 0x70, 0, 0, 0, 0, 0]);
  for (const entry of [whole, { ttlMs: 9e12, remainingMs: 0.5, isOwn: false }]) {
    assertEquals(decodeLeaseEntry(encodeLeaseEntry(entry)), entry);
  }
  for (const value of [[], [0], [4, 0, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0, 0]]) {
    assertThrows(() => decodeLeaseEntry(Uint8Array.from(value)), RecordError);
  }
  assertThrows(() => leaseIdOf("lease/1"), RecordError);
});

Deno.test("Lessor.plan() chooses ids that are positive and never come twice", () => {
  const { lessor, grant } = open();
  const ids = Array.from({ length: 1_000 }, () => BigInt(grant(0n, 10)[0]!.slice(1)));
  assertEquals(new Set(ids).size, 1_000);
  assert(ids.every((id) => id > 0n && id < 2n ** 63n));
  assertThrows(() => lessor.plan(0n, 10n), Error, "too many requests");
  assertThrows(() => lessor.plan(ids[0]!, 9_000_000_001n), Error, "too large lease TTL");
  assertThrows(() => lessor.plan(ids[0]!, 1n), Error, "lease already exists");
});

Deno.test("Lessor tells the earliest expiry, and says when it came nearer", () => {
  const { clock, lessor, grant, write } = open();
  let earlier = 0;
  lessor.onEarlier = () => earlier++;
  assertEquals([lessor.nextExpiryMs, lessor.firstExpired(1e9)], [Infinity, undefined]);
  grant(1n, 10);
  grant(2n, 20);
  grant(3n, 5);
  assertEquals([earlier, lessor.nextExpiryMs, lessor.ids()], [2, 5_000, [3n, 1n, 2n]]);
  clock.advance(4_999);
  assertEquals([lessor.firstExpired(4_999), lessor.renew(3n, 4_999), lessor.nextExpiryMs], [
    undefined,
    true,
    9_999,
  ]);
  clock.advance(5_001);
  const expired: bigint[] = [];
  lessor.visitExpired(10_000, (id) => expired.push(id) > 0);
  assertEquals([lessor.firstExpired(10_000), expired.sort()], [3n, [1n, 3n]]);
  assertEquals([lessor.renew(3n, 10_000), lessor.isExpired(3n, 10_000), lessor.isExpired(2n, 10_000)], [
    false,
    true,
    false,
  ]);
  write((log) => log.meta(leaseEntryName(3n), undefined));
  assertEquals([lessor.firstExpired(10_000), lessor.ids()], [1n, [1n, 2n]]);
});

Deno.test("Lessor moves keys between leases with puts and takes them off with deletions", () => {
  const { lessor, grant, put, del } = open();
  grant(1n, 10);
  grant(2n, 10);
  for (const key of ["c", "a", "b"]) put(key, { lease: 1n });
  assertEquals([keysOf(lessor, 1n), lessor.keyCountOf(1n)], [["a", "b", "c"], 3]);
  put("a", { lease: 2n });
  put("b");
  put("c", { ignoreLease: true, ignoreValue: true, value: bytes("") });
  assertEquals([keysOf(lessor, 1n), keysOf(lessor, 2n)], [["c"], ["a"]]);
  del("c", "a");
  assertEquals([keysOf(lessor, 1n), keysOf(lessor, 2n), lessor.size], [[], [], 2]);
});

Deno.test("a put with ttlMs makes a lease of the key's own, which ends with the key or the next put without one", () => {
  const { clock, lessor, put, del, leaseOf } = open();
  assertEquals(put("a", { ttlMs: 1 }).length, 1);
  const id = leaseOf("a")!;
  assertEquals([lessor.isOwn(id), lessor.ttlMsOf(id), keysOf(lessor, id)], [true, 1, ["a"]]);
  clock.advance(1);
  assert(lessor.isExpired(id, 1));
  assertEquals(put("a", { ttlMs: 50 }), [`+${id}`]);
  assertEquals([leaseOf("a"), lessor.remainingMsOf(id, 1), lessor.ownSize], [id, 50, 1]);
  assertEquals(put("a", { ignoreLease: true }), []);
  assertEquals(leaseOf("a"), id);
  assertEquals(put("a"), [`-${id}`]);
  assertEquals([leaseOf("a"), lessor.size, lessor.ownSize], [0n, 0, 0]);
  put("a", { ttlMs: 50 });
  const next = leaseOf("a")!;
  assertEquals(del("a"), [`-${next}`]);
  assertEquals([next === id, lessor.size], [false, 0]);
});

Deno.test("an own lease that another key joined ends when the last of them leaves", () => {
  const { lessor, put, putOp, del, leaseOf, state, write } = open();
  put("a", { ttlMs: 50 });
  const id = leaseOf("a")!;
  put("b", { lease: id });
  assertEquals(put("a", { ttlMs: 70 }).length, 1);
  assert(leaseOf("a") !== id && lessor.has(id));
  assertEquals(keysOf(lessor, id), ["b"]);
  // In one write the key leaves and another takes its place.
  assertEquals(
    write((log) => {
      runDelete(state, { kind: "delete", key: bytes("b"), range: "single", prevKv: false }, 0, log);
      runPut(state, lessor, putOp("c", { lease: id }), log);
    }),
    [],
  );
  assertEquals(keysOf(lessor, id), ["c"]);
  put("d", { lease: id });
  assertEquals(del("c", "d"), [`-${id}`]);
});

Deno.test("Lessor.checkpoint() writes what a restart would give too much, in slices", () => {
  const { clock, lessor, grant, write } = open();
  for (let id = 1n; id <= 10n; id++) grant(id, 100);
  grant(11n, 10);
  clock.advance(5_000);
  lessor.renew(3n, 5_000);
  const slice = { now: 5_000, ttlAboveMs: 10_000, behindMs: 5_000, entriesMax: 4, slotsMax: 6 };
  const written: string[][] = [];
  for (let from = 0; from >= 0;) {
    written.push(write((log) => from = lessor.checkpoint(log, { ...slice, from }).next));
  }
  assertEquals(written, [["+1", "+2", "+4", "+5"], ["+6", "+7", "+8", "+9"], ["+10"]]);
  assertEquals([lessor.isCheckpointed(3n), lessor.isCheckpointed(4n)], [false, true]);
  assertEquals(write((log) => void lessor.checkpoint(log, { ...slice, from: 0 })), []);
  // A checkpoint is news to one who restarts only.
  assertEquals(lessor.remainingMsOf(4n, 5_000), 95_000);
  write((log) => log.meta(leaseEntryName(4n), lessor.wholeEntryOf(4n)));
  assertEquals([lessor.isCheckpointed(4n), lessor.remainingMsOf(4n, 5_000)], [false, 100_000]);
});

Deno.test("Lessor agrees with a naive model over random grants, puts, deletions, renewals, revocations and time", () => {
  type Step =
    | { readonly kind: "grant"; readonly id: bigint; readonly ttl: number }
    | { readonly kind: "revoke" | "renew"; readonly id: bigint }
    | { readonly kind: "put"; readonly key: string; readonly lease: bigint }
    | { readonly kind: "own"; readonly key: string; readonly ttl: number }
    | { readonly kind: "delete"; readonly keys: string[] }
    | { readonly kind: "advance"; readonly ms: number };
  const id = fc.bigInt(1n, 6n);
  const key = fc.constantFrom("a", "b", "c", "d");
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.record({ kind: fc.constant("grant" as const), id, ttl: fc.integer({ min: 0, max: 9 }) }),
    fc.record({ kind: fc.constantFrom("revoke" as const, "renew" as const), id }),
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("put" as const), key, lease: fc.bigInt(0n, 6n) }) },
    fc.record({ kind: fc.constant("own" as const), key, ttl: fc.integer({ min: 1, max: 5_000 }) }),
    fc.record({ kind: fc.constant("delete" as const), keys: fc.uniqueArray(key, { minLength: 1 }) }),
    fc.record({ kind: fc.constant("advance" as const), ms: fc.integer({ min: 1, max: 3_000 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const { clock, lessor, grant, put, del, write, leaseOf } = open();
      const leases = new Map<bigint, { ttlMs: number; expiryMs: number; isOwn: boolean }>();
      const keys = new Map<string, bigint>();
      const leave = (name: string) => {
        const lease = keys.get(name);
        keys.delete(name);
        return lease;
      };
      const endOwn = (lease: bigint | undefined) => {
        if (lease === undefined || leases.get(lease)?.isOwn !== true) return;
        if (![...keys.values()].includes(lease)) leases.delete(lease);
      };
      for (const step of steps) {
        const now = clock.now();
        if (step.kind === "advance") clock.advance(step.ms);
        else if (step.kind === "grant") {
          if (leases.has(step.id)) assertThrows(() => grant(step.id, step.ttl));
          else {
            grant(step.id, step.ttl);
            const ttlMs = Math.max(2, step.ttl) * 1_000;
            leases.set(step.id, { ttlMs, expiryMs: now + ttlMs, isOwn: false });
          }
        } else if (step.kind === "renew") {
          const lease = leases.get(step.id);
          const isAlive = lease !== undefined && lease.expiryMs > now;
          assertEquals(lessor.renew(step.id, now), isAlive);
          if (isAlive) lease.expiryMs = now + lease.ttlMs;
        } else if (step.kind === "revoke") {
          const names = keysOf(lessor, step.id);
          assertEquals(
            names,
            [...keys].filter(([, lease]) => lease === step.id).map(([name]) => name).sort(),
          );
          if (names.length > 0) del(...names);
          write((log) => log.meta(leaseEntryName(step.id), undefined));
          for (const name of names) keys.delete(name);
          leases.delete(step.id);
        } else if (step.kind === "delete") {
          del(...step.keys);
          step.keys.map(leave).forEach(endOwn);
        } else if (step.kind === "put" && (step.lease === 0n || leases.has(step.lease))) {
          put(step.key, { lease: step.lease });
          const before = leave(step.key);
          if (step.lease !== 0n) keys.set(step.key, step.lease);
          endOwn(before);
        } else if (step.kind === "own") {
          put(step.key, { ttlMs: step.ttl });
          const before = leave(step.key);
          keys.set(step.key, leaseOf(step.key)!);
          endOwn(before);
          leases.set(leaseOf(step.key)!, { ttlMs: step.ttl, expiryMs: now + step.ttl, isOwn: true });
        }
        const byExpiry = [...leases.values()].map(({ expiryMs }) => expiryMs).sort((a, b) => a - b);
        assertEquals(lessor.ids().map((id) => leases.get(id)?.expiryMs), byExpiry);
        assertEquals(lessor.nextExpiryMs, byExpiry[0] ?? Infinity);
        const expired: bigint[] = [];
        lessor.visitExpired(clock.now(), (id) => expired.push(id) > 0);
        assertEquals(expired.length, byExpiry.filter((expiryMs) => expiryMs <= clock.now()).length);
        assertEquals(lessor.ownSize, [...leases.values()].filter(({ isOwn }) => isOwn).length);
      }
    }),
    { numRuns: 200 },
  );
});
