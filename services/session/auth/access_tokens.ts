/** Access tokens: JWT of RFC 9068. They name a session, and are good for as long as that lives and they themselves do. */
import { SignJWT } from "jose";
import { formatGuuid, type GuuidSource } from "../../runtime/guuid.ts";
import type { Session } from "../session.ts";
import type { User } from "./accounts.ts";
import type { AuthConfig } from "./config.ts";
import type { SigningKeys } from "./signing_keys.ts";

/** `typ` of the header: no other JWT of ours, or of anybody, passes for one. */
export const ACCESS_TOKEN_TYPE = "at+jwt";

/** A token and how long it is good, in whole seconds. */
export interface AccessToken {
  readonly text: string;
  readonly expiresInS: number;
}

/** What tokens are made of. */
export interface AccessTokensDeps {
  readonly keys: SigningKeys;
  readonly config: Pick<AuthConfig, "issuer" | "audience" | "accessTokenMs">;
  readonly guuids: GuuidSource;
  readonly clock: { wallMs(): number };
}

/** Makes access tokens. */
export class AccessTokens {
  readonly #deps: AccessTokensDeps;

  constructor(deps: AccessTokensDeps) {
    this.#deps = deps;
  }

  /** A token of a session. It ends with the session at the latest. */
  async make(user: User, session: Session): Promise<AccessToken> {
    const { keys, config, guuids, clock } = this.#deps;
    const { kid, algorithm, key } = await keys.signer();
    const nowMs = clock.wallMs();
    const iat = Math.floor(nowMs / 1_000);
    const exp = Math.floor(Math.min(nowMs + config.accessTokenMs, session.endsAtMs) / 1_000);
    const text = await new SignJWT({ sid: session.id, username: user.username, roles: [...user.roles] })
      .setProtectedHeader({ alg: algorithm, typ: ACCESS_TOKEN_TYPE, kid })
      .setIssuer(config.issuer)
      .setAudience(config.audience)
      .setSubject(user.id)
      .setJti(formatGuuid(guuids.next()))
      .setIssuedAt(iat)
      .setNotBefore(iat)
      .setExpirationTime(exp)
      .sign(key);
    return { text, expiresInS: exp - iat };
  }
}
