/** The tables of the local store, each against a plain model. */
import { assert, assertEquals } from "@std/assert";
import { type Expiring, ExpiryHeap } from "./expiry_heap.ts";
import { IdOrder, type Ordered } from "./id_order.ts";
import { IndexTable } from "./index_table.ts";
import { createMemoryStore } from "./memory.ts";
import { newSession, sessionOf, SUITE_START_MS as T } from "../testing/store_suite.ts";

const SEED = 77;

function random(): (below: number) => number {
  let word = SEED;
  return (below) => (word = (Math.imul(word, 1_664_525) + 1_013_904_223) >>> 0) % below;
}

Deno.test("IndexTable holds what a Map does, while it grows and shrinks", () => {
  const next = random();
  const table = new IndexTable<number>(1);
  const model = new Map<string, number>();
  for (let step = 0; step < 20_000; step++) {
    const key = `key ${next(4_000)}`;
    if (next(3) === 0) assertEquals(table.delete(key), model.delete(key), `seed ${SEED}, step ${step}`);
    else if (!model.has(key)) {
      table.add(key, step);
      model.set(key, step);
    }
    assertEquals(table.size, model.size);
  }
  for (let i = 0; i < 4_000; i++) assertEquals(table.get(`key ${i}`), model.get(`key ${i}`), `seed ${SEED}`);
});

Deno.test("ExpiryHeap gives what is due first, whatever left or moved meanwhile", () => {
  interface Entry extends Expiring {
    readonly name: number;
  }
  const next = random();
  const heap = new ExpiryHeap<Entry>();
  const model = new Set<Entry>();
  for (let step = 0; step < 5_000; step++) {
    const entries = [...model];
    const some = entries[next(Math.max(entries.length, 1))];
    const choice = next(4);
    if (choice < 2 || some === undefined) {
      const entry = { name: step, dueAtMs: next(1_000), heapIndex: -1 };
      heap.add(entry);
      model.add(entry);
    } else if (choice === 2) {
      heap.delete(some);
      heap.delete(some);
      model.delete(some);
    } else {
      some.dueAtMs += next(500);
      heap.later(some);
    }
    const first = Math.min(...[...model].map(({ dueAtMs }) => dueAtMs));
    assertEquals(heap.first?.dueAtMs ?? Infinity, first, `seed ${SEED}, step ${step}`);
  }
});

Deno.test("IdOrder goes through its entries in the order of ids, from any place on", () => {
  const next = random();
  const order = new IdOrder<Ordered>();
  const model = new Map<string, Ordered>();
  const idOf = (n: number) => String(n).padStart(8, "0");
  for (let step = 1; step <= 10_000; step++) {
    // Nearly always behind the last one.
    const n = next(50) === 0 ? next(step) * 10 + 5 : step * 10;
    const entry = { id: idOf(n), isGone: false };
    if (!model.has(entry.id)) {
      order.add(entry);
      model.set(entry.id, entry);
    }
    const gone = model.get(idOf(next(step) * 10));
    if (gone !== undefined && next(10) < 9) {
      order.delete(gone);
      model.delete(gone.id);
    }
  }
  const ids = [...model.keys()].sort();
  for (const after of ["", idOf(0), idOf(50_000), idOf(99_990), idOf(100_000)]) {
    assertEquals([...order.after(after)].map(({ id }) => id), ids.filter((id) => id > after), `seed ${SEED}`);
  }
});

Deno.test("the memory store forgets the oldest of too many epochs, and refuses rather than lets pass", async () => {
  const store = createMemoryStore({ sessionsMax: 10, perUserMax: 10, seed: 1 });
  for (let n = 0; n <= 100_000; n++) await store.revokeUser(`user ${n}`, T + n, "", undefined);
  // The first user's epoch is forgotten: nobody may create with an earlier one all the same.
  assertEquals(
    await store.create(newSession(1, { userId: "user 0" }, { userEpoch: T - 1 }), T + 200_000),
    "revoked",
  );
  const epoch = await store.userEpoch("user 0");
  assert(epoch >= T);
  const item = newSession(2, { userId: "user 0", lastActiveMs: T + 200_000 }, { userEpoch: epoch });
  assertEquals(await store.create(item, T + 200_000), "created");
  assert(await store.get(sessionOf(2).id, T + 200_000) !== undefined);
});
