import type { DescService } from "@bufbuild/protobuf";
import type { ServiceImpl, Transport } from "@connectrpc/connect";
import type { Registry } from "prom-client";
import type { ChannelStats } from "../../transport/channels/channel.ts";
import type { Clock } from "./clock.ts";
import type { Logger } from "./log.ts";
import type { Random } from "./random.ts";

/** One service's worker: its name and how it starts. */
export interface WorkerDefinition {
  /** Name of the service: `kv`, `gateway`. */
  readonly name: string;
  /** Opens what the worker needs and registers its services with `context.rpc`. Rejecting ends the start: the host
   *  prints the message as its one line of failure, so it says what is wrong and where. */
  start(context: WorkerContext): Promise<WorkerModule>;
}

/** What a worker gets from its host. */
export interface WorkerContext {
  /** Name among its peers: `kv`, or `gateway-2` where there are several of one service. */
  readonly name: string;
  /** Number among the workers of one service, from 1. */
  readonly instance: number;
  /** The worker's own part of the configuration, checked by the host against the service's schema. */
  readonly config: unknown;
  /** The folder that the worker may read and write; undefined for workers that keep nothing. It may not exist yet. */
  readonly dataDirectory: string | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The worker's figures; served by WorkerService.Stats. */
  readonly metrics: Registry;
  readonly rpc: RpcServices;
  readonly peers: Peers;
  /** Reports that the worker cannot go on (a failed log, for example) and ends it; the host restarts it. */
  fail(error: unknown): never;
}

/** What `start` hands back. */
export interface WorkerModule {
  /** What the worker listens on, for the ready line: `{http: "http://127.0.0.1:8080"}`. */
  readonly addresses?: Record<string, string>;
  /** Whether the worker serves; absent means yes whenever its event loop turns. `detail` says why not. */
  health?(): { ok: boolean; detail: string };
  /** Takes a new configuration, of which only keys differ that may change while the worker runs, as a whole or not at
   *  all. Requests under way go on. Rejecting or throwing leaves everything as it was; the message says why. */
  reconfigure?(config: unknown): void | Promise<void>;
  /** Takes no new work, finishes what is under way within `deadlineMs`, releases what `start` opened. */
  drain(deadlineMs: number): Promise<void>;
}

/** Where a worker registers what it serves to its peers. */
export interface RpcServices {
  /** Serves the methods of `service` that `implementation` has; the others answer `unimplemented`. */
  service<S extends DescService>(service: S, implementation: Partial<ServiceImpl<S>>): unknown;
}

/** The other workers, and the host under the name `host`. */
export interface Peers {
  /** Names in the address book, in its order. */
  names(): readonly string[];
  /** What the host says of a peer; `unknown` when the address book has no such name. */
  state(name: string): "up" | "down" | "unknown";
  /** A transport for generated clients: one pooled channel, opened by the first call and again after a loss. A call to a
   *  peer that is down or cannot be reached fails at once with `unavailable` and names the peer. A service's name is as
   *  good while the book has no peer of that name: the first of its instances that is up is called then. */
  transport(name: string): Transport;
  /** The peers that run a service, in the order of the address book. The same array until an entry of the book changes,
   *  so that a caller sees at one glance whether it must look again. */
  instances(service: string): readonly Peer[];
  /** Figures of the open channel to a peer; undefined when there is none. */
  channelStats(name: string): ChannelStats | undefined;
}

/** Why a worker could not start or go on; the host maps it to an exit code. */
export type FailureCode =
  /** A port is taken by another process. */
  | "address_in_use"
  /** Another process works on the same data folder. */
  | "data_locked"
  /** Stored data cannot be read back as it was written. */
  | "data_damaged"
  /** The disk is full, or a folder or file cannot be read or written. */
  | "storage"
  /** The configuration asks for what the worker refuses. */
  | "config"
  /** Everything else. */
  | "internal";

/** An address book entry. */
export interface Peer {
  /** `kv`, `gateway-2`; of a worker on another host `session@10.0.0.2:7402`. */
  readonly name: string;
  /** The service that it runs; several entries may run one. Absent for the host itself. */
  readonly service?: string;
  /** Whether it runs under another host, which answers for its figures and its health. */
  readonly isRemote?: boolean;
  /** Where the peer's Quantum node listens. */
  readonly address: { readonly hostname: string; readonly port: number };
  readonly state: "up" | "down";
  /** Raised by the host with each restart: channels to an earlier life are useless. */
  readonly incarnation: number;
}

/** Host to worker. Secrets travel here and nowhere else. */
export type HostMessage =
  | {
    readonly type: "boot";
    readonly name: string;
    readonly instance: number;
    /** The pre-shared secret of this boot, 32 bytes. */
    readonly secret: Uint8Array;
    readonly listen: { readonly hostname: string; readonly port: number };
    readonly peers: readonly Peer[];
    readonly config: unknown;
    readonly dataDirectory: string | undefined;
    readonly log: import("./log.ts").LogSettings;
  }
  | {
    readonly type: "peers";
    /** New and changed entries. */
    readonly peers: readonly Peer[];
    /** Names of entries that exist no more. */
    readonly removed?: readonly string[];
  }
  | {
    readonly type: "config";
    /** The worker's part of the new configuration, if it changed; what differs may be changed while it runs. */
    readonly config?: unknown;
    readonly log: import("./log.ts").LogSettings;
  };

/** Worker to host. */
export type WorkerMessage =
  | { readonly type: "ready"; readonly addresses: Record<string, string> }
  | { readonly type: "failed"; readonly code: FailureCode; readonly message: string }
  /** The answer to `config`. */
  | { readonly type: "configured"; readonly problem: string | undefined };
