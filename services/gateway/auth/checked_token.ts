/** What is common to our own access tokens and those of others. */
import type { Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { invalidCredential } from "./failure.ts";

/** Seconds by which clocks of two machines may differ. */
export const CLOCK_TOLERANCE_S = 5;
/** Who a token of an issuer is of. */
export interface ExternalIdentity {
  readonly principal: Principal;
  readonly encoded: string;
}

/** What a token that was checked says. */
export interface VerifiedToken {
  /** Milliseconds since 1970 from which it is good no more. */
  readonly expiresAtMs: number;
  /** Of our own tokens: the session that it is a proof of, and the user it names. */
  readonly sessionId: string;
  readonly userId: string;
  /** Of others' tokens: who it is of. */
  readonly external: ExternalIdentity | undefined;
}

/** Why jose refused a token, as the client is told: not which check failed, but for its age, which a client must know. */
export function refusalOf(error: unknown): Error {
  const code = (error as { code?: unknown }).code;
  if (typeof code !== "string" || !code.startsWith("ERR_J")) return error as Error;
  if (code === "ERR_JWT_EXPIRED") return invalidCredential("the token has expired", error);
  return invalidCredential("the token is not valid", error);
}
