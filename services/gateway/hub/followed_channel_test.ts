import { assert, assertEquals, assertRejects } from "@std/assert";
import { fromServiceError, GatewayError } from "../problem.ts";
import type { LossReason, Subscribed, Subscriber } from "./channel.ts";
import { FollowedChannel, LANES_MAX } from "./followed_channel.ts";
import type { Position, Publication } from "./history.ts";
import { createFakeStream, type FakeStream, settle } from "./testing/hub_world.ts";

/** A subscriber that notes what it is told. */
class Listener implements Subscriber {
  cursor = 0;
  isWanted = true;
  readonly told: unknown[] = [];
  readonly offsets: number[] = [];

  begin({ position, recovered, lost, missed }: Subscribed): void {
    this.told.push(["begin", position.offset, lost ?? recovered]);
    for (const publication of missed) this.deliver(publication);
  }
  deliver({ offset }: Publication): void {
    this.offsets.push(offset);
  }
  reload(reason: LossReason, position: Position): void {
    this.told.push(["reload", reason, position.offset]);
  }
  drop(error: GatewayError): void {
    this.told.push(["drop", error.code]);
  }
}

interface World {
  readonly stream: FakeStream;
  readonly channel: FollowedChannel;
  readonly pauses: { delayMs: number; end: () => void }[];
  readonly encoded: number[];
  refused: Set<Subscriber>;
  recheck: Promise<void> | undefined;
}

function open(messages = 100): World {
  const stream = createFakeStream();
  const pauses: World["pauses"] = [];
  const encoded: number[] = [];
  const world: World = {
    stream,
    pauses,
    encoded,
    refused: new Set(),
    recheck: undefined,
    channel: new FollowedChannel({
      source: stream,
      encode({ offset }, event, data) {
        encoded.push(offset);
        return { offset, event, text: data };
      },
      limits: { messages, bytes: 1_000_000 },
      async recheck(subscriber) {
        await world.recheck;
        return world.refused.has(subscriber) ? new GatewayError("permission_denied", "no") : undefined;
      },
      pause: (delayMs, signal) =>
        delayMs === 0 ? Promise.resolve() : new Promise((resolve) => {
          pauses.push({ delayMs, end: resolve });
          signal.addEventListener("abort", () => resolve(), { once: true });
        }),
      chance: () => 0,
      toError: (error) => fromServiceError(error),
    }),
  };
  return world;
}

const at = (offset: number, epoch = "e1"): Position => ({ epoch, offset });

function add(stream: FakeStream, count: number): void {
  for (let i = 0; i < count; i++) stream.add();
}

Deno.test("a subscriber from further back than is kept gets a stream of its own, which joins the first one", async () => {
  const { stream, channel, encoded } = open();
  add(stream, 10);
  const [live, late, later] = [new Listener(), new Listener(), new Listener()];
  await channel.subscribe(live, undefined);
  await channel.subscribe(late, at(4));
  assertEquals(late.told, [["begin", 4, true]]);
  await settle();
  assertEquals([late.offsets, channel.lanes, stream.open_], [[5, 6, 7, 8, 9, 10], 1, 1]);
  stream.add();
  await settle();
  assertEquals([live.offsets, late.offsets], [[11], [5, 6, 7, 8, 9, 10, 11]]);
  // What was fetched for one is there for the next.
  await channel.subscribe(later, at(6));
  assertEquals([later.offsets, stream.opened], [[7, 8, 9, 10, 11], 2]);
  assertEquals(encoded.length, new Set(encoded).size);
  channel.close();
});

Deno.test("a position that was never, or is not kept, is told and not taken for one", async () => {
  const { stream, channel } = open();
  add(stream, 10);
  stream.kept = 6;
  const live = new Listener();
  await channel.subscribe(live, undefined);
  for (const from of [at(2), at(11), at(10, "e0")]) {
    const listener = new Listener();
    await channel.subscribe(listener, from);
    assertEquals(listener.told, [["begin", 10, from.epoch === "e1" ? "too_old" : "new_epoch"]]);
  }
  assertEquals(channel.lanes, 1);
  channel.close();
});

Deno.test("who comes first with a position that is gone begins at the present, and is told", async () => {
  const { stream, channel } = open();
  add(stream, 3);
  stream.kept = 3;
  const listener = new Listener();
  await channel.subscribe(listener, at(1));
  assertEquals(listener.told, [["begin", 3, "too_old"]]);
  channel.close();
});

Deno.test("a stream that ends is opened again where it was: nothing is missing, and pauses grow while it fails", async () => {
  const { stream, channel, pauses } = open();
  const listener = new Listener();
  await channel.subscribe(listener, undefined);
  stream.add();
  await settle();
  stream.failure = new GatewayError("unavailable", "down");
  stream.cut();
  for (let i = 0; i < 3; i++) {
    await settle();
    pauses.at(-1)!.end();
  }
  await settle();
  assertEquals(pauses.map(({ delayMs }) => delayMs), [50, 100, 200, 400]);
  add(stream, 2);
  stream.failure = undefined;
  pauses.at(-1)!.end();
  await settle();
  assertEquals([listener.told, listener.offsets], [[["begin", 0, false]], [1, 2, 3]]);
  channel.close();
});

