/** Channels: who listens to what. Messages go to those who are connected; nothing is kept. */
import { copyBytes, latin1 } from "./args.ts";
import { matchesGlob } from "./glob.ts";
import { bulk, Push, Several, textBytes } from "./reply.ts";
import type { RedisServer } from "./server.ts";
import type { Session } from "./session.ts";

/** Subscriptions of one connection. */
const SUBSCRIPTIONS_MAX = 10_000;

const MESSAGE = bulk("message");
const PATTERN_MESSAGE = bulk("pmessage");

/** All subscriptions. */
export class PubSub {
  readonly #server: RedisServer;
  readonly #channels = new Map<string, Set<Session>>();
  readonly #patterns = new Map<string, Set<Session>>();

  constructor(server: RedisServer) {
    this.#server = server;
  }

  /** SUBSCRIBE and PSUBSCRIBE. */
  join(session: Session, kind: "channel" | "pattern", names: readonly Uint8Array[]): Several {
    const own = kind === "channel" ? session.channels : session.patterns;
    const word = bulk(kind === "channel" ? "subscribe" : "psubscribe");
    const replies = names.map((name) => {
      const text = latin1(name);
      if (!own.has(text) && countOf(session) < SUBSCRIPTIONS_MAX) {
        own.add(text);
        const table = this.#table(kind);
        const listeners = table.get(text);
        if (listeners === undefined) table.set(text, new Set([session]));
        else listeners.add(session);
      }
      return new Push([word, copyBytes(name), countOf(session)]);
    });
    this.#server.events.update(session);
    return new Several(replies);
  }

  /** UNSUBSCRIBE and PUNSUBSCRIBE; without names from all. */
  leave(session: Session, kind: "channel" | "pattern", names: readonly Uint8Array[]): Several {
    const own = kind === "channel" ? session.channels : session.patterns;
    const word = bulk(kind === "channel" ? "unsubscribe" : "punsubscribe");
    const all = names.length > 0 ? names.map(copyBytes) : [...own].map(textBytes);
    const replies = all.map((name) => {
      const text = latin1(name);
      if (own.delete(text)) this.#remove(session, kind, text);
      return new Push([word, name, countOf(session)]);
    });
    this.#server.events.update(session);
    return new Several(replies.length > 0 ? replies : [new Push([word, null, countOf(session)])]);
  }

  /** The connection is gone or starts anew. */
  leaveAll(session: Session): void {
    for (const text of session.channels) this.#remove(session, "channel", text);
    for (const text of session.patterns) this.#remove(session, "pattern", text);
    session.channels.clear();
    session.patterns.clear();
    this.#server.events.update(session);
  }

  /** PUBLISH: sends a message and returns how many got it. */
  publish(channel: Uint8Array, message: Uint8Array): number {
    let count = 0;
    for (const session of this.#channels.get(latin1(channel)) ?? NOBODY) {
      session.send(new Push([MESSAGE, channel, message]));
      count++;
    }
    for (const [text, sessions] of this.#patterns) {
      const pattern = textBytes(text);
      if (!matchesGlob(pattern, channel)) continue;
      for (const session of sessions) {
        session.send(new Push([PATTERN_MESSAGE, pattern, channel, message]));
        count++;
      }
    }
    return count;
  }

  /** Sends a message to one connection, for each of its subscriptions that the channel matches. */
  tell(session: Session, channel: Uint8Array, message: Uint8Array): void {
    if (session.channels.has(latin1(channel))) session.send(new Push([MESSAGE, channel, message]));
    for (const text of session.patterns) {
      const pattern = textBytes(text);
      if (matchesGlob(pattern, channel)) {
        session.send(new Push([PATTERN_MESSAGE, pattern, channel, message]));
      }
    }
  }

  /** Channels with listeners, that match. */
  channels(pattern: Uint8Array | undefined): Uint8Array[] {
    const all = [...this.#channels.keys()].map(textBytes);
    return pattern === undefined ? all : all.filter((channel) => matchesGlob(pattern, channel));
  }

  listeners(channel: Uint8Array): number {
    return this.#channels.get(latin1(channel))?.size ?? 0;
  }

  get channelCount(): number {
    return this.#channels.size;
  }

  get patternCount(): number {
    return this.#patterns.size;
  }

  #table(kind: "channel" | "pattern"): Map<string, Set<Session>> {
    return kind === "channel" ? this.#channels : this.#patterns;
  }

  #remove(session: Session, kind: "channel" | "pattern", text: string): void {
    const table = this.#table(kind);
    const listeners = table.get(text);
    if (listeners === undefined) return;
    listeners.delete(session);
    if (listeners.size === 0) table.delete(text);
  }
}

const NOBODY: ReadonlySet<Session> = new Set();

function countOf(session: Session): number {
  return session.channels.size + session.patterns.size;
}
