/** What is known of workers on other hosts: where a source says they are, whether they answer.
 *
 *      listed ──► up ◄── an answer ── down
 *                 └── CHECKS_FAILED_MAX without an answer, one after the other ──► down */
import type { Peer } from "../../runtime/worker_context.ts";

/** Workers of other hosts at most. Each is asked for its health all the time. */
export const ENTRIES_MAX = 1_000;

/** Checks in a row without an answer after which a worker is down. One may meet a moment when this thread, or that host,
 *  was held up. */
export const CHECKS_FAILED_MAX = 2;

/** What a source says of one worker. */
export interface Listing {
  readonly service: string;
  /** Where its Quantum node listens, `host:port`, as the source writes it. */
  readonly address: string;
  /** Differs from one life of the worker to the next, if the source knows. */
  readonly life: string;
}

/** Hears what has changed. */
export type BookListener = (changed: readonly Peer[], removed: readonly string[]) => void;

/** One worker's line. */
interface Line {
  listing: Listing;
  resolved: Peer["address"];
  state: Peer["state"];
  incarnation: number;
  failures: number;
}

/** The name that a worker of another host has among the peers. */
export function remoteName({ service, address }: Pick<Listing, "service" | "address">): string {
  return `${service}@${address}`;
}

/** The lines. `trusted`: a listed worker counts as up before it was asked, as a registry's lease says. */
export class AddressBook {
  readonly #lines = new Map<string, Line>();
  readonly #trusted: boolean;
  readonly #listener: BookListener;

  constructor(options: { readonly trusted: boolean }, listener: BookListener) {
    this.#trusted = options.trusted;
    this.#listener = listener;
  }

  /** Names in the order they came. */
  names(): string[] {
    return [...this.#lines.keys()];
  }

  /** Whether the book has a worker of that name. */
  has(name: string): boolean {
    return this.#lines.has(name);
  }

  /** What the workers of this host are told. */
  peers(): Peer[] {
    return [...this.#lines].map(([name, line]) => peerOf(name, line));
  }

  /** Takes one worker in, or news of it. False if there is no room. */
  put(listing: Listing, resolved: Peer["address"]): boolean {
    const name = remoteName(listing);
    const line = this.#lines.get(name);
    if (line === undefined) {
      if (this.#lines.size >= ENTRIES_MAX) return false;
      const state = this.#trusted ? "up" : "down";
      const added = { listing, resolved, state, incarnation: 1, failures: 0 } as const;
      this.#lines.set(name, added);
      this.#listener([peerOf(name, added)], []);
      return true;
    }
    const moved = line.resolved.hostname !== resolved.hostname || line.resolved.port !== resolved.port;
    if (!moved && line.listing.life === listing.life) return true;
    // Another life, or another place: what was open is of no use.
    Object.assign(line, { listing, resolved, failures: 0, incarnation: line.incarnation + 1 });
    if (this.#trusted) line.state = "up";
    this.#listener([peerOf(name, line)], []);
    return true;
  }

  /** Forgets a worker. */
  remove(name: string): void {
    if (this.#lines.delete(name)) this.#listener([], [name]);
  }

  /** Forgets all workers but these. */
  retain(names: ReadonlySet<string>): void {
    for (const name of this.names()) if (!names.has(name)) this.remove(name);
  }

  /** A check has ended. Returns the state if that changed it. */
  checked(name: string, answered: boolean): Peer["state"] | undefined {
    const line = this.#lines.get(name);
    if (line === undefined) return undefined;
    line.failures = answered ? 0 : line.failures + 1;
    const state = answered ? "up" : line.failures >= CHECKS_FAILED_MAX ? "down" : line.state;
    if (state === line.state) return undefined;
    line.state = state;
    if (state === "up") line.incarnation++;
    this.#listener([peerOf(name, line)], []);
    return state;
  }
}

function peerOf(name: string, { listing, resolved, state, incarnation }: Line): Peer {
  return { name, service: listing.service, isRemote: true, address: resolved, state, incarnation };
}
