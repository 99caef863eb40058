/** Recovery of the hub's channels: clients that are cut off at any point come back with what they saw last, to workers that
 *  restart, whose histories are short, and that follow services which restart, forget and begin anew. Each client must see
 *  every message once and in order, or be told to reload: never a silent gap. */
import { assert, assertEquals } from "@std/assert";
import {
  type Channel,
  LogChannel,
  type LossReason,
  type Subscribed,
  type Subscriber,
} from "../../services/gateway/hub/channel.ts";
import {
  FollowedChannel,
  type Source,
  type SourceEvent,
  type SourceStream,
} from "../../services/gateway/hub/followed_channel.ts";
import type { Position, Publication } from "../../services/gateway/hub/history.ts";
import { fromServiceError, GatewayError } from "../../services/gateway/problem.ts";
import { SimRandom } from "./random.ts";
import { simTest } from "./seeds.ts";

/** Reconnects of one seed; ten seeds by default, a thousand in a soak. */
const RECONNECTS = 1_000;
const CLIENTS = 8;
const STEPS_MAX = 200_000;

/** What a socket carries to a client. */
type Frame =
  | { readonly kind: "begin"; readonly subscribed: Subscribed }
  | { readonly kind: "message"; readonly epoch: string; readonly offset: number }
  | { readonly kind: "reload"; readonly position: Position };

/** The truth: which offsets there were, by epoch. */
class Truth {
  readonly #offsets = new Map<string, number[]>();

  add({ epoch, offset }: Position): void {
    const found = this.#offsets.get(epoch);
    if (found === undefined) this.#offsets.set(epoch, [offset]);
    else found.push(offset);
  }

  /** The first offset of an epoch behind `offset`. */
  after({ epoch, offset }: Position): number | undefined {
    const all = this.#offsets.get(epoch) ?? [];
    let low = 0;
    for (let high = all.length; low < high;) {
      const middle = (low + high) >> 1;
      if (all[middle]! > offset) high = middle;
      else low = middle + 1;
    }
    return all[low];
  }
}

/** A client: what it has seen, and a socket that may be cut at any point. */
class Client {
  /** Everything up to here is known to it: seen as messages, or by a reload. */
  seen: Position | undefined;
  socket: Socket | undefined;
  reconnects = 0;
  recoveries = 0;
  reloads = 0;

  /** Reads up to `count` frames. */
  read(count: number, truth: Truth): void {
    for (const frame of this.socket!.frames.splice(0, count)) this.#take(frame, truth);
  }

  #take(frame: Frame, truth: Truth): void {
    switch (frame.kind) {
      case "begin": {
        const { position, recovered, lost } = frame.subscribed;
        assert(!(recovered && lost !== undefined), "recovered and lost");
        if (recovered) {
          assert(this.seen !== undefined, "recovered from nothing");
          assertEquals(position.epoch, this.seen.epoch, "recovered in another epoch");
          this.recoveries++;
          return; // what was missed follows, and is checked as it comes
        }
        assert(this.seen === undefined || lost !== undefined, "not recovered, and not told so");
        this.reloads++;
        this.seen = position;
        return;
      }
      case "reload":
        this.reloads++;
        this.seen = frame.position;
        return;
      case "message": {
        const seen = this.seen!;
        assertEquals(frame.epoch, seen.epoch, "a message of another epoch without a word");
        assertEquals(frame.offset, truth.after(seen), `behind ${seen.offset} in ${seen.epoch}`);
        this.seen = { epoch: frame.epoch, offset: frame.offset };
      }
    }
  }
}

/** A connection of a client, as a channel sees it. */
class Socket implements Subscriber {
  cursor = 0;
  isWanted = true;
  isDropped = false;
  readonly frames: Frame[] = [];

  begin(subscribed: Subscribed): void {
    this.frames.push({ kind: "begin", subscribed });
    for (const { offset } of subscribed.missed) this.#push(offset, subscribed.position.epoch);
  }
  deliver({ offset }: Publication, epoch: string): void {
    this.#push(offset, epoch);
  }
  reload(_reason: LossReason, position: Position): void {
    this.frames.push({ kind: "reload", position });
  }
  drop(): void {
    this.isDropped = true;
  }
  #push(offset: number, epoch: string): void {
    this.frames.push({ kind: "message", epoch, offset });
  }
}

