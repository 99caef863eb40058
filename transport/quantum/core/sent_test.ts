import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { MAX_SENT_PACKETS } from "../params.ts";
import { SentLedger } from "./sent.ts";

function enter(ledger: SentLedger): number {
  const packet = ledger.blank();
  packet.sequence = ledger.next++;
  ledger.enter(packet);
  return packet.sequence;
}

Deno.test("SentLedger agrees with a plain map, holes and all", () => {
  const action = fc.oneof(
    { weight: 5, arbitrary: fc.constant({ do: "send" as const, which: 0 }) },
    { weight: 2, arbitrary: fc.constant({ do: "hole" as const, which: 0 }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("settle" as const), which: fc.nat() }) },
  );
  fc.assert(fc.property(fc.array(action, { maxLength: 400 }), (actions) => {
    const ledger = new SentLedger();
    const model: number[] = [];
    for (const { do: what, which } of actions) {
      if (what === "send") model.push(enter(ledger));
      else if (what === "hole") ledger.next++;
      else if (model.length > 0) {
        const [sequence] = model.splice(which % model.length, 1);
        const packet = ledger.get(sequence!)!;
        ledger.remove(packet);
        ledger.recycle(packet);
        ledger.settle();
        assertEquals(ledger.base, model[0] ?? ledger.next);
      }
      assertEquals(ledger.outstanding, model.length);
      for (let n = 0; n < ledger.next + 2; n++) {
        if (n >= ledger.base) assertEquals(ledger.get(n)?.sequence, model.includes(n) ? n : undefined);
      }
    }
  }));
});

Deno.test("SentLedger is full at MAX_SENT_PACKETS between the oldest and the newest, and probes end at twice that", () => {
  const ledger = new SentLedger();
  while (!ledger.isFull) enter(ledger);
  assertEquals(ledger.next, MAX_SENT_PACKETS);
  while (!ledger.isExhausted) enter(ledger);
  assertEquals(ledger.outstanding, 2 * MAX_SENT_PACKETS - 1);
  const first = ledger.get(0)!;
  ledger.remove(first);
  ledger.settle();
  assertEquals([ledger.base, ledger.isExhausted, ledger.get(5)?.sequence], [1, false, 5]);
});
