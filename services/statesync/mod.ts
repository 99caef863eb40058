/** The document service, wired: what the worker, the tests and the simulator start from. */
import type { StateSyncService as StateSyncServiceDesc } from "$proto/aetherflow/statesync/v1/statesync_pb.ts";
import type { ServiceImpl } from "@connectrpc/connect";
import type { LiveDocuments } from "./live.ts";
import { createStatesyncHandlers } from "./rpc.ts";
import { StatesyncService, type StatesyncServiceDeps } from "./service.ts";

export type { StatesyncConfig } from "./config.ts";
export { STATESYNC_ERRORS, StateSyncError, type StateSyncErrorKind } from "./errors.ts";
export type { AccessLevel, Joined, LiveClient, LiveDocument, LiveDocuments, LiveListener } from "./live.ts";
export { codeOf, mapped, toConnectError } from "./rpc_errors.ts";
export { StatesyncService, type StatesyncServiceConfig, type StatesyncServiceDeps } from "./service.ts";
export type { DocumentStore } from "./store.ts";

/** The wired service. */
export interface StatesyncModule {
  readonly service: StatesyncService;
  /** The implementation of aetherflow.statesync.v1.StateSyncService. */
  readonly handlers: ServiceImpl<typeof StateSyncServiceDesc>;
  /** For clients that synchronise documents. */
  readonly live: LiveDocuments;
  /** Ends what is open, keeps everything, lets go of the store. Idempotent. */
  close(): Promise<void>;
}

/** Wires the service on an open store, which becomes the module's to close. */
export function createStatesyncModule(deps: StatesyncServiceDeps): StatesyncModule {
  const service = new StatesyncService(deps);
  return {
    service,
    handlers: createStatesyncHandlers({ service }),
    live: service.live,
    close: () => service.close(),
  };
}
