/** SyncService: all synchronising clients of one gateway worker on one call.
 *
 *      gateway ── inputs of channels ──► Channel ──► LiveDocument
 *      gateway ◄── Outbox ◄── Channel: what one client is told
 *                     ▲────── LinkDocument: what all clients of a document get
 */
import { Code, type ServiceImpl } from "@connectrpc/connect";
import type {
  LinkRequest,
  LinkResponse,
  OpenChannel,
  SyncService,
} from "$proto/aetherflow/statesync/v1/sync_pb.ts";
import { DOCUMENT_TYPES, type DocumentType } from "../records.ts";
import { StateSyncError } from "../errors.ts";
import type { Joined, LiveDocument, LiveDocuments } from "../live.ts";
import { Channel } from "./channel.ts";
import { LinkDocument, type SyncTimer } from "./link_document.ts";
import { Outbox, OUTPUTS_MAX } from "./outbox.ts";

/** Channels of one link; a gateway worker lets in fewer sockets. */
const CHANNELS_MAX = 200_000;

/** What the service is made of. */
export interface SyncHandlersDeps {
  readonly live: LiveDocuments;
  /** Calls `fn` when the events that wait now have been handled. */
  endOfTurn(fn: () => void): void;
  readonly timer: SyncTimer;
  readonly log: { error(message: string, fields?: Record<string, unknown>): void };
}

/** Figures of all links. */
export interface SyncFigures {
  readonly links: number;
  readonly channels: number;
}

/** The implementation of SyncService, and its figures. */
export interface SyncHandlers {
  readonly handlers: ServiceImpl<typeof SyncService>;
  figures(): SyncFigures;
}

/** Creates it. */
export function createSyncHandlers(deps: SyncHandlersDeps): SyncHandlers {
  const links = new Set<ServerLink>();
  const relay = new PresenceRelay();

  async function* link(requests: AsyncIterable<LinkRequest>): AsyncGenerator<LinkResponse, void, void> {
    const link = new ServerLink(deps, relay);
    links.add(link);
    const reading = link.read(requests);
    try {
      yield* link.outbox.messages();
    } finally {
      links.delete(link);
      link.close();
    }
    await reading;
  }

  return {
    handlers: { link },
    figures() {
      let channels = 0;
      for (const link of links) channels += link.size;
      return { links: links.size, channels };
    },
  };
}

/** Passes presence from link to link. */
class PresenceRelay {
  readonly #byId = new Map<string, Set<LinkDocument>>();

  add(document: LinkDocument): void {
    const { id } = document.live;
    const all = this.#byId.get(id) ?? new Set();
    this.#byId.set(id, all.add(document));
    this.#tell(all);
  }

  delete(document: LinkDocument): void {
    const { id } = document.live;
    const all = this.#byId.get(id);
    if (all === undefined || !all.delete(document)) return;
    if (all.size === 0) this.#byId.delete(id);
    else this.#tell(all);
  }

  /** What clients of `from` show goes to all others. */
  pass(from: LinkDocument, update: Uint8Array): void {
    for (const document of this.#byId.get(from.live.id) ?? []) {
      if (document !== from) document.presence(update);
    }
  }

  #tell(all: ReadonlySet<LinkDocument>): void {
    for (const document of all) document.wantsPresence = all.size > 1;
  }
}

/** One gateway worker. */
class ServerLink {
  readonly outbox: Outbox;
  readonly #deps: SyncHandlersDeps;
  readonly #relay: PresenceRelay;
  readonly #channels = new Map<number, Channel>();
  readonly #byLive = new Map<LiveDocument, LinkDocument>();
  /** Documents by number; numbers that are free again are used first. */
  readonly #byNumber: (LinkDocument | undefined)[] = [undefined];
  readonly #free: number[] = [];
  #isClosed = false;

