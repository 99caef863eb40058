import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { create } from "@bufbuild/protobuf";
import { DocumentOutputSchema, SyncAnswerSchema } from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { createVirtualTime } from "../testing/virtual_time.ts";
import type { Channel } from "./channel.ts";
import { LARGE_STATE_BYTES, newPresenceOwner, SyncDocument } from "./document.ts";
import { BARE, type Framing, namedFraming } from "./frames.ts";
import type { SyncMetrics } from "./metrics.ts";
import type { PresenceOwner } from "./presence.ts";

const SILENT: SyncMetrics = {
  socketOpened() {},
  socketClosed() {},
  received() {},
  sent() {},
  refused() {},
  presenceEntries() {},
};

/** What a document needs of a channel. */
class Client {
  bagIndex = -1;
  readonly presence: PresenceOwner = newPresenceOwner("");
  readonly frames: Uint8Array[] = [];
  readonly states: (readonly Uint8Array[])[] = [];

  constructor(readonly framing: Framing = BARE) {}

  send(frame: Uint8Array): void {
    this.frames.push(frame);
  }

  sendState(frames: readonly Uint8Array[]): void {
    this.states.push(frames);
  }

  get channel(): Channel {
    return this as unknown as Channel;
  }
}

function open(clients: readonly Client[]) {
  const time = createVirtualTime();
  let ready = 0;
  const asked: Client[] = [];
  const passed: Uint8Array[] = [];
  const document = new SyncDocument({
    id: "d",
    number: 1,
    timer: time.timer,
    clock: time.clock,
    metrics: SILENT,
    onReady: () => ready++,
    ask: (channel) => void asked.push(channel as unknown as Client),
    passPresence: (update) => void passed.push(update),
  });
  for (const client of clients) document.add(client.channel);
  return {
    ...time,
    document,
    asked,
    passed,
    get ready() {
      return ready;
    },
    update: (...bytes: number[]) =>
      document.take(create(DocumentOutputSchema, { document: 1, update: Uint8Array.from(bytes) })),
    answer: (client: Client, update: Uint8Array, parts: { more?: boolean; part?: boolean } = {}) =>
      document.answer(client.channel, create(SyncAnswerSchema, { update, ...parts }), update),
  };
}

Deno.test("an update is encoded once for each framing, and all get the same bytes", () => {
  const bare = [new Client(), new Client(), new Client()];
  const named = [new Client(namedFraming("d")), new Client(namedFraming("d"))];
  const session = new Client(namedFraming("d\0s"));
  const { document, update } = open([...bare, ...named, session]);
  update(1, 2, 3);
  for (const group of [bare, named]) {
    for (const { frames } of group) {
      assertEquals(frames.length, 1);
      assertStrictEquals(frames[0], group[0]!.frames[0]);
    }
  }
  assertEquals(bare[0]!.frames[0], Uint8Array.of(0, 2, 3, 1, 2, 3));
  assertEquals(named[0]!.frames[0], Uint8Array.of(1, 0x64, 0, 2, 3, 1, 2, 3));
  assertEquals(session.frames[0], Uint8Array.of(3, 0x64, 0, 0x73, 0, 2, 3, 1, 2, 3));
  document.close();
});

Deno.test("few clients are ready at once, many when their sockets had time to write", async () => {
  const few = open([new Client()]);
  few.update(1);
  assertEquals(few.ready, 1);
  few.document.close();
  const many = open(Array.from({ length: 1_000 }, () => new Client()));
  many.update(1);
  assertEquals(many.ready, 0);
  await many.pass(11);
  assertEquals(many.ready, 0);
  await many.pass(2);
  assertEquals(many.ready, 1);
  many.document.close();
});

