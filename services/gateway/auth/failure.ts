/** How the gateway says that a credential does not do: RFC 6750 §3. */
import { GatewayError } from "../problem.ts";

const REALM = 'Bearer realm="aetherflow"';

/** No credential came where one is needed. */
export function credentialNeeded(): GatewayError {
  return new GatewayError(
    "unauthenticated",
    "this takes a credential: a token, an API key or a signed-in browser",
    {
      challenge: REALM,
    },
  );
}

/** A credential came that is none, or is none any more. `why` is shown to the client, so it says nothing of what would do:
 *  printable ASCII without quotes and backslashes. */
export function invalidCredential(why: string, cause?: unknown): GatewayError {
  return new GatewayError("unauthenticated", why, {
    challenge: `${REALM}, error="invalid_token", error_description="${why}"`,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Somebody is known and may not. */
export function insufficientRights(why: string): GatewayError {
  return new GatewayError("permission_denied", why, { challenge: `${REALM}, error="insufficient_scope"` });
}
