import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import type { Channel } from "../../transport/channels/channel.ts";
import type { Address } from "../../transport/quantum/types.ts";
import type { Logger } from "./log.ts";
import type { Peer, Peers } from "./worker_context.ts";

/** Longest wait for a handshake with a peer that the host says is up, in milliseconds. A handshake on one machine takes
 *  a few; a peer that needs longer hangs, and its caller has better things to do. */
export const CONNECT_TIMEOUT_MS = 1_000;

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
  /** Takes entries of the address book: new ones and changed ones. */
  update(peers: readonly Peer[]): void;
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
  // Bounded by the plan: one entry a worker.
  const entries = new Map<string, Entry>();
  let closed = false;

  const channel = (name: string): Channel | Promise<Channel> => {
    const entry = entries.get(name);
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

  return {
    names: () => [...entries.keys()],
    state: (name) => entries.get(name)?.peer.state ?? "unknown",
    transport(name) {
      const entry = entries.get(name);
      if (entry === undefined) return deps.createTransport({ channel: () => channel(name) });
      return entry.transport ??= deps.createTransport({ channel: () => channel(name) });
    },
    update(peers) {
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
    },
  };
}

function unavailable(message: string, cause?: unknown): ConnectError {
  return new ConnectError(message, Code.Unavailable, undefined, undefined, cause);
}
