import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import type { Channel } from "../../transport/channels/channel.ts";
import type { Address } from "../../transport/quantum/types.ts";
import type { Logger } from "./log.ts";
import type { Peer, Peers } from "./worker_context.ts";

/** Longest wait for a handshake with a peer that the host says is up, in milliseconds. A handshake on one machine takes
 *  a few; a peer that needs longer hangs, and its caller has better things to do. */
export const CONNECT_TIMEOUT_MS = 1_000;

/** How long calls under way at a peer that left the address book while it was up may still take, in milliseconds: the
 *  drain of its host, by default. */
export const LEAVE_MS = 10_000;

/** Close code of channels to a peer that is gone. The peer never sees it: it is gone. */
const PEER_GONE = 0;

/** What a peer table is made of. */
export interface PeersDeps {
  connect(to: Address, signal: AbortSignal): Promise<Channel>;
  createTransport(options: { channel: () => Channel | Promise<Channel> }): Transport;
  log: Logger;
}

/** Peers, and how the host's news reach them. */
export interface PeerTable extends Peers {
  /** Takes entries of the address book: new ones and changed ones, and names of those that exist no more. */
  update(peers: readonly Peer[], removed?: readonly string[]): void;
  /** Closes all channels; later calls fail with `unavailable`. */
  close(): void;
}

/** One peer's line in the table. At most one channel is open or being opened. */
interface Entry {
  peer: Peer;
  channel: Channel | undefined;
  opening: Promise<Channel> | undefined;
  transport: Transport | undefined;
}

/** Creates the table. */
export function createPeers(deps: PeersDeps): PeerTable {
  // Bounded by the host: one entry a worker of its plan, and of other hosts as many as it takes in.
  const entries = new Map<string, Entry>();
  /** Channels to peers that left, and what ends them. As many as leave within LEAVE_MS. */
  const leaving = new Map<Channel, ReturnType<typeof setTimeout>>();
  let closed = false;

  /** Instances by service, until an entry changes. */
  const instances = new Map<string, readonly Peer[]>();

  const instancesOf = (service: string): readonly Peer[] => {
    let found = instances.get(service);
    if (found === undefined) {
      found = [...entries.values()].map(({ peer }) => peer).filter((peer) => serviceOf(peer) === service);
      instances.set(service, found);
    }
    return found;
  };

  const channel = (name: string): Channel | Promise<Channel> => {
    const entry = entries.get(name) ??
      entries.get(instancesOf(name).find(({ state }) => state === "up")?.name ?? "");
    if (entry === undefined) throw unavailable(`${name} is not in the address book`);
    if (entry.channel?.isOpen) return entry.channel;
    if (closed) throw unavailable(`${name} cannot be called: this worker is stopping`);
    if (entry.peer.state === "down") throw unavailable(`${name} is down`);
    return entry.opening ??= open(entry);
  };

  const open = async (entry: Entry): Promise<Channel> => {
    const { name, address, incarnation } = entry.peer;
    try {
      const opened = await deps.connect(address, AbortSignal.timeout(CONNECT_TIMEOUT_MS));
      if (closed || entry.peer.incarnation !== incarnation || entry.peer.state === "down") {
        opened.close(PEER_GONE, "the peer has gone");
        throw unavailable(`${name} went down while connecting`);
      }
      entry.channel = opened;
      return opened;
    } catch (error) {
      if (error instanceof ConnectError) throw error;
      deps.log.warn("cannot reach peer", { peer: name, error });
      throw unavailable(`${name} cannot be reached`, error);
    } finally {
      if (entry.peer.incarnation === incarnation) entry.opening = undefined;
    }
  };

  const drop = (entry: Entry, reason: string) => {
    entry.channel?.close(PEER_GONE, reason);
    entry.channel = undefined;
    entry.opening = undefined;
  };

  const leave = (channel: Channel) => {
    const end = () => {
      clearTimeout(timer);
      leaving.delete(channel);
      channel.close(PEER_GONE, "the peer has left");
    };
    const timer = setTimeout(end, LEAVE_MS);
    leaving.set(channel, timer);
    void channel.closed.then(end);
  };

  return {
    names: () => [...entries.keys()],
    state: (name) => entries.get(name)?.peer.state ?? "unknown",
    instances: instancesOf,
    channelStats(name) {
      const open = entries.get(name)?.channel;
      return open?.isOpen ? open.stats() : undefined;
    },
    transport(name) {
      const entry = entries.get(name);
      if (entry === undefined) return deps.createTransport({ channel: () => channel(name) });
      return entry.transport ??= deps.createTransport({ channel: () => channel(name) });
    },
    update(peers, removed = []) {
      instances.clear();
      for (const name of removed) {
        const entry = entries.get(name);
        if (entry === undefined) continue;
        entries.delete(name);
        if (entry.peer.state === "up" && entry.channel !== undefined) leave(entry.channel);
        // A handshake under way ends as with a peer that went down.
        entry.peer = { ...entry.peer, state: "down" };
        entry.channel = undefined;
      }
      for (const peer of peers) {
        const entry = entries.get(peer.name);
        if (entry === undefined) {
          entries.set(peer.name, { peer, channel: undefined, opening: undefined, transport: undefined });
          continue;
        }
        const gone = peer.state === "down" || peer.incarnation !== entry.peer.incarnation;
        entry.peer = peer;
        // A dead peer cannot say goodbye: closing here ends the calls that wait for it.
        if (gone) drop(entry, `${peer.name} is down`);
      }
    },
    close() {
      closed = true;
      for (const entry of entries.values()) drop(entry, "this worker is stopping");
      for (const [channel, timer] of leaving) {
        clearTimeout(timer);
        channel.close(PEER_GONE, "this worker is stopping");
      }
      leaving.clear();
    },
  };
}

/** The service that a peer runs; one that names none is the only one of its name. */
function serviceOf(peer: Peer): string {
  return peer.service ?? peer.name;
}

function unavailable(message: string, cause?: unknown): ConnectError {
  return new ConnectError(message, Code.Unavailable, undefined, undefined, cause);
}
