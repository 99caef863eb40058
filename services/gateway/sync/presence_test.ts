import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { applyAwarenessUpdate, Awareness, encodeAwarenessUpdate } from "y-protocols/awareness";
import * as Y from "yjs";
import { newPresenceOwner } from "./document.ts";
import { BadMessage, numberBytes, writeNumber } from "./frames.ts";
import {
  DOCUMENT_BYTES_MAX,
  EXPIRE_MS,
  IDS_PER_CONNECTION,
  Presence,
  type PresenceRefusal,
  STATE_BYTES_MAX,
} from "./presence.ts";

type Shown = readonly [id: number, clock: number, state: unknown];

/** An awareness update, as a client writes it. */
function show(...entries: readonly Shown[]): Uint8Array {
  const parts = entries.map(([id, clock, state]) => {
    const json = new TextEncoder().encode(JSON.stringify(state));
    const head = new Uint8Array(numberBytes(id) + numberBytes(clock) + numberBytes(json.length));
    writeNumber(head, writeNumber(head, writeNumber(head, 0, id), clock), json.length);
    return [...head, ...json];
  });
  const count = new Uint8Array(numberBytes(entries.length));
  writeNumber(count, 0, entries.length);
  return Uint8Array.from([...count, ...parts.flat()]);
}

/** A client that believes what it is sent, without timers. */
class Observer {
  readonly awareness = new Awareness(new Y.Doc());

  constructor() {
    clearInterval((this.awareness as unknown as { _checkInterval: number })._checkInterval);
    this.awareness.setLocalState(null);
  }

  see(update: Uint8Array | undefined): Record<number, unknown> {
    if (update !== undefined) applyAwarenessUpdate(this.awareness, update, null);
    return Object.fromEntries(this.awareness.getStates());
  }
}

function open(): { presence: Presence; refusals: PresenceRefusal[] } {
  const refusals: PresenceRefusal[] = [];
  return { presence: new Presence((reason) => refusals.push(reason)), refusals };
}

Deno.test("clients see what y-protocols' own relay would show them", () => {
  const state = fc.jsonValue({ maxDepth: 2 }).filter((value) => value !== null);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(3), fc.option(state, { nil: null }), fc.boolean())), (steps) => {
      const { presence } = open();
      const owners = [0, 1, 2, 3].map(() => newPresenceOwner(""));
      const source = new Awareness(new Y.Doc());
      clearInterval((source as unknown as { _checkInterval: number })._checkInterval);
      source.setLocalState(null);
      const observer = new Observer();
      let seen: unknown = {};
      const clocks = [0, 0, 0, 0];
      for (const [client, value, isTick] of steps) {
        const update = show([client + 1, ++clocks[client]!, value]);
        applyAwarenessUpdate(source, update, null);
        presence.receive(owners[client]!, update, 0);
        if (isTick) seen = observer.see(presence.flush().all);
      }
      seen = observer.see(presence.flush().all);
      assertEquals(seen, Object.fromEntries(source.getStates()));
      assertEquals(new Observer().see(presence.whole()), Object.fromEntries(source.getStates()));
    }),
  );
});

Deno.test("a client id is its connection's: another one changes and ends it not", () => {
  const { presence, refusals } = open();
  const ada = newPresenceOwner("ada");
  const mallory = newPresenceOwner("mallory");
  presence.receive(ada, show([1, 1, { name: "ada" }]), 0);
  presence.flush();
  presence.receive(mallory, show([1, 2, { name: "not ada" }]), 0);
  presence.receive(mallory, show([1, 3, null]), 0);
  assertEquals(presence.isDirty, false);
  assertEquals(refusals, ["foreign_id", "foreign_id"]);
  presence.leave(mallory);
  assertEquals(new Observer().see(presence.whole()), { 1: { name: "ada" } });
});

