/** The calls to the document services: one for each of their workers, for all synchronising clients of this gateway.
 *
 *      channels ─► what a turn brought ─► messages of up to MESSAGE_BYTES ─► service
 *      channels ◄── each output to its channel, each document's to all ◄──── service
 *
 *  A document is one worker's while that worker lives (consistent hashing of its id), so that who edits it together meets. When
 *  a call ends, its channels end; their clients come back, and with the first of them a new call begins. */
import { Code, type Transport } from "@connectrpc/connect";
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import {
  type ChannelInput,
  type ChannelOutput,
  type LinkRequest,
  type LinkResponse,
  type Presence as PresenceMessage,
  SyncService,
} from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import type { Peer } from "../../runtime/worker_context.ts";
import { hashText } from "../balance/hash.ts";
import { createRingHash } from "../balance/ring_hash.ts";
import { createRoundRobin } from "../balance/round_robin.ts";
import type { CloseName } from "../sockets/close_codes.ts";
import type { Timer } from "../timer.ts";
import type { Channel } from "./channel.ts";
import { SyncDocument } from "./document.ts";
import type { SyncMetrics } from "./metrics.ts";

/** About the most that one message carries, in bytes. */
const MESSAGE_BYTES = 1_024 * 1_024;
/** What an input takes besides its bytes, about; a principal takes more. */
const INPUT_BYTES = 24;
const OPEN_BYTES = 1_024;
/** Bytes of updates of all clients that are not known to be on disk. */
const UNSAVED_BYTES_MAX = 256 * 1_024 * 1_024;
/** Pause after a call that failed, in milliseconds: doubled from one to the next, until one holds for that long. */
const BACKOFF_MS_MIN = 50;
const BACKOFF_MS_MAX = 2_000;

/** What links are made of. */
export interface LinksDeps {
  readonly peers: {
    instances(service: string): readonly Peer[];
    transport(name: string): Transport;
  };
  readonly timer: Timer;
  readonly clock: { now(): number };
  readonly metrics: SyncMetrics;
  readonly maxMessageBytes: number;
  readonly log: {
    info(message: string, fields?: Record<string, unknown>): void;
    error(message: string, fields?: Record<string, unknown>): void;
  };
}

/** A worker of the service. */
interface Node {
  readonly name: string;
  /** The ring is asked for homes alone: nobody is passed over for being busy. */
  readonly outstanding: 0;
  readonly peer: Peer;
}

interface Backoff {
  untilMs: number;
  lengthMs: number;
}

/** All links of a gateway worker. */
export class Links {
  readonly metrics: SyncMetrics;
  readonly maxMessageBytes: number;
  readonly #deps: LinksDeps;
  readonly #ring = createRingHash<Node>(createRoundRobin());
  #instances: readonly Peer[] = [];
  #up: Node[] = [];
  readonly #links = new Map<string, Link>();
  readonly #backoffs = new Map<string, Backoff>();
  /** Which link has a document open: it stays there until the last client has gone. */
  readonly #homes = new Map<string, Link>();
  #unsavedBytes = 0;

  constructor(deps: LinksDeps) {
    this.#deps = deps;
    this.metrics = deps.metrics;
    this.maxMessageBytes = deps.maxMessageBytes;
  }

