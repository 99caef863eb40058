/** Hocuspocus's protocol, frame by frame: what is told as saved, who is let in, what is refused. */
import { assert, assertEquals } from "@std/assert";
import * as Y from "yjs";
import { type BareSocket, chunk, openBareSocket, textUpdate } from "../../../tests/support/sync_socket.ts";
import { openSyncWorld, type SyncWorld } from "../../../tests/support/sync_world.ts";
import { DEVELOPER_CALLER } from "../auth/identity.ts";
import { encodePrincipal } from "../../runtime/principal.ts";
import { invalidCredential } from "../auth/failure.ts";
import type { Caller } from "../stages.ts";
import { type Principal, Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { create } from "@bufbuild/protobuf";

const PATH = "/api/v1/sync?create=text";
const EMPTY_VECTOR = Uint8Array.of(0);
const NOTHING_NEW = Uint8Array.of(0, 0);
const bytesOf = (text: string) => new TextEncoder().encode(text);

/** A document on a socket, spoken for frame by frame. */
class Speaker {
  readonly name: Uint8Array;

  constructor(readonly client: BareSocket, name: string) {
    this.name = chunk(bytesOf(name));
  }

  say(...bytes: (number | Uint8Array)[]): void {
    this.client.send(this.name, ...bytes);
  }

  login(token = ""): void {
    this.say(2, 0, chunk(bytesOf(token)), chunk(bytesOf("4.8.0")));
  }

  /** Contents of the messages of a type so far. */
  heard(type: number): Uint8Array[] {
    return this.client.messages.filter((message) => this.#isMine(message))
      .map((message) => message.subarray(this.name.length)).filter(([first]) => first === type)
      .map((message) => message.subarray(1));
  }

  /** Resolves when `count` messages of a type have come. */
  async hears(type: number, count: number): Promise<Uint8Array[]> {
    await this.client.message(() => this.heard(type).length >= count);
    return this.heard(type);
  }

  /** SyncStatus so far, as text: `1` saved, `0` not. */
  get statuses(): string {
    return this.heard(8).map(([status]) => status).join("");
  }

  #isMine(message: Uint8Array): boolean {
    return this.name.every((byte, i) => message[i] === byte);
  }
}

async function open(world: SyncWorld, name: string): Promise<Speaker & Disposable> {
  const client = await openBareSocket(world.url, PATH);
  return Object.assign(new Speaker(client, name), { [Symbol.dispose]: () => client[Symbol.dispose]() });
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

Deno.test("a client is told saved once for its answer and once for each edit, when they are kept", async () => {
  await using world = openSyncWorld();
  using client = await open(world, "d");
  client.login();
  client.say(0, 0, chunk(EMPTY_VECTOR));
  const [, answer] = await client.hears(0, 2);
  assertEquals(client.heard(2), [Uint8Array.of(2, ...chunk(bytesOf("read-write")))]);
  assertEquals([client.statuses, answer![0]], ["", 1]);
  const release = world.holdCommits();
  for (const edit of edits(3)) client.say(0, 2, chunk(edit));
  client.say(0, 1, chunk(NOTHING_NEW));
  await client.hears(8, 1);
  // Answered behind the edits, which are not kept: the one status is the answer's.
  client.client.send(9);
  await client.client.message((message) => message.length === 1);
  assertEquals(client.statuses, "1");
  release();
  await client.hears(8, 4);
  assertEquals(client.statuses, "1111");
  assertEquals(world.errors, []);
});

Deno.test("what a client counts anew when it asks again is not told twice", async () => {
  await using world = openSyncWorld();
  using client = await open(world, "d");
  client.login();
  client.say(0, 0, chunk(EMPTY_VECTOR));
  await client.hears(0, 2);
  client.say(0, 1, chunk(NOTHING_NEW));
  await client.hears(8, 1);
  // Two edits under way, and then a question: its count is 1 again.
  const release = world.holdCommits();
  const [first, second] = edits(2) as [Uint8Array, Uint8Array];
  client.say(0, 2, chunk(first));
  client.say(0, 2, chunk(second));
  client.say(0, 0, chunk(EMPTY_VECTOR));
  client.say(0, 1, chunk(NOTHING_NEW));
  await client.hears(8, 2);
  release();
  // What is kept goes out, and of what follows it is told.
  await client.client.message(() => client.heard(0).some(([kind]) => kind === 2));
  client.say(0, 2, chunk(textUpdate("more").update));
  await client.hears(8, 3);
  assertEquals(client.statuses, "111");
});

Deno.test("an edit that builds on what is not there is refused, asked for, and told as saved with the answer", async () => {
  await using world = openSyncWorld();
  using client = await open(world, "d");
  client.login();
  client.say(0, 0, chunk(EMPTY_VECTOR));
  await client.hears(0, 2);
  client.say(0, 1, chunk(NOTHING_NEW));
  await client.hears(8, 1);
  const [first, second] = edits(2) as [Uint8Array, Uint8Array];
  client.say(0, 2, chunk(second));
  await client.hears(8, 2);
  assertEquals(client.statuses, "10");
  await client.client.message(() => client.heard(0).filter(([kind]) => kind === 0).length === 2);
  client.say(0, 1, chunk(Y.mergeUpdates([first, second])));
  await client.hears(8, 3);
  assertEquals(client.statuses, "101");
});

Deno.test("a hostile update ends the socket, and nothing behind it is taken", async () => {
  await using world = openSyncWorld();
  using client = await open(world, "d");
  using other = await open(world, "d");
  for (const each of [client, other]) {
    each.login();
    each.say(0, 0, chunk(EMPTY_VECTOR));
    await each.hears(0, 2);
  }
  client.say(0, 2, chunk(Uint8Array.of(1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0, 0)));
  client.say(0, 2, chunk(textUpdate("late").update));
  assertEquals((await client.client.closed).code, 4400);
  other.say(0, 2, chunk(textUpdate("fine").update));
  const heard = await other.hears(0, 3);
  const doc = new Y.Doc();
  Y.applyUpdate(doc, heard[2]!.subarray(2));
  assertEquals(doc.getText("content").toString(), "fine");
  doc.destroy();
});

Deno.test("tokens are each document's own, and another one may take the first one's place", async () => {
  const people: Record<string, Caller> = { ada: callerOf("ada"), bob: callerOf("bob") };
  await using world = openSyncWorld({
    authenticate(token) {
      const caller = people[token];
      if (caller === undefined) throw invalidCredential("the token is none");
      return caller;
    },
  });
  using ada = await open(world, "ada's");
  ada.login("nobody");
  ada.say(0, 0, chunk(EMPTY_VECTOR));
  const [denied] = await ada.hears(2, 1);
  assertEquals(denied, Uint8Array.of(1, ...chunk(bytesOf("the token is none"))));
  ada.say(0, 2, chunk(textUpdate("unheard").update));
  ada.login("ada");
  ada.say(0, 0, chunk(EMPTY_VECTOR));
  const [, answer] = await ada.hears(0, 2);
  assertEquals(answer, Uint8Array.of(1, ...chunk(NOTHING_NEW)));
  // Bob may not read what is ada's.
  const bob = new Speaker(ada.client, "ada's\0bob");
  bob.login("bob");
  bob.say(0, 0, chunk(EMPTY_VECTOR));
  assertEquals((await bob.hears(2, 1))[0]![0], 1);
  // Nor does ada's place stay hers when his token takes it.
  ada.login("bob");
  await ada.hears(2, 3);
  assertEquals(ada.heard(2).map(([kind]) => kind), [1, 2, 1]);
  ada.say(0, 2, chunk(textUpdate("unheard").update));
  using again = await open(world, "ada's");
  again.login("ada");
  again.say(0, 0, chunk(EMPTY_VECTOR));
  assertEquals((await again.hears(0, 2))[1], Uint8Array.of(1, ...chunk(NOTHING_NEW)));
});

Deno.test("a document is closed by itself, messages for nobody are refused in words, pings are answered", async () => {
  await using world = openSyncWorld();
  using one = await open(world, "one");
  const two = new Speaker(one.client, "two");
  for (const each of [one, two]) {
    each.login();
    each.say(0, 0, chunk(EMPTY_VECTOR));
    await each.hears(0, 2);
  }
  assertEquals(world.sync.figures().channels, 2);
  one.say(7);
  two.say(5, chunk(bytesOf("hello")));
  const [refusal] = await two.hears(5, 1);
  assertEquals(JSON.parse(new TextDecoder().decode(refusal!.subarray(1))).code, "unimplemented");
  two.client.send(9);
  await two.client.message((message) => message.length === 1 && message[0] === 10);
  two.client.send(10);
  assertEquals(world.sync.figures().channels, 1);
  two.say(3);
  two.say(1, chunk(Uint8Array.of(1, 7, 1, 2, 0x7b, 0x7d)));
  await two.hears(1, 1);
  two.say(6, chunk(bytesOf("internal")));
  assertEquals((await two.client.closed).code, 4400);
});

Deno.test("a socket has only so many documents, and only so much of one that has no token", async () => {
  await using world = openSyncWorld({ sync: { maxDocumentsPerSocket: 2, maxMessageBytes: 1_024 } });
  using many = await open(world, "d");
  for (const name of ["a", "b", "c"]) new Speaker(many.client, name).say(0, 0, chunk(EMPTY_VECTOR));
  assertEquals((await many.client.closed).code, 4529);
  using early = await open(world, "d");
  for (let i = 0; i < 3; i++) early.say(0, 2, chunk(new Uint8Array(500)));
  assertEquals((await early.client.closed).code, 4529);
  using unnamed = await open(world, "");
  unnamed.login();
  assertEquals((await unnamed.client.closed).code, 4400);
  assert(world.errors.length === 0);
});

Deno.test("what is sent after a revocation is not taken, and what was sent before is, though its client has gone", async () => {
  let revoked = false;
  let asked = Promise.withResolvers<void>();
  let answer = Promise.withResolvers<void>();
  await using world = openSyncWorld({
    async confirm() {
      asked.resolve();
      await answer.promise;
      if (revoked) throw invalidCredential("the session has ended");
    },
  });
  const textNow = async () => {
    using reader = await open(world, "d");
    reader.login();
    reader.say(0, 0, chunk(EMPTY_VECTOR));
    await reader.hears(0, 2);
    const doc = new Y.Doc();
    Y.applyUpdate(doc, reader.heard(0).find(([kind]) => kind === 1)!.subarray(2));
    const text = doc.getText("content").toString();
    doc.destroy();
    return text;
  };
  const client = await open(world, "d");
  client.login();
  client.say(0, 0, chunk(EMPTY_VECTOR));
  await client.hears(0, 2);
  client.say(0, 2, chunk(textUpdate("before").update));
  await asked.promise;
  client[Symbol.dispose]();
  await client.client.closed;
  answer.resolve();
  while (await textNow() !== "before");

  using late = await open(world, "d");
  late.login();
  late.say(0, 0, chunk(EMPTY_VECTOR));
  await late.hears(0, 2);
  revoked = true;
  [asked, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  answer.resolve();
  late.say(0, 2, chunk(textUpdate("after").update));
  await late.hears(7, 1);
  assertEquals([late.statuses, await textNow()], ["", "before"]);
});

function callerOf(username: string): Caller {
  const principal: Principal = create(PrincipalSchema, {
    kind: Principal_Kind.USER,
    userId: username,
    username,
    roles: ["member"],
  });
  return { ...DEVELOPER_CALLER, principal, encoded: encodePrincipal(principal), credential: "access_token" };
}
