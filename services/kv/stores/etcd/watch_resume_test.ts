import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { assertEquals } from "@std/assert";
import {
  ResponseHeaderSchema,
  type WatchCreateRequestSchema,
  type WatchRequest,
  WatchRequestSchema,
  type WatchResponse,
  WatchResponseSchema,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { EtcdError, GRPC } from "../../../../storage/etcd/mod.ts";
import type { StreamListener } from "./resuming.ts";
import { ResumingWatch, type WatchSource } from "./watch_resume.ts";

const LOST = new EtcdError(GRPC.UNAVAILABLE, "Connection dropped");
const DENIED = new EtcdError(7, "etcdserver: permission denied");
const key = new TextEncoder().encode("k");

/** One connection as the test plays it. */
class FakeConnection {
  readonly sent: WatchRequest[] = [];
  isPaused = false;
  isCanceled = false;

  constructor(readonly listener: StreamListener<WatchResponse>) {}

  send(request: WatchRequest) {
    this.sent.push(request);
  }
  pause() {
    this.isPaused = true;
  }
  resume() {
    this.isPaused = false;
  }
  cancel() {
    this.isCanceled = true;
  }

  /** What was asked, shortly. */
  asked(): string[] {
    return this.sent.splice(0).map(({ requestUnion: { case: kind, value } }) =>
      kind === "createRequest"
        ? `create ${value.watchId} from ${value.startRevision}`
        : kind === "cancelRequest"
        ? `cancel ${value.watchId}`
        : "progress"
    );
  }

  answer(answer: MessageInitShape<typeof WatchResponseSchema>, revision = 10n) {
    const header = create(ResponseHeaderSchema, { revision });
    this.listener.onAnswer(Object.assign(create(WatchResponseSchema, answer), { header }));
  }

  events(watchId: bigint, revisions: readonly number[], fragment = false) {
    this.answer({
      watchId,
      fragment,
      events: revisions.map((revision) => ({ kv: { key, modRevision: BigInt(revision) } })),
    });
  }
}

/** A watch on connections that the test hands out. */
class World {
  readonly connections: FakeConnection[] = [];
  readonly tries: number[] = [];
  readonly watch: ResumingWatch;

  constructor() {
    const source: WatchSource = {
      open: (listener, tries) => {
        this.tries.push(tries);
        const connection = new FakeConnection(listener);
        this.connections.push(connection);
        return Promise.resolve(connection);
      },
      mayResume: (error) => error === undefined || error.code === GRPC.UNAVAILABLE,
    };
    this.watch = new ResumingWatch(source, () => {});
  }

  /** The newest connection, once it is open. */
  async connection(): Promise<FakeConnection> {
    await new Promise((resolve) => setTimeout(resolve, 0));
    return this.connections.at(-1)!;
  }

  create(value: MessageInitShape<typeof WatchCreateRequestSchema> = {}) {
    this.watch.request(
      create(WatchRequestSchema, { requestUnion: { case: "createRequest", value: { key, ...value } } }),
    );
  }

  /** The answers so far, shortly. */
  answers(): string[] {
    const texts: string[] = [];
    for (let answer = this.watch.take(); answer !== undefined; answer = this.watch.take()) {
      texts.push(describe(answer));
    }
    return texts;
  }
}

function describe(answer: WatchResponse): string {
  const what = [
    answer.created ? "created" : "",
    answer.canceled ? `canceled ${answer.compactRevision} ${answer.cancelReason}`.trim() : "",
    answer.events.map((event) => event.kv!.modRevision).join(","),
    answer.fragment ? "…" : "",
  ].filter((part) => part !== "");
  return `${answer.watchId}: ${what.join(" ") || "progress"}`;
}

Deno.test("ResumingWatch gives ids as etcd does and keeps them over a lost connection", async () => {
  const world = new World();
  world.create();
  world.create({ watchId: 7n, startRevision: 3n });
  world.create();
  const first = await world.connection();
  assertEquals(first.asked(), ["create 1 from 0"], "one at a time");
  first.answer({ watchId: 1n, created: true }, 10n);
  first.answer({ watchId: 2n, created: true }, 10n);
  first.answer({ watchId: 3n, created: true }, 12n);
  assertEquals(first.asked(), ["create 2 from 3", "create 3 from 0"]);
  first.events(1n, [11]);
  first.events(2n, [4, 5]);
  assertEquals(world.answers(), ["0: created", "7: created", "1: created", "0: 11", "7: 4,5"]);

  first.listener.onEnd(LOST);
  const second = await world.connection();
  assertEquals(second.asked(), ["create 4 from 12", "create 5 from 6", "create 6 from 13"]);
  for (const watchId of [4n, 5n, 6n]) second.answer({ watchId, created: true }, 20n);
  second.events(6n, [14]);
  second.events(4n, [14, 15]);
  assertEquals(world.answers(), ["1: 14", "0: 14,15"], "that they were created again is nobody's business");
  assertEquals(world.tries, [0, 0]);
});

Deno.test("ResumingWatch goes on within a revision that was delivered in part", async () => {
  const world = new World();
  world.create({ fragment: true, startRevision: 5n });
  const first = await world.connection();
  first.answer({ watchId: 1n, created: true });
  first.events(1n, [5, 6, 6], true);
  first.events(1n, [6], true);
  first.listener.onEnd(LOST);
  const second = await world.connection();
  assertEquals(second.asked(), ["create 2 from 6"]);
  second.answer({ watchId: 2n, created: true });
  second.events(2n, [6, 6], true);
  second.events(2n, [6, 6, 6], true);
  second.events(2n, [6, 7]);
  assertEquals(world.answers(), ["0: created", "0: 5,6,6 …", "0: 6 …", "0: 6,6 …", "0: 6,7"]);
});

Deno.test("ResumingWatch asks again for what waited for its answer when the connection was lost", async () => {
  const world = new World();
  world.create();
  const first = await world.connection();
  first.listener.onEnd(LOST);
  world.create({ startRevision: 9n });
  const second = await world.connection();
  assertEquals(second.asked(), ["create 2 from 0"]);
  second.answer({ watchId: 2n, created: true });
  assertEquals(second.asked(), ["create 3 from 9"]);
  assertEquals(world.answers(), ["0: created"]);
  assertEquals(world.tries, [0, 1], "a connection that said nothing counts as failed");
});

Deno.test("ResumingWatch tells the client when history was compacted away meanwhile, and no other watcher is hurt", async () => {
  const world = new World();
  world.create();
  world.create();
  const first = await world.connection();
  first.answer({ watchId: 1n, created: true });
  first.answer({ watchId: 2n, created: true });
  first.listener.onEnd(LOST);
  const second = await world.connection();
  second.answer({ watchId: 3n, created: true });
  second.answer({ watchId: 4n, created: true });
  second.answer({ watchId: 3n, canceled: true, compactRevision: 30n });
  second.events(4n, [31]);
  assertEquals(world.answers().slice(2), ["0: canceled 30", "1: 31"]);
});

Deno.test("ResumingWatch passes a refusal on: at creation, for a taken id, and when a watcher may not come back", async () => {
  const world = new World();
  world.create();
  world.create({ watchId: 0n });
  world.create({ watchId: 1n });
  const first = await world.connection();
  first.answer({ watchId: -1n, created: true, canceled: true, cancelReason: "denied" });
  first.answer({ watchId: 2n, created: true });
  assertEquals(first.asked(), ["create 1 from 0", "create 2 from 0", "create 3 from 0"]);
  first.answer({ watchId: 3n, created: true });
  world.create({ watchId: 1n });
  assertEquals(first.asked(), ["create 3 from 0"], "etcd itself says that the id is taken");
  first.answer({ watchId: -1n, created: true, canceled: true, cancelReason: "duplicate" });
  first.listener.onEnd(LOST);
  const second = await world.connection();
  second.answer({ watchId: -1n, created: true, canceled: true, cancelReason: "denied now" });
  second.answer({ watchId: 5n, created: true });
  assertEquals(world.answers(), [
    "-1: created canceled 0 denied",
    "0: created",
    "1: created",
    "-1: created canceled 0 duplicate",
    "0: canceled 0 denied now",
  ]);
});

Deno.test("ResumingWatch does not begin a watcher again whose cancel was not confirmed", async () => {
  const world = new World();
  world.create();
  const first = await world.connection();
  first.answer({ watchId: 1n, created: true });
  world.watch.cancel(0n);
  world.watch.cancel(5n); // nobody's
  assertEquals(first.asked().slice(1), ["cancel 1"]);
  first.listener.onEnd(LOST);
  const second = await world.connection();
  assertEquals(second.asked(), []);
  assertEquals(world.answers(), ["0: created", "0: canceled 0"]);
});

Deno.test("ResumingWatch takes progress as the place to go on from and shows it to who asked for it", async () => {
  const world = new World();
  world.create();
  world.create({ progressNotify: true });
  const first = await world.connection();
  first.answer({ watchId: 1n, created: true }, 10n);
  first.answer({ watchId: 2n, created: true }, 10n);
  first.answer({ watchId: 1n }, 50n);
  first.answer({ watchId: 2n }, 50n);
  first.answer({ watchId: -1n }, 60n);
  first.listener.onEnd(undefined);
  const second = await world.connection();
  assertEquals(second.asked(), ["create 3 from 51", "create 4 from 51"]);
  assertEquals(world.answers(), ["0: created", "1: created", "1: progress", "-1: progress"]);
});

Deno.test("ResumingWatch makes the connection pause while nobody takes answers", async () => {
  const world = new World();
  world.create({ startRevision: 1n });
  const connection = await world.connection();
  connection.answer({ watchId: 1n, created: true });
  for (let revision = 1; revision <= 100; revision++) connection.events(1n, [revision]);
  assertEquals(connection.isPaused, true);
  assertEquals(world.answers().length, 101);
  assertEquals(connection.isPaused, false);
});

Deno.test("ResumingWatch ends with an error that does not pass, and with its client", async () => {
  const refused = new World();
  refused.create();
  (await refused.connection()).listener.onEnd(DENIED);
  assertEquals([refused.watch.isClosed, refused.watch.failure], [true, DENIED]);

  const left = new World();
  left.create();
  const connection = await left.connection();
  left.watch.close();
  assertEquals([left.watch.isClosed, left.watch.failure, connection.isCanceled], [true, undefined, true]);
});