Deno.test("equal questions are asked once and answered with the same bytes; later ones get the edits since too", async () => {
  const [first, second, third, fourth] = Array.from({ length: 4 }, () => new Client()) as [
    Client,
    Client,
    Client,
    Client,
  ];
  const world = open([first, second]);
  const { document, asked, answer, update, pass } = world;
  document.question(first.channel, Uint8Array.of(0));
  update(7);
  document.question(second.channel, Uint8Array.of(0));
  assertEquals(asked, [first]);
  const state = new Uint8Array(LARGE_STATE_BYTES).fill(9);
  answer(first, state.subarray(0, 1_000), { part: true });
  answer(first, state.subarray(1_000));
  assertEquals(first.states.length, 1);
  assertEquals(first.states[0]![0]!.subarray(-state.length), state);
  assertStrictEquals(second.states[0], first.states[0]);
  // Both were there when the edit came; who is not gets it behind the answer.
  document.add(third.channel);
  document.question(third.channel, Uint8Array.of(0));
  assertStrictEquals(third.states[0], first.states[0]);
  assertEquals(third.frames.at(-1), Uint8Array.of(0, 2, 1, 7));
  // An answer is kept for a while only.
  await pass(2_500);
  document.add(fourth.channel);
  document.question(fourth.channel, Uint8Array.of(0));
  assertEquals(asked, [first, fourth]);
  document.close();
});

Deno.test("a small answer is not kept, and updates of an answer come in their order, the last one as the answer", () => {
  const [first, second] = [new Client(), new Client()];
  const { document, asked, answer } = open([first, second]);
  document.question(first.channel, Uint8Array.of(0));
  answer(first, Uint8Array.of(1), { more: true });
  answer(first, Uint8Array.of(2));
  assertEquals(first.states, [[Uint8Array.of(0, 2, 1, 1), Uint8Array.of(0, 1, 1, 2)]]);
  document.question(second.channel, Uint8Array.of(0));
  assertEquals(asked, [first, second]);
  document.close();
});

Deno.test("a client's questions are asked one after the other, and who waits for one that left asks itself", () => {
  const [first, second] = [new Client(), new Client()];
  const { document, asked, answer } = open([first, second]);
  document.question(first.channel, Uint8Array.of(0));
  document.question(first.channel, Uint8Array.of(1));
  document.question(second.channel, Uint8Array.of(1));
  assertEquals(asked, [first]);
  answer(first, Uint8Array.of(9));
  assertEquals(asked, [first, first]);
  document.delete(first.channel);
  assertEquals(asked, [first, first, second]);
  answer(second, Uint8Array.of(8));
  assertEquals([first.states.length, second.states], [1, [[Uint8Array.of(0, 1, 1, 8)]]]);
  document.close();
});

Deno.test("presence goes out in ticks, once for all, and to who comes at once", async () => {
  const clients = [new Client(), new Client()] as [Client, Client];
  const { document, passed, pass } = open(clients);
  const show = (clock: number) => Uint8Array.of(1, 5, clock, 2, 0x7b, 0x7d);
  document.showPresence(clients[0].channel, show(1));
  await pass(0);
  for (let clock = 2; clock < 10; clock++) document.showPresence(clients[0].channel, show(clock));
  await pass(200);
  // The first at once, the rest as one.
  assertEquals(clients.map(({ frames }) => frames.length), [2, 2]);
  assertStrictEquals(clients[0].frames[1], clients[1].frames[1]);
  assertEquals(clients[0].frames[1], Uint8Array.of(1, 6, ...show(9)));
  assertEquals(passed, []);
  document.take(create(DocumentOutputSchema, { document: 1, wantsPresence: true }));
  assertEquals(passed, [show(9)]);
  const late = new Client();
  document.add(late.channel);
  assertEquals(late.frames, [Uint8Array.of(1, 6, ...show(9))]);
  document.delete(clients[0].channel);
  await pass(200);
  assertEquals(late.frames[1]!.at(-1), 0x6c); // null
  assertEquals(passed.length, 2);
  assert(document.presenceSize === 0);
  document.close();
});

Deno.test("presence that is not renewed ends", async () => {
  const client = new Client();
  const { document, pass } = open([client]);
  document.showPresence(client.channel, Uint8Array.of(1, 5, 1, 2, 0x7b, 0x7d));
  await pass(29_000);
  assertEquals(document.presenceSize, 1);
  await pass(7_000);
  assertEquals([document.presenceSize, client.frames.length], [0, 2]);
  document.close();
});