  constructor(deps: SyncHandlersDeps, relay: PresenceRelay) {
    this.#deps = deps;
    this.#relay = relay;
    this.outbox = new Outbox(deps.endOfTurn, (channel) => this.#channels.get(channel)?.isOpen === true);
  }

  get size(): number {
    return this.#channels.size;
  }

  async read(requests: AsyncIterable<LinkRequest>): Promise<void> {
    try {
      for await (const request of requests) {
        if (this.#isClosed || this.outbox.size > OUTPUTS_MAX) break;
        this.#take(request);
      }
    } catch {
      // The gateway has gone; so have its clients.
    } finally {
      this.outbox.end();
    }
  }

  /** All its clients leave. */
  close(): void {
    this.#isClosed = true;
    this.outbox.end();
    for (const channel of [...this.#channels.values()]) channel.close();
  }

  #take({ inputs, ready, presence }: LinkRequest): void {
    // Before the inputs, with which a document may end.
    for (const { document: number, update } of presence) {
      const document = this.#byNumber[number];
      if (document !== undefined) this.#relay.pass(document, update);
    }
    for (const { channel, input } of inputs) {
      if (input.case === "open") this.#open(channel, input.value);
      else this.#channels.get(channel)?.take(input);
    }
    for (const number of ready) this.#byNumber[number]?.ready();
  }

  #open(number: number, { docId, principal, createType }: OpenChannel): void {
    const known = this.#channels.get(number);
    if (known !== undefined) return known.fail(Code.InvalidArgument, "the channel is open already");
    const channel = new Channel({
      number,
      principal,
      tell: (output) => this.outbox.tell(number, output),
      saved: (saved) => this.outbox.saved(number, saved),
      answer: (updates) => this.outbox.answer(number, updates),
      onJoined: (live) => this.#joined(number, live),
      onOver: (live) => this.#over(number, live),
      onFault: (error) => this.#deps.log.error("a synchronising client failed", { docId, error }),
    });
    if (this.#channels.size >= CHANNELS_MAX) {
      return channel.fail(Code.ResourceExhausted, `${CHANNELS_MAX} channels are open`);
    }
    this.#channels.set(number, channel);
    void channel.join(this.#join(docId, channel, createType));
  }

  async #join(docId: string, channel: Channel, createType: string): Promise<Joined> {
    if (createType !== "" && !(DOCUMENT_TYPES as readonly string[]).includes(createType)) {
      throw new StateSyncError("invalid", `create is none of ${DOCUMENT_TYPES.join(", ")}`);
    }
    return await this.#deps.live.join(
      docId,
      channel,
      createType === "" ? undefined : createType as DocumentType,
    );
  }

  #joined(channel: number, live: LiveDocument): number {
    let document = this.#byLive.get(live);
    if (document === undefined) {
      document = new LinkDocument({
        live,
        number: this.#free.pop() ?? this.#byNumber.length,
        timer: this.#deps.timer,
        onWaiting: (waiting) => this.outbox.add(waiting),
        onOverflow: (full) => this.#drop(full),
      });
      this.#byNumber[document.number] = document;
      this.#byLive.set(live, document);
      this.#relay.add(document);
    }
    document.channels.add(channel);
    return document.number;
  }

  #over(channel: number, live: LiveDocument | undefined): void {
    this.#channels.delete(channel);
    const document = live && this.#byLive.get(live);
    if (document === undefined || !document.channels.delete(channel) || document.channels.size > 0) return;
    this.#byLive.delete(document.live);
    this.#byNumber[document.number] = undefined;
    this.#free.push(document.number);
    this.#relay.delete(document);
    this.outbox.remove(document);
    document.close();
  }

  /** The gateway does not keep up: its clients of this document come back and ask for what they lack. */
  #drop(document: LinkDocument): void {
    for (const number of [...document.channels]) {
      this.#channels.get(number)?.fail(
        Code.Unavailable,
        "documents: the gateway does not keep up with the edits",
      );
    }
  }
}
