/** Callers as authentication makes them: with what has shown who they are. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { ANONYMOUS, DEVELOPER, encodePrincipal } from "../../runtime/principal.ts";
import type { Caller } from "../stages.ts";

/** What is shown to the session worker. */
export interface Proof {
  readonly kind: "session_id" | "session_token" | "api_key";
  readonly text: string;
}

/** Somebody who has shown who they are. */
export class Identity implements Caller {
  constructor(
    readonly principal: Principal,
    readonly encoded: string,
    readonly credential: Caller["credential"],
    /** What to show again to learn whether it still holds; undefined for others' tokens. */
    readonly proof: Proof | undefined,
    /** Milliseconds since 1970 from which it holds no more; Infinity when it does not end by itself. */
    readonly expiresAtMs: number,
  ) {}
}

/** Anybody on this machine, while nobody has to show who they are. */
export const DEVELOPER_CALLER: Caller = {
  principal: DEVELOPER,
  encoded: encodePrincipal(DEVELOPER),
  credential: "none",
};

/** Nobody. */
export const ANONYMOUS_CALLER: Caller = {
  principal: ANONYMOUS,
  encoded: encodePrincipal(ANONYMOUS),
  credential: "none",
};

/** Nobody to the gateway, with a token that the key-value store may know. */
export const ETCD_CALLER: Caller = { ...ANONYMOUS_CALLER, credential: "etcd_token" };
