import { assertEquals } from "@std/assert";
import * as Y from "yjs";
import type { LiveDocument, LiveListener } from "../live.ts";
import { LinkDocument, PRESENCE_BYTES_MAX, WAITING_BYTES_MAX } from "./link_document.ts";

/** A document whose edits the test makes, and time that it turns. */
function open(channels = 0) {
  let listener: LiveListener | undefined;
  let nowMs = 1_000;
  let due: (() => void) | undefined;
  let dueAtMs = Infinity;
  const told: string[] = [];
  const live: LiveDocument = {
    id: "d",
    stateVector: () => new Uint8Array(1),
    answer: () => Promise.resolve([]),
    update: () => Promise.resolve(),
    listen(asked) {
      listener = asked;
      return () => listener = undefined;
    },
    leave() {},
  };
  const document = new LinkDocument({
    live,
    number: 7,
    timer: {
      now: () => nowMs,
      after(delayMs, fn) {
        due = fn;
        dueAtMs = nowMs + delayMs;
        return () => due = undefined;
      },
    },
    onWaiting: () => void told.push("waiting"),
    onOverflow: () => void told.push("overflow"),
  });
  for (let i = 0; i < channels; i++) document.channels.add(i);
  const doc = new Y.Doc();
  doc.on("update", (update: Uint8Array) => listener?.onUpdate(update));
  return {
    document,
    doc,
    told,
    edit: (text: string) => doc.getText("content").insert(doc.getText("content").length, text),
    emit: (update: Uint8Array) => listener?.onUpdate(update),
    take: (room = 1_000_000, isAlone = true) => document.take(room, isAlone),
    pass(ms: number) {
      nowMs += ms;
      if (nowMs < dueAtMs) return;
      dueAtMs = Infinity;
      due?.();
    },
  };
}

/** The text that updates make. */
function textOf(...updates: readonly Uint8Array[]): string {
  const doc = new Y.Doc();
  for (const update of updates) Y.applyUpdate(doc, update);
  const text = doc.getText("content").toString();
  doc.destroy();
  return text;
}

Deno.test("what becomes durable until the gateway is ready comes as one update", () => {
  const { document, doc, edit, take, told } = open();
  edit("a");
  const first = take();
  assertEquals([first.output!.document, textOf(first.output!.update), first.hasMore], [7, "a", false]);
  edit("b");
  edit("c");
  assertEquals([take().output, told], [undefined, ["waiting"]]);
  document.ready();
  const second = take().output!.update;
  assertEquals([textOf(first.output!.update, second), told], ["abc", ["waiting", "waiting"]]);
  assertEquals(take().output, undefined);
  doc.destroy();
});

Deno.test("with many clients edits wait for one another, but one that comes alone does not", () => {
  const { document, doc, edit, take, told, pass } = open(500); // 20 ms
  edit("a");
  assertEquals([told, textOf(take().output!.update)], [["waiting"], "a"]);
  document.ready();
  pass(10);
  edit("b");
  pass(19);
  edit("c");
  assertEquals([told.length, take().output], [1, undefined]);
  pass(1);
  assertEquals([told.length, textOf(take().output!.update) === ""], [2, true]); // it builds on a
  document.ready();
  pass(500);
  edit("d");
  assertEquals(told.length, 3);
  document.close();
  doc.destroy();
});

Deno.test("a gateway that is never ready is told so, and not one that is", () => {
  const { doc, emit, take, told } = open();
  const large = new Uint8Array(1_000_000);
  emit(large);
  take();
  for (let bytes = 0; bytes <= WAITING_BYTES_MAX; bytes += large.length) emit(large);
  assertEquals(told, ["waiting", "overflow"]);
  doc.destroy();
});

Deno.test("an update larger than the room waits for a message of its own", () => {
  const { doc, emit, take } = open();
  const large = new Uint8Array(2_000_000);
  emit(large);
  assertEquals(take(1_000, false), { output: undefined, bytes: 0, hasMore: true });
  assertEquals(take(1_000, true).output!.update.length, large.length);
  doc.destroy();
});

Deno.test("presence does not wait for the gateway, is bounded by the newest, and says once whether it is wanted", () => {
  const { document, doc, edit, take } = open();
  edit("a");
  take();
  document.presence(Uint8Array.of(1));
  document.wantsPresence = true;
  const { output } = take();
  assertEquals([output!.presence, output!.wantsPresence, output!.update.length], [
    [Uint8Array.of(1)],
    true,
    0,
  ]);
  document.wantsPresence = true;
  assertEquals(take().output, undefined);
  const half = new Uint8Array(PRESENCE_BYTES_MAX / 2 + 1);
  for (let i = 0; i < 3; i++) document.presence(half);
  assertEquals(take().output!.presence.length, 1);
  document.wantsPresence = false;
  assertEquals(take().output!.wantsPresence, false);
  doc.destroy();
});

Deno.test("after its end a document hears of nothing", () => {
  const { document, doc, edit, take, told } = open();
  document.close();
  edit("a");
  assertEquals([told, take().output], [[], undefined]);
  doc.destroy();
});
