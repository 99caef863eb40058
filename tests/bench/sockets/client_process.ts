/** The clients of the benches, in a process of their own. */
import * as encoding from "lib0/encoding";
import * as Y from "yjs";
import { quantile } from "../transport/ask.ts";
import { createDialect } from "./dialect.ts";
import { type FrameSocket, openFrameSocket } from "./frame_socket.ts";
import { type DocumentPlace, type LightClient, openLightClient } from "./light_client.ts";
import { answerLines } from "./process.ts";
import { type Edit, updatesOf } from "./trace.ts";

/** What the process is asked. */
export type ClientMessage =
  /** Opens so many observers of a document, beside those there are. */
  | { readonly do: "observe"; readonly place: DocumentPlace; readonly count: number }
  /** One writer edits at a rate; waits until every observer has everything. */
  | {
    readonly do: "write";
    readonly place: DocumentPlace;
    readonly perSecond: number;
    readonly updates: number;
  }
  /** Every observer tells its presence once a second, each at its own time. */
  | { readonly do: "presence"; readonly seconds: number }
  /** The document is edited once, then so many come at once; waits until each has a document of about `bytes`. */
  | { readonly do: "join"; readonly place: DocumentPlace; readonly count: number; readonly bytes: number }
  /** Builds a document with so many bytes of content through a socket, a part at a time. */
  | { readonly do: "fill"; readonly place: DocumentPlace; readonly bytes: number }
  /** Writers on documents of their own, each at a rate; how long until each edit is reported as saved. */
  | {
    readonly do: "save";
    readonly places: readonly DocumentPlace[];
    readonly perSecond: number;
    readonly seconds: number;
  }
  /** Sends a trace's edits, so many unacknowledged at a time; then reads the text with a client of its own. */
  | {
    readonly do: "replay";
    readonly place: DocumentPlace;
    readonly edits: readonly Edit[];
    readonly inFlight: number;
  }
  /** Opens so many sockets and leaves them alone. */
  | { readonly do: "idle"; readonly url: string; readonly count: number }
  | { readonly do: "drop" };

/** What became of things that were sent. */
export interface Delivery {
  readonly sent: number;
  /** Things that some observer never got, counted once for each. */
  readonly undelivered: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
  /** WebSocket messages that came. */
  readonly messages: number;
  readonly elapsedMs: number;
}

const OPEN_AT_ONCE = 50;
const DELIVERY_DEADLINE_MS = 10_000;
/** Characters of each edit: about 57 bytes of update, as in y/hub's benchmarks. */
const EDIT_CHARS = 34;
/** Bytes of content written at once to fill a document. */
const FILL_BYTES = 16 * 1_024;
const IDLE_BUFFER_BYTES = 256;
/** The same document is encoded a little larger or smaller by how its edits came together. */
const WHOLE_SHARE = 0.95;

const observers: Observer[] = [];
const idle: FrameSocket[] = [];
let times: number[] = [];
/** When each edit of the writer was sent. */
let sentMs: Float64Array = new Float64Array(0);
let writer = 0;
/** When each user's presence was sent, by its clock. */
const presenceSentMs = new Map<number, Map<number, number>>();

interface Observer {
  readonly client: LightClient;
  readonly user: number;
}

await answerLines<ClientMessage>((message) => {
  switch (message.do) {
    case "observe":
      return observe(message.place, message.count);
    case "write":
      return write(message.place, message.perSecond, message.updates);
    case "presence":
      return tellPresence(message.seconds);
    case "join":
      return join(message.place, message.count, message.bytes);
    case "fill":
      return fill(message.place, message.bytes);
    case "save":
      return save(message.places, message.perSecond, message.seconds);
    case "replay":
      return replay(message.place, message.edits, message.inFlight);
    case "idle":
      return openIdle(message.url, message.count);
    case "drop":
      return drop();
  }
});

// ---- one writer, many observers ----

async function observe(place: DocumentPlace, count: number): Promise<number> {
  await inParallel(count, OPEN_AT_ONCE, async () => {
    const user = crypto.getRandomValues(new Uint32Array(1))[0]!;
    const client = await openLightClient(place, {
      onEdits: (from, start, end) => {
        if (from !== writer) return;
        const nowMs = performance.now();
        for (let i = start / EDIT_CHARS; i < end / EDIT_CHARS; i++) times.push(nowMs - sentMs[i]!);
      },
      onPresence: (from, clock) => {
        const sent = presenceSentMs.get(from)?.get(clock);
        if (sent !== undefined) times.push(performance.now() - sent);
      },
    });
    observers.push({ client, user });
  });
  return observers.length;
}

