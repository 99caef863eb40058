/** Who calls over gRPC, and whether they may: what its edge asks before a call reaches a worker. */
import { Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import type { GatewayError } from "../problem.ts";
import type { Caller } from "../stages.ts";
import { type AccessRule, refusalOf } from "./access.ts";
import type { Authenticator, CallCredentials } from "./authentication.ts";
import type { Followed } from "./followers.ts";
import { DEVELOPER_CALLER } from "./identity.ts";

/** What the edge asks. */
export interface CallGate {
  /** Who calls. @throws {GatewayError} (or rejects) `unauthenticated`, `unavailable`. */
  callerOf(shown: CallCredentials): Caller | Promise<Caller>;
  /** Why the caller may not make the call; undefined when it may. */
  refusalOf(rule: AccessRule, caller: Caller): GatewayError | undefined;
  /** Ends the call when its caller may not go on; until `unfollow`. */
  follow(call: Followed): void;
  unfollow(call: Followed): void;
  /** Resolves when what was changed before holds at this gateway. */
  refreshPolicy(): Promise<void>;
}

/** The gate of a gateway. */
export function createCallGate(authenticator: Authenticator): CallGate {
  return {
    callerOf: (shown) => authenticator.authenticateCall(shown),
    refusalOf,
    follow: (call) => authenticator.follow(call),
    unfollow: (call) => authenticator.unfollow(call),
    refreshPolicy: () => authenticator.refreshPolicy(),
  };
}

/** A gate that takes everybody for the developer of this machine: for what is served without users. */
export const OPEN_GATE: CallGate = {
  callerOf: () => DEVELOPER_CALLER,
  refusalOf: () => undefined,
  follow() {},
  unfollow() {},
  refreshPolicy: () => Promise.resolve(),
};

/** Whether a caller came in because nobody has to show who they are. */
export function isDeveloper({ principal }: Caller): boolean {
  return principal.kind === Principal_Kind.DEVELOPER;
}