/** A service with a log that it keeps through restarts, forgets from the front, and rarely begins anew. Offsets have holes where
 *  `sparse`: those of others. */
class Service implements Source {
  epoch = "e1";
  newest = 0;
  kept = 0;
  isUp = true;
  readonly #log: SourceEvent[] = [];
  readonly #wakes = new Set<() => void>();
  #generation = 0;

  constructor(readonly random: SimRandom, readonly truth: Truth, readonly sparse: boolean) {}

  publish(): void {
    this.newest += this.sparse ? 1 + this.random.below(3) : 1;
    const event = { epoch: this.epoch, offset: this.newest, event: "e", data: "{}", changesAccess: false };
    this.truth.add(event);
    this.#log.push(event);
    this.#wake();
  }

  forget(): void {
    const count = this.random.below(this.#log.length + 1);
    const gone = this.#log.splice(0, count).at(-1);
    if (gone !== undefined) this.kept = gone.offset;
    this.#generation += this.random.chance(0.5) ? 1 : 0; // streams far behind end with it
    this.#wake();
  }

  restart(): void {
    this.#generation++;
    this.isUp = !this.isUp;
    if (this.isUp && this.random.chance(0.2)) {
      this.epoch = `e${Number(this.epoch.slice(1)) + 1}`;
      this.#log.length = 0;
      this.newest = this.kept = this.random.below(50);
    }
    this.#wake();
  }

  async open(from: Position | undefined, signal: AbortSignal): Promise<SourceStream> {
    for (let i = this.random.below(4); i > 0; i--) await Promise.resolve();
    if (!this.isUp || this.random.chance(0.05)) throw new GatewayError("unavailable", "down");
    if (from !== undefined) {
      if (from.epoch !== this.epoch || from.offset > this.newest || from.offset < this.kept) {
        throw new GatewayError("out_of_range", "not kept");
      }
    }
    const position = { epoch: this.epoch, offset: from?.offset ?? this.newest };
    return { position, events: this.#events(position, this.#generation, signal) };
  }

  async *#events(from: Position, born: number, signal: AbortSignal): AsyncGenerator<SourceEvent> {
    let at = from.offset;
    while (!signal.aborted && this.#generation === born) {
      const next = this.#log.find(({ offset }) => offset > at);
      if (next === undefined) await new Promise<void>((resolve) => this.#wait(resolve, signal));
      else if (at < this.kept) throw new GatewayError("out_of_range", "forgotten meanwhile");
      else {
        at = next.offset;
        yield next;
      }
    }
  }

  #wait(resolve: () => void, signal: AbortSignal): void {
    const wake = () => {
      this.#wakes.delete(wake);
      resolve();
    };
    this.#wakes.add(wake);
    signal.addEventListener("abort", wake, { once: true });
  }

  #wake(): void {
    for (const wake of [...this.#wakes]) wake();
  }
}

/** What gives clients a channel, restarts, and what is published in it. */
interface Place {
  /** Workers that have the channel. */
  readonly channels: Channel[];
  publish(): void;
  /** Something of the world around goes wrong, or right again. */
  disturb(): void;
  /** A worker loses everything that it has in memory. */
  restart(worker: number): void;
  /** Everything works from now on. */
  calm(): void;
}

const encode = ({ offset }: Position, event: string, text: string): Publication => ({ offset, event, text });

function limitsOf(random: SimRandom) {
  return { messages: random.pick([0, 1, 3, 10, 50]), bytes: 1_000_000 };
}

function follow(source: Source, random: SimRandom): FollowedChannel {
  return new FollowedChannel({
    source,
    encode,
    limits: limitsOf(random),
    recheck: () => Promise.resolve(undefined),
    async pause(delayMs) {
      for (let i = 0; i < Math.min(delayMs, 20); i++) await Promise.resolve();
    },
    chance: () => random.float(),
    toError: (error) => fromServiceError(error),
  });
}

/** Two workers that follow one service. */
function followedPlace(random: SimRandom, truth: Truth, sparse: boolean): Place {
  const service = new Service(random, truth, sparse);
  const channels = [follow(service, random), follow(service, random)];
  return {
    channels,
    publish: () => service.publish(),
    disturb: () => random.chance(0.3) ? service.forget() : service.restart(),
    restart(worker) {
      channels[worker]!.close();
      channels[worker] = follow(service, random);
    },
    calm() {
      if (!service.isUp) service.restart();
    },
  };
}

/** One worker that makes the channel's messages in its memory. */
function keptPlace(random: SimRandom, truth: Truth): Place {
  let life = 0;
  const open = () => new LogChannel({ epoch: `life-${++life}`, encode, limits: limitsOf(random) });
  const channels = [open()];
  return {
    channels,
    publish() {
      const channel = channels[0]!;
      truth.add({ epoch: channel.position.epoch, offset: channel.position.offset + 1 });
      channel.publish("e", "{}");
    },
    disturb() {},
    restart() {
      channels[0] = open();
    },
    calm() {},
  };
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await Promise.resolve();
}

async function run(seed: number, place: (random: SimRandom, truth: Truth) => Place): Promise<Client[]> {
  const random = new SimRandom(seed, "hub");
  const truth = new Truth();
  const world = place(random.fork("place"), truth);
  const clients = Array.from({ length: CLIENTS }, () => new Client());
  /** Sockets of each worker, which end with it. */
  const sockets = world.channels.map(() => new Set<Socket>());
  let reconnects = 0;

  const cut = (client: Client) => {
    const socket = client.socket;
    if (socket === undefined) return;
    // What was on its way is lost.
    client.socket = undefined;
    socket.isWanted = false;
    for (const channel of world.channels) channel.unsubscribe(socket);
    for (const open of sockets) open.delete(socket);
  };
  const connect = (client: Client) => {
    const worker = random.below(world.channels.length);
    const socket = new Socket();
    client.socket = socket;
    sockets[worker]!.add(socket);
    client.reconnects++;
    reconnects++;
    const begun = world.channels[worker]!.subscribe(socket, client.seen);
    begun?.catch((error: unknown) => {
      if (!(error instanceof GatewayError)) throw error;
      socket.isDropped = true;
    });
  };

  for (let step = 0; reconnects < RECONNECTS; step++) {
    assert(step < STEPS_MAX, "the world stands still");
    const client = random.pick(clients);
    const dice = random.float();
    if (client.socket?.isDropped === true) cut(client);
    if (dice < 0.35) world.publish();
    else if (dice < 0.55) {
      if (client.socket === undefined) connect(client);
      else client.read(random.below(6), truth);
    } else if (dice < 0.70) cut(client);
    else if (dice < 0.95) await turns(random.below(12));
    else if (dice < 0.97) world.disturb();
    else if (dice < 0.98) {
      const worker = random.below(world.channels.length);
      for (const socket of sockets[worker]!) socket.isDropped = true;
      sockets[worker]!.clear();
      world.restart(worker);
    }
  }

  // In the end everybody is at the present.
  world.calm();
  for (let rounds = 0; rounds < 40; rounds++) {
    for (const client of clients) {
      if (client.socket?.isDropped === true) cut(client);
      if (client.socket === undefined) connect(client);
    }
    await turns(400);
    for (const client of clients) client.read(Infinity, truth);
  }
  const present = world.channels.map(({ position }) => position);
  for (const { seen } of clients) {
    assert(seen !== undefined, "a client never began");
    assertEquals(truth.after(seen), undefined, `a client stays behind at ${seen.offset} of ${seen.epoch}`);
    assert(present.some((position) => position?.epoch === seen.epoch), "a client lives in another time");
  }
  for (const channel of world.channels) channel.close();
  return clients;
}

const PLACES: readonly (readonly [name: string, place: (random: SimRandom, truth: Truth) => Place])[] = [
  ["messages made in the worker's memory", keptPlace],
  [
    "a followed service with an offset for each message",
    (random, truth) => followedPlace(random, truth, false),
  ],
  ["a followed service whose offsets have holes", (random, truth) => followedPlace(random, truth, true)],
];

for (const [name, place] of PLACES) {
  simTest(`whoever comes back misses nothing or is told to reload: ${name}`, {
    seeds: 10,
    soakSeeds: 400,
  }, async (seed) => {
    const clients = await run(seed, place);
    const sum = (read: (client: Client) => number) =>
      clients.reduce((total, client) => total + read(client), 0);
    assert(sum(({ reconnects }) => reconnects) >= RECONNECTS);
    assert(sum(({ recoveries }) => recoveries) > 0, "nothing was recovered");
    assert(sum(({ reloads }) => reloads) > 0, "nothing was lost");
  });
}
