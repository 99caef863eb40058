/** The session service, wired: what the worker, the tests and the simulator start from. */
import type { SessionService as SessionServiceDesc } from "$proto/aetherflow/session/v1/session_pb.ts";
import type { ServiceImpl } from "@connectrpc/connect";
import { createSessionHandlers } from "./rpc.ts";
import { SessionService, type SessionServiceDeps } from "./service.ts";

export type { SessionConfig } from "./config.ts";
export { SESSION_ERRORS, SessionError, type SessionErrorKind } from "./errors.ts";
export { sessionMessage } from "./rpc.ts";
export { mapped, toConnectError } from "./rpc_errors.ts";
export { type CreateSession, SessionService } from "./service.ts";
export type { Session } from "./session.ts";
export type { Awaitable, Hidden, SessionFilter, SessionPage, SessionStore } from "./store.ts";

/** The wired service. */
export interface SessionModule {
  readonly service: SessionService;
  /** The implementation of aetherflow.session.v1.SessionService. */
  readonly handlers: ServiceImpl<typeof SessionServiceDesc>;
  /** Ends watches, keeps everything, lets go of the store. Idempotent. */
  close(): Promise<void>;
}

/** Wires the service on an open store, which becomes the module's to close. */
export function createSessionModule(deps: SessionServiceDeps): SessionModule {
  const service = new SessionService(deps);
  return {
    service,
    handlers: createSessionHandlers({ service, pause: deps.pause }),
    close: () => service.close(),
  };
}