async function write(place: DocumentPlace, perSecond: number, updates: number): Promise<Delivery> {
  const doc = new Y.Doc({ gc: false });
  const text = doc.getText("content");
  const made: Uint8Array[] = [];
  doc.on("update", (update: Uint8Array) => made.push(update));
  for (let i = 0; i < updates; i++) text.insert(text.length, String(i).padStart(EDIT_CHARS, "."));
  const client = await openLightClient(place);
  sentMs = new Float64Array(updates);
  writer = doc.clientID;
  return await deliver(updates, perSecond, (i) => {
    sentMs[i] = performance.now();
    client.socket.send(client.dialect.update(made[i]!));
  }, () => {
    const end = updates * EDIT_CHARS;
    return sum(observers, ({ client }) => (end - (client.clocks.get(doc.clientID) ?? 0)) / EDIT_CHARS);
  }).finally(() => client.socket.drop());
}

// ---- presence ----

function tellPresence(seconds: number): Promise<Delivery> {
  const rounds = seconds;
  const base = Math.max(0, ...observers.map(({ client, user }) => client.presence.get(user) ?? 0));
  presenceSentMs.clear();
  for (const { user } of observers) presenceSentMs.set(user, new Map());
  const count = observers.length;
  return deliver(
    count * rounds,
    count,
    (i) => {
      const { client, user } = observers[i % count]!;
      const clock = base + 1 + Math.floor(i / count);
      presenceSentMs.get(user)!.set(clock, performance.now());
      client.socket.send(client.dialect.awareness(presenceOf(user, clock)));
    },
    () =>
      sum(observers, (seer) =>
        sum(
          observers,
          ({ user }) => user === seer.user || seer.client.presence.get(user) === base + rounds ? 0 : 1,
        )),
  );
}

/** A user's name, colour and cursor, about as editors send them. */
function presenceOf(user: number, clock: number): Uint8Array {
  const state = JSON.stringify({
    user: { name: `user-${user}`, color: "#30bced", colorLight: "#30bced33" },
    cursor: { anchor: { item: { client: user, clock } }, head: { item: { client: user, clock: clock + 7 } } },
  });
  return encoding.encode((encoder) => {
    encoding.writeVarUint(encoder, 1);
    encoding.writeVarUint(encoder, user);
    encoding.writeVarUint(encoder, clock);
    encoding.writeVarString(encoder, state);
  });
}

// ---- joining ----

async function fill(place: DocumentPlace, bytes: number): Promise<number> {
  const doc = new Y.Doc({ gc: false });
  const map = doc.getMap("objects");
  const made: Uint8Array[] = [];
  doc.on("update", (update: Uint8Array) => made.push(update));
  for (let total = 0, part = 0; total < bytes; total += made.at(-1)!.length, part++) {
    doc.transact(() => {
      for (let i = 0; i < FILL_BYTES / 64; i++) {
        map.set(`${part}-${i}/${i % 3 === 0 ? "kind" : "label"}`, `a note of an ordinary length, ${part}`);
      }
    });
  }
  let saved = 0;
  let wake = () => {};
  const client = await openLightClient(place, {
    onSaved() {
      saved++;
      wake();
    },
  });
  for (const [i, update] of made.entries()) {
    while (i - saved >= 32) await new Promise<void>((resolve) => wake = resolve);
    client.socket.send(client.dialect.update(update));
  }
  while (saved < made.length) await new Promise<void>((resolve) => wake = resolve);
  // It stays: a server that keeps documents in memory alone forgets those that nobody has open.
  observers.push({ client, user: 0 });
  return Y.encodeStateAsUpdate(doc).length;
}

/** What a server keeps encoded is a little old right after an edit. */
async function join(place: DocumentPlace, count: number, bytes: number): Promise<Delivery> {
  await writeOne(place);
  const startMs = performance.now();
  const joined: number[] = [];
  const clients: LightClient[] = [];
  await Promise.all(Array.from({ length: count }, async () => {
    clients.push(await openLightClient(place, {}, 64 * 1_024));
    joined.push(performance.now() - startMs);
  }));
  const elapsedMs = performance.now() - startMs;
  const deadlineMs = performance.now() + DELIVERY_DEADLINE_MS;
  const lacking = () => clients.filter(({ contentBytes }) => contentBytes < bytes * WHOLE_SHARE).length;
  while (lacking() > 0 && performance.now() < deadlineMs) await pause(1);
  const undelivered = lacking();
  for (const { socket } of clients) socket.drop();
  return summary(joined, count, undelivered, sum(clients, ({ socket }) => socket.messages), elapsedMs);
}

async function writeOne(place: DocumentPlace): Promise<void> {
  const doc = new Y.Doc();
  doc.getMap("objects").set("late/kind", "note");
  const saved = Promise.withResolvers<void>();
  const client = await openLightClient(place, { onSaved: () => saved.resolve() });
  client.socket.send(client.dialect.update(Y.encodeStateAsUpdate(doc)));
  await saved.promise;
  client.socket.drop();
}

// ---- saving ----