Deno.test("a stream that cannot go on where it was is told to everybody, who go on from its present", async () => {
  const { stream, channel, pauses } = open();
  const listener = new Listener();
  await channel.subscribe(listener, undefined);
  add(stream, 2);
  await settle();
  add(stream, 0);
  stream.epoch = "e2";
  stream.events.length = 0;
  stream.add();
  stream.cut();
  await settle();
  pauses.at(-1)!.end();
  await settle();
  assertEquals([listener.told.at(-1), listener.offsets], [["reload", "too_old", 1], [1, 2]]);
  stream.add();
  await settle();
  assertEquals(listener.offsets, [1, 2, 2]);
  // In mid-stream too.
  stream.epoch = "e3";
  stream.add();
  await settle();
  assertEquals(listener.told.at(-1), ["reload", "new_epoch", 3]);
  channel.close();
});

Deno.test("a channel that is gone for good drops everybody and says why", async () => {
  const { stream, channel, pauses } = open();
  const listener = new Listener();
  await channel.subscribe(listener, undefined);
  stream.failure = new GatewayError("not_found", "no such document");
  stream.cut();
  await settle();
  pauses.at(-1)!.end();
  await settle();
  assertEquals([listener.told.at(-1), channel.size, channel.lanes], [["drop", "not_found"], 0, 0]);
  await assertRejects(() => channel.subscribe(new Listener(), undefined), GatewayError, "no such document");
  channel.close();
});

Deno.test("nothing is told while it is found out who may hear it, and who may not is dropped before", async () => {
  const world = open();
  const { stream, channel } = world;
  const [kept, dropped] = [new Listener(), new Listener()];
  for (const listener of [kept, dropped]) await channel.subscribe(listener, undefined);
  const gate = Promise.withResolvers<void>();
  world.recheck = gate.promise;
  world.refused.add(dropped);
  stream.add("document_updated", true);
  stream.add();
  await settle();
  assertEquals([kept.offsets, channel.accessVersion], [[], 1]);
  gate.resolve();
  await settle();
  assertEquals([kept.offsets, dropped.offsets, dropped.told.at(-1)], [[1, 2], [], [
    "drop",
    "permission_denied",
  ]]);
  channel.close();
});

Deno.test("only so many streams of a channel are open at once; others wait for one to join", async () => {
  const { stream, channel } = open(0);
  add(stream, 50);
  // Nothing is kept here, so that each comes from somewhere else; the service answers when it is let.
  const gates: (() => void)[] = [];
  const { open: openNow } = stream;
  let most = 0;
  stream.open = async (from, signal) => {
    await new Promise<void>((resolve) => gates.push(resolve));
    const opened = await openNow.call(stream, from, signal);
    return { position: opened.position, events: opened.events };
  };
  const listeners = Array.from({ length: 20 }, () => new Listener());
  const begun = listeners.map((listener, i) => channel.subscribe(listener, at(i)));
  for (let i = 0; i < 400; i++) {
    gates.shift()?.();
    await settle();
    most = Math.max(most, channel.lanes);
  }
  await Promise.all(begun);
  assert(most <= LANES_MAX, String(most));
  for (const [i, { offsets }] of listeners.entries()) {
    assertEquals(offsets, Array.from({ length: 50 - i }, (_, n) => i + n + 1));
  }
  channel.close();
  await settle();
  assertEquals(stream.open_, 0);
});

Deno.test("streams that begin anew at the same place are one again, and make room for others", async () => {
  const { stream, channel, pauses } = open(0);
  add(stream, 5);
  const listeners = [new Listener(), new Listener(), new Listener(), new Listener()];
  stream.failure = undefined;
  await channel.subscribe(listeners[0]!, undefined);
  // These come while the first stream is away, and are left behind when everything begins anew.
  stream.cut();
  await channel.subscribe(listeners[1]!, at(2));
  await channel.subscribe(listeners[2]!, at(1));
  stream.epoch = "e2";
  stream.events.length = 0;
  stream.cut();
  for (let i = 0; i < 10; i++) {
    await settle();
    for (const { end } of pauses.splice(0)) end();
  }
  assertEquals([channel.lanes, channel.size, stream.open_], [1, 3, 1]);
  await channel.subscribe(listeners[3]!, at(0, "e2"));
  stream.add();
  await settle();
  for (const { offsets } of listeners) assertEquals(offsets.at(-1), 1);
  channel.close();
});

Deno.test("who leaves while its stream is being opened leaves nothing open behind it", async () => {
  const { stream, channel } = open();
  add(stream, 5);
  await channel.subscribe(new Listener(), undefined);
  const gone = new Listener();
  const subscribing = channel.subscribe(gone, at(1));
  gone.isWanted = false;
  await subscribing;
  await settle();
  assertEquals([channel.lanes, stream.open_, gone.told], [1, 1, []]);
  channel.close();
  await settle();
  assertEquals(stream.open_, 0);
});