  /** The link for a document; undefined when none can be had now. */
  of(docId: string): Link | undefined {
    const home = this.#homes.get(docId);
    if (home !== undefined && !home.isOver) return home;
    this.#refresh();
    if (this.#up.length === 0) return undefined;
    const { peer } = this.#ring.pick(this.#up, hashText(docId));
    const open = this.#links.get(peer.name);
    if (open !== undefined) return open;
    const now = this.#deps.clock.now();
    const backoff = this.#backoffs.get(peer.name);
    if (backoff !== undefined && now < backoff.untilMs) return undefined;
    const link = new Link({
      ...this.#deps,
      peer: peer.name,
      homes: this.#homes,
      onOver: (error) => {
        this.#links.delete(peer.name);
        this.#failed(peer.name, now, error);
      },
    });
    this.#links.set(peer.name, link);
    return link;
  }

  /** Whether so many bytes more may be under way; they are from then on. */
  reserve(bytes: number): boolean {
    if (this.#unsavedBytes + bytes > UNSAVED_BYTES_MAX) return false;
    this.#unsavedBytes += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#unsavedBytes -= bytes;
  }

  /** Ends all calls. */
  close(): void {
    for (const link of [...this.#links.values()]) link.end();
  }

  #refresh(): void {
    const instances = this.#deps.peers.instances("statesync");
    if (instances === this.#instances) return;
    this.#instances = instances;
    const nodes = instances.map((peer): Node => ({ name: peer.name, outstanding: 0, peer }));
    this.#ring.update(nodes);
    this.#up = nodes.filter(({ peer }) => peer.state === "up");
  }

  #failed(name: string, beganAtMs: number, error: unknown): void {
    const now = this.#deps.clock.now();
    const last = this.#backoffs.get(name);
    const isNew = last === undefined || now - beganAtMs > BACKOFF_MS_MAX;
    const lengthMs = isNew ? BACKOFF_MS_MIN : Math.min(last.lengthMs * 2, BACKOFF_MS_MAX);
    this.#backoffs.set(name, { untilMs: now + lengthMs, lengthMs });
    this.#deps.log.info("the synchronising clients' call ended", { peer: name, error: String(error) });
  }
}

interface LinkDeps extends LinksDeps {
  readonly peer: string;
  /** Where documents are open; the link keeps its own up to date. */
  readonly homes: Map<string, Link>;
  onOver(error: unknown): void;
}

/** One call. */
export class Link {
  isOver = false;
  readonly #deps: LinkDeps;
  readonly #channels = new Map<number, Channel>();
  readonly #documents = new Map<number, SyncDocument>();
  #nextChannel = 1;
  #inputs: ChannelInput[] = [];
  /** Length of each, about. */
  #inputBytes: number[] = [];
  /** How many of them, from the first, were sent. */
  #sentInputs = 0;
  #ready: number[] = [];
  #presence: PresenceMessage[] = [];
  #isScheduled = false;
  #isDue = false;
  #wake: (() => void) | undefined;
  readonly #abort = new AbortController();

  constructor(deps: LinkDeps) {
    this.#deps = deps;
    void this.#run();
  }

  /** Opens a document for a channel; returns the channel's number. */
  open(channel: Channel, docId: string, principal: Principal, createType: string): number {
    const number = this.#nextChannel++;
    this.#channels.set(number, channel);
    this.input(number, {
      case: "open",
      value: { $typeName: "aetherflow.statesync.v1.OpenChannel", docId, principal, createType },
    }, OPEN_BYTES);
    return number;
  }

  /** Says something in the name of a channel. */
  input(channel: number, input: ChannelInput["input"], bytes: number): void {
    if (this.isOver) return;
    this.#inputs.push({ $typeName: "aetherflow.statesync.v1.ChannelInput", channel, input });
    this.#inputBytes.push(bytes + INPUT_BYTES);
    this.#schedule();
  }

  /** The channel has ended. */
  close(number: number, channel: Channel, document: SyncDocument | undefined): void {
    if (!this.#channels.delete(number)) return;
    if (document !== undefined) {
      document.delete(channel);
      if (document.size === 0) this.#forget(document);
    }
    this.input(number, { case: "close", value: true }, 0);
  }

  /** Ends the call, and with it all channels. */
  end(): void {
    this.#abort.abort();
    this.#over(undefined);
  }

  async #run(): Promise<void> {
    let error: unknown;
    try {
      const transport = this.#deps.peers.transport(this.#deps.peer);
      const method = SyncService.method.link;
      const call = await transport.stream(method, this.#abort.signal, undefined, undefined, this.#requests());
      for await (const response of call.message) this.#take(response);
    } catch (thrown) {
      error = thrown;
    }
    this.#over(error);
  }

  #over(error: unknown): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#signal();
    this.#deps.onOver(error);
    for (const channel of [...this.#channels.values()]) {
      channel.end("unavailable", "the document service is away");
    }
    for (const document of [...this.#documents.values()]) this.#forget(document);
    this.#channels.clear();
    this.#inputs = [];
    this.#presence = [];
  }

  async *#requests(): AsyncGenerator<LinkRequest, void, void> {
    for (;;) {
      if (this.isOver) return;
      if (this.#isDue) yield this.#cut();
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  #cut(): LinkRequest {
    const { presence, bytes: presenceBytes } = this.#cutPresence();
    const from = this.#sentInputs;
    let to = from;
    let bytes = presenceBytes;
    while (to < this.#inputs.length && (bytes === 0 || bytes + this.#inputBytes[to]! <= MESSAGE_BYTES)) {
      bytes += this.#inputBytes[to++]!;
    }
    const inputs = this.#inputs.slice(from, to);
    if (to === this.#inputs.length) {
      this.#inputs = [];
      this.#inputBytes = [];
      this.#sentInputs = 0;
      this.#isDue = this.#presence.length > 0;
    } else this.#sentInputs = to;
    const ready = this.#ready;
    this.#ready = [];
    return { $typeName: "aetherflow.statesync.v1.LinkRequest", inputs, ready, presence };
  }

  /** Presence goes before inputs: with them a document may end. */
  #cutPresence(): { presence: PresenceMessage[]; bytes: number } {
    let count = 0;
    let bytes = 0;
    while (count < this.#presence.length && bytes < MESSAGE_BYTES) {
      bytes += this.#presence[count++]!.update.length;
    }
    return { presence: this.#presence.splice(0, count), bytes };
  }

  #take({ outputs, documents }: LinkResponse): void {
    const shared: Uint8Array[] = [];
    for (const { channel: number, output } of outputs) {
      if (output.case === "answer" && output.value.shared > 0 && output.value.update.length > 0) {
        shared[output.value.shared] = output.value.update;
      }
      const channel = this.#channels.get(number);
      if (channel === undefined) continue;
      try {
        this.#tell(number, channel, output, shared);
      } catch (error) {
        // One client's trouble is not that of all others on this call.
        this.#deps.log.error("a synchronising client failed", { error });
        channel.end("unavailable", "a fault of the gateway");
      }
    }
    for (const output of documents) this.#documents.get(output.document)?.take(output);
  }

  #tell(
    number: number,
    channel: Channel,
    output: ChannelOutput["output"],
    shared: readonly Uint8Array[],
  ): void {
    switch (output.case) {
      case "opened": {
        const { document, access, stateVector } = output.value;
        channel.onOpened(this.#document(document, channel.docId), access, stateVector);
        break;
      }
      case "answer": {
        const { value } = output;
        channel.document?.answer(
          channel,
          value,
          value.shared > 0 ? shared[value.shared] ?? value.update : value.update,
        );
        break;
      }
      case "saved":
        channel.onSaved(output.value);
        break;
      case "refused":
        this.#deps.metrics.refused("update");
        channel.onRefused(output.value.number, output.value.code, output.value.reason);
        break;
      case "access":
        channel.onAccess(output.value);
        break;
      case "ask":
        channel.onAsk(output.value);
        break;
      case "closed":
        channel.end(CLOSES[output.value.code as Code] ?? "unavailable", output.value.reason);
        this.#channels.delete(number);
        break;
    }
  }

  #document(number: number, docId: string): SyncDocument {
    let document = this.#documents.get(number);
    if (document !== undefined) return document;
    document = new SyncDocument({
      id: docId,
      number,
      timer: this.#deps.timer,
      clock: this.#deps.clock,
      metrics: this.#deps.metrics,
      onReady: () => {
        if (this.isOver || this.#documents.get(number) !== document) return;
        this.#ready.push(number);
        this.#schedule();
      },
      ask: (channel, stateVector) => {
        this.input(
          channel.number,
          { case: "stateVector", value: stateVector as Uint8Array<ArrayBuffer> },
          stateVector.length,
        );
      },
      passPresence: (update) => {
        if (this.isOver) return;
        this.#presence.push({
          $typeName: "aetherflow.statesync.v1.Presence",
          document: number,
          update: update as Uint8Array<ArrayBuffer>,
        });
        this.#schedule();
      },
    });
    this.#documents.set(number, document);
    this.#deps.homes.set(docId, this);
    return document;
  }

  #forget(document: SyncDocument): void {
    document.close();
    this.#documents.delete(document.number);
    if (this.#deps.homes.get(document.id) === this) this.#deps.homes.delete(document.id);
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#deps.timer.endOfTurn(() => {
      this.#isScheduled = false;
      this.#isDue = true;
      this.#signal();
    });
  }

  #signal(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** How a socket ends whose channel the service ended. */
const CLOSES: Partial<Record<Code, CloseName>> = {
  [Code.InvalidArgument]: "badMessage",
  [Code.NotFound]: "notFound",
  [Code.PermissionDenied]: "forbidden",
  [Code.Unauthenticated]: "unauthenticated",
  [Code.ResourceExhausted]: "tooFast",
  [Code.FailedPrecondition]: "forbidden",
  [Code.Unavailable]: "unavailable",
};
