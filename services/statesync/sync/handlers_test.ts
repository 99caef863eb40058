/** The call between gateways and the service, spoken message by message, on documents of the service itself. */
import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { assert, assertEquals } from "@std/assert";
import * as Y from "yjs";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import {
  type ChannelInput,
  type ChannelOutput,
  type LinkRequest,
  LinkRequestSchema,
  type LinkResponse,
} from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { DEVELOPER } from "../../runtime/principal.ts";
import { openSyncWorld, type SyncWorld } from "../../../tests/support/sync_world.ts";

const NOTHING = Uint8Array.of(0, 0);

type Output = ChannelOutput["output"];

/** A gateway's side of a call. */
class Gateway {
  readonly outputs: ChannelOutput[] = [];
  readonly documents: LinkResponse["documents"] = [];
  readonly #waiting: LinkRequest[] = [];
  #wake: (() => void) | undefined;
  #look: (() => void) | undefined;
  #isOver = false;
  readonly #reading: Promise<void>;

  constructor(world: SyncWorld) {
    const call = world.sync.handlers.link(this.#requests(), undefined as never) as AsyncIterable<
      LinkResponse
    >;
    this.#reading = this.#read(call);
  }

  say(request: { inputs?: [channel: number, input: ChannelInput["input"]][]; ready?: number[] }): void {
    const inputs = (request.inputs ?? []).map(([channel, input]) => ({
      $typeName: "aetherflow.statesync.v1.ChannelInput" as const,
      channel,
      input,
    }));
    this.#waiting.push(create(LinkRequestSchema, { inputs, ready: request.ready ?? [] }));
    this.#wake?.();
  }

  open(channel: number, docId: string, principal: Principal = DEVELOPER, createType = "text"): void {
    this.say({
      inputs: [[channel, {
        case: "open",
        value: { $typeName: "aetherflow.statesync.v1.OpenChannel", docId, principal, createType },
      }]],
    });
  }

  ask(channel: number): void {
    this.say({ inputs: [[channel, { case: "stateVector", value: Uint8Array.of(0) }]] });
  }

  update(channel: number, number: number, update: Uint8Array): void {
    this.say({
      inputs: [[channel, {
        case: "update",
        value: {
          $typeName: "aetherflow.statesync.v1.ClientUpdate",
          number,
          update: update as Uint8Array<ArrayBuffer>,
        },
      }]],
    });
  }

  /** The first output of a channel that is `is`, of those that came and come. */
  async output<C extends Output["case"]>(
    channel: number,
    is: C,
  ): Promise<Extract<Output, { case: C }>["value"]> {
    for (;;) {
      const found = this.outputs.find((output) => output.channel === channel && output.output.case === is);
      if (found !== undefined) return found.output.value as never;
      await new Promise<void>((resolve) => this.#look = resolve);
    }
  }

  /** Resolves when documents have been told of so often. */
  async told(count: number): Promise<void> {
    while (this.documents.length < count) await new Promise<void>((resolve) => this.#look = resolve);
  }

  async close(): Promise<void> {
    this.#isOver = true;
    this.#wake?.();
    await this.#reading;
  }

  async *#requests(): AsyncGenerator<LinkRequest> {
    while (!this.#isOver) {
      const next = this.#waiting.shift();
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  async #read(call: AsyncIterable<LinkResponse>): Promise<void> {
    for await (const { outputs, documents } of call) {
      this.outputs.push(...outputs);
      this.documents.push(...documents);
      this.#look?.();
    }
  }
}

/** Edits of one text, each an update of its own. */
function edits(count: number): Uint8Array[] {
  const doc = new Y.Doc();
  const made: Uint8Array[] = [];
  doc.on("update", (update: Uint8Array) => made.push(update));
  for (let i = 0; i < count; i++) doc.getText("content").insert(i, "x");
  doc.destroy();
  return made;
}

function textOf(...updates: readonly Uint8Array[]): string {
  const doc = new Y.Doc();
  for (const update of updates) Y.applyUpdate(doc, update);
  const text = doc.getText("content").toString();
  doc.destroy();
  return text;
}

Deno.test("what a channel says at once is taken in its order, saved, and given to all of the document", async () => {
  await using world = openSyncWorld();
  const gateway = new Gateway(world);
  gateway.open(1, "d");
  // Before it is open.
  edits(3).forEach((edit, i) => gateway.update(1, i + 1, edit));
  gateway.ask(1);
  assertEquals((await gateway.output(1, "opened")).access, "manage");
  await gateway.output(1, "answer");
  await gateway.output(1, "saved");
  await gateway.told(1);
  gateway.say({ ready: [1] });
  gateway.open(2, "d");
  gateway.ask(2);
  assertEquals(textOf((await gateway.output(2, "answer")).update), "xxx");
  assertEquals((await gateway.output(2, "opened")).document, (await gateway.output(1, "opened")).document);
  assertEquals(world.sync.figures(), { links: 1, channels: 2 });
  await gateway.close();
  assertEquals(world.sync.figures(), { links: 0, channels: 0 });
  assertEquals(world.errors, []);
});

Deno.test("numbers are saved up to a refusal and behind it, and what was refused is asked for", async () => {
  await using world = openSyncWorld();
  const gateway = new Gateway(world);
  gateway.open(1, "d");
  const [first, , third] = edits(3) as [Uint8Array, Uint8Array, Uint8Array];
  gateway.update(1, 1, first);
  gateway.update(1, 2, third);
  gateway.update(1, 3, NOTHING);
  const refused = await gateway.output(1, "refused");
  assertEquals([refused.number, refused.code], [2, Code.Aborted]);
  await gateway.output(1, "ask");
  while (!gateway.outputs.some(({ output }) => output.case === "saved" && output.value === 3)) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  await gateway.close();
});

Deno.test("who may not, is hostile, or asks for nonsense is closed with the reason's code; others go on", async () => {
  await using world = openSyncWorld();
  const gateway = new Gateway(world);
  gateway.open(1, "d");
  const eve = create(PrincipalSchema, { kind: Principal_Kind.USER, userId: "eve", roles: ["member"] });
  await gateway.output(1, "opened");
  gateway.open(2, "d", eve);
  gateway.open(3, "none", DEVELOPER, "");
  gateway.open(4, "d", DEVELOPER, "poem");
  gateway.open(5, "d");
  gateway.update(5, 1, Uint8Array.of(1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0, 0));
  gateway.open(6, "d");
  gateway.say({ inputs: [[6, { case: "stateVector", value: Uint8Array.of(9, 9) }]] });
  gateway.open(7, "\0");
  const codes = [];
  for (const channel of [2, 3, 4, 5, 6, 7]) codes.push((await gateway.output(channel, "closed")).code);
  const { NotFound, InvalidArgument } = Code;
  assertEquals(codes, [
    NotFound,
    NotFound,
    InvalidArgument,
    InvalidArgument,
    InvalidArgument,
    InvalidArgument,
  ]);
  gateway.update(1, 1, edits(1)[0]!);
  assertEquals(await gateway.output(1, "saved"), 1);
  assertEquals(world.sync.figures().channels, 1);
  await gateway.close();
});

Deno.test("a document's number is free again when the last channel is closed, and not before", async () => {
  await using world = openSyncWorld();
  const gateway = new Gateway(world);
  const numberOf = async (channel: number, docId: string) => {
    gateway.open(channel, docId);
    return (await gateway.output(channel, "opened")).document;
  };
  const close = (channel: number) => gateway.say({ inputs: [[channel, { case: "close", value: true }]] });
  assertEquals([await numberOf(1, "a"), await numberOf(2, "a"), await numberOf(3, "b")], [1, 1, 2]);
  close(1);
  assertEquals(await numberOf(4, "c"), 3);
  close(2);
  assertEquals(await numberOf(5, "d"), 1);
  await gateway.close();
});

Deno.test("presence goes to other links, which are told when it is wanted", async () => {
  await using world = openSyncWorld();
  const [here, there] = [new Gateway(world), new Gateway(world)];
  here.open(1, "d");
  await here.output(1, "opened");
  there.open(1, "d");
  await there.output(1, "opened");
  await here.told(1);
  assertEquals(here.documents[0]!.wantsPresence, true);
  await there.close();
  await here.told(2);
  assertEquals(here.documents[1]!.wantsPresence, false);
  await here.close();
  assert(world.errors.length === 0);
});