Deno.test("who comes back on another connection has its id again: its user at once, others when it is abandoned", () => {
  const { presence, refusals } = open();
  const first = newPresenceOwner("ada");
  presence.receive(first, show([1, 1, "old"]), 0);
  presence.receive(newPresenceOwner("ada"), show([1, 2, "new"]), 1_000);
  assertEquals(new Observer().see(presence.whole()), { 1: "new" });
  // What the first connection's end takes with it is not that of the second.
  presence.leave(first);
  assertEquals(presence.size, 1);
  presence.receive(newPresenceOwner(""), show([1, 3, "other"]), 5_000);
  assertEquals(refusals, ["foreign_id"]);
  presence.receive(newPresenceOwner(""), show([1, 3, "other"]), 21_001);
  assertEquals(new Observer().see(presence.whole()), { 1: "other" });
});

Deno.test("whoever ends or does not renew is removed, with a clock that clients believe", () => {
  const { presence } = open();
  const observer = new Observer();
  const [ada, bob] = [newPresenceOwner(""), newPresenceOwner("")];
  presence.receive(ada, show([1, 7, "ada"], [2, 1, "ada's phone"]), 0);
  presence.receive(bob, show([3, 1, "bob"]), 10_000);
  assertEquals(observer.see(presence.flush().all), { 1: "ada", 2: "ada's phone", 3: "bob" });
  presence.expire(EXPIRE_MS);
  assertEquals(observer.see(presence.flush().all), { 3: "bob" });
  presence.leave(bob);
  assertEquals(observer.see(presence.flush().all), {});
  assertEquals([presence.size, presence.whole()], [0, undefined]);
});

Deno.test("states are bounded, for each connection and for a document", () => {
  const { presence, refusals } = open();
  const ada = newPresenceOwner("");
  const ids = Array.from({ length: IDS_PER_CONNECTION + 1 }, (_, i): Shown => [i, 1, "here"]);
  presence.receive(ada, show(...ids), 0);
  presence.receive(newPresenceOwner(""), show([90, 1, "x".repeat(STATE_BYTES_MAX)]), 0);
  assertEquals([presence.size, refusals.splice(0)], [IDS_PER_CONNECTION, [
    "too_many_ids",
    "state_too_large",
  ]]);
  const large = "x".repeat(STATE_BYTES_MAX - 2);
  const fitting = Math.floor(DOCUMENT_BYTES_MAX / STATE_BYTES_MAX);
  for (let i = 0; i <= fitting; i++) presence.receive(newPresenceOwner(""), show([100 + i, 1, large]), 0);
  assertEquals(new Set(refusals), new Set(["document_full"]));
  assert(presence.whole()!.length <= DOCUMENT_BYTES_MAX);
});

Deno.test("what is no awareness update is refused as a whole, whoever says it", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => {
    const { presence } = open();
    try {
      presence.receive(newPresenceOwner(""), bytes, 0);
    } catch (error) {
      assert(error instanceof BadMessage);
      assertEquals(presence.size, 0);
    }
    presence.receiveForeign(bytes, 0);
  }));
  const { presence } = open();
  const cut = show([1, 1, "one"], [2, 1, "two"]).subarray(0, -1);
  assertThrows(() => presence.receive(newPresenceOwner(""), cut, 0), BadMessage);
  assertEquals(presence.size, 0);
});

Deno.test("of what changed, other gateways are told what is of this one", () => {
  const { presence } = open();
  const there = new Observer();
  presence.receiveForeign(show([1, 1, "there"]), 0);
  presence.receive(newPresenceOwner(""), show([2, 1, "here"]), 0);
  const { all, own } = presence.flush();
  assertEquals(there.see(own), { 2: "here" });
  assertEquals(new Observer().see(all), { 1: "there", 2: "here" });
  assertEquals(new Observer().see(presence.own()), { 2: "here" });
});

Deno.test("what a real client encodes is taken", () => {
  const { presence } = open();
  const awareness = new Awareness(new Y.Doc());
  awareness.setLocalState({ user: { name: "ädä", color: "#123456" }, cursor: null });
  presence.receive(newPresenceOwner(""), encodeAwarenessUpdate(awareness, [awareness.clientID]), 0);
  assertEquals(Object.values(new Observer().see(presence.whole())), [awareness.getLocalState()]);
  awareness.destroy();
});