async function save(places: readonly DocumentPlace[], perSecond: number, seconds: number): Promise<Delivery> {
  times = [];
  const writers = await Promise.all(places.map(async (place) => {
    const doc = new Y.Doc();
    const waiting: number[] = [];
    const client = await openLightClient(place, {
      onSaved() {
        const sent = waiting.shift();
        if (sent !== undefined) times.push(performance.now() - sent);
      },
    });
    doc.on("update", (update: Uint8Array) => {
      waiting.push(performance.now());
      client.socket.send(client.dialect.update(update));
    });
    return { text: doc.getText("content"), waiting, client };
  }));
  times = [];
  const total = places.length * perSecond * seconds;
  const delivery = await deliver(total, places.length * perSecond, (i) => {
    const { text } = writers[i % writers.length]!;
    text.insert(text.length, "x");
  }, () => total - times.length);
  for (const { client } of writers) client.socket.drop();
  return delivery;
}

/** What replaying a trace came to. */
export interface Replay {
  readonly edits: number;
  readonly perSecond: number;
  readonly isEqual: boolean;
}

async function replay(place: DocumentPlace, edits: readonly Edit[], inFlight: number): Promise<Replay> {
  const { updates, text } = updatesOf(edits);
  let saved = 0;
  let wake = () => {};
  const client = await openLightClient(place, {
    onSaved() {
      saved++;
      wake();
    },
  });
  const startMs = performance.now();
  for (const [i, update] of updates.entries()) {
    while (i - saved >= inFlight) await new Promise<void>((resolve) => wake = resolve);
    client.socket.send(client.dialect.update(update));
  }
  while (saved < updates.length) await new Promise<void>((resolve) => wake = resolve);
  const elapsedMs = performance.now() - startMs;
  const isEqual = await readText(place) === text;
  client.socket.drop();
  return { edits: updates.length, perSecond: updates.length * 1_000 / elapsedMs, isEqual };
}

/** The text as a client that knows nothing gets it. */
async function readText({ dialect: name, url, docId }: DocumentPlace): Promise<string> {
  const dialect = createDialect(name === "bare" ? "y-websocket" : name, docId);
  const doc = new Y.Doc();
  const synced = Promise.withResolvers<void>();
  const socket = await openFrameSocket({
    url,
    onMessage(bytes) {
      const message = dialect.read(bytes);
      if (message.kind !== "step2" && message.kind !== "update") return;
      Y.applyUpdate(doc, message.update.slice());
      if (message.kind === "step2") synced.resolve();
    },
  });
  for (const message of dialect.hello(Y.encodeStateVector(doc))) socket.send(message);
  await synced.promise;
  socket.drop();
  return doc.getText("content").toString();
}

// ---- idle ----

async function openIdle(url: string, count: number): Promise<number> {
  await inParallel(count, OPEN_AT_ONCE, async () => {
    idle.push(await openFrameSocket({ url, onMessage() {}, bufferBytes: IDLE_BUFFER_BYTES }));
  });
  let ended = 0;
  for (const socket of idle) socket.ended.then(() => ended++);
  await pause(100);
  return idle.length - ended;
}

function drop(): void {
  for (const { client } of observers) client.socket.drop();
  for (const socket of idle) socket.drop();
  observers.length = idle.length = 0;
}

// ---- all of them ----

/** Does `total` things at a rate, then waits until nothing is lacking. */
async function deliver(
  total: number,
  perSecond: number,
  send: (i: number) => void,
  lacking: () => number,
): Promise<Delivery> {
  times = [];
  const before = sum(observers, ({ client }) => client.socket.messages);
  const startMs = performance.now();
  for (let sent = 0; sent < total;) {
    const due = Math.min(total, 1 + Math.floor((performance.now() - startMs) * perSecond / 1_000));
    for (; sent < due; sent++) send(sent);
    await pause(1);
  }
  const deadlineMs = performance.now() + DELIVERY_DEADLINE_MS;
  while (lacking() > 0 && performance.now() < deadlineMs) await pause(5);
  const elapsedMs = performance.now() - startMs;
  const messages = sum(observers, ({ client }) => client.socket.messages) - before;
  return summary(times, total, lacking(), messages, elapsedMs);
}

function summary(
  measured: readonly number[],
  sent: number,
  undelivered: number,
  messages: number,
  elapsedMs: number,
): Delivery {
  const sorted = Float64Array.from(measured).sort();
  return {
    sent,
    undelivered,
    p50Ms: quantile(sorted, 0.5),
    p95Ms: quantile(sorted, 0.95),
    p99Ms: quantile(sorted, 0.99),
    messages,
    elapsedMs,
  };
}

async function inParallel(count: number, width: number, open: () => Promise<void>): Promise<void> {
  let left = count;
  await Promise.all(Array.from({ length: Math.min(width, count) }, async () => {
    while (left-- > 0) await open();
  }));
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  let total = 0;
  for (const item of items) total += of(item);
  return total;
}
