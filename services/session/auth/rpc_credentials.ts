/** CredentialService: what gateways ask. */
import type {
  AuthenticateRequest,
  CredentialService,
  WatchPolicyResponse,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { PRINCIPAL_METADATA } from "../../runtime/principal.ts";
import type { Authenticated, Authenticator } from "./authenticator.ts";
import { AuthError } from "./errors.ts";
import type { AuthMetrics, CredentialKind } from "./metrics.ts";
import type { Policy } from "./policy.ts";
import { asWireError, mapped } from "./rpc_errors.ts";

/** What the handlers need. */
export interface CredentialHandlersDeps {
  readonly authenticator: Authenticator;
  readonly policy: Policy;
  readonly metrics: AuthMetrics;
}

const KINDS: Readonly<Record<NonNullable<AuthenticateRequest["credential"]["case"]>, CredentialKind>> = {
  sessionId: "session_id",
  sessionToken: "session_token",
  apiKey: "api_key",
  password: "password",
};

/** The implementation of CredentialService. */
export function createCredentialHandlers(
  { authenticator, policy, metrics }: CredentialHandlersDeps,
): ServiceImpl<typeof CredentialService> {
  async function authenticate({ credential }: AuthenticateRequest): Promise<Authenticated> {
    switch (credential.case) {
      case "sessionId":
        return await authenticator.bySessionId(credential.value);
      case "sessionToken":
        return await authenticator.bySessionToken(credential.value);
      case "apiKey":
        return await authenticator.byApiKey(credential.value);
      case "password":
        return await authenticator.byPassword(credential.value.username, credential.value.password);
      case undefined:
        throw new AuthError("badCredential");
    }
  }

  return {
    async authenticate(request, context) {
      checkWorker(context);
      const kind = request.credential.case === undefined ? "none" : KINDS[request.credential.case];
      try {
        const { principal, expiresAtMs } = await mapped(() => authenticate(request));
        metrics.authentication(kind, "ok");
        return {
          $typeName: "aetherflow.auth.v1.AuthenticateResponse",
          principal,
          ...(expiresAtMs === undefined ? {} : { expiresAt: timestampFromMs(expiresAtMs) }),
        };
      } catch (error) {
        const isRefused = error instanceof ConnectError && error.code === Code.Unauthenticated;
        metrics.authentication(kind, isRefused ? "refused" : "failed");
        throw error;
      }
    },

    async *watchPolicy(_request, context): AsyncGenerator<WatchPolicyResponse, void, void> {
      checkWorker(context);
      try {
        for await (const { isRequired, jwks, issuer, audience, secrets } of policy.watch(context.signal)) {
          yield {
            $typeName: "aetherflow.auth.v1.WatchPolicyResponse",
            isRequired,
            jwks,
            issuer,
            audience,
            secretKeys: { ...secrets },
          };
        }
      } catch (error) {
        throw asWireError(error);
      }
    },
  };
}

/** These calls tell secrets: they are the product's own. A gateway names a principal with every call that it passes on. */
function checkWorker(context: HandlerContext): void {
  if (context.requestHeader.get(PRINCIPAL_METADATA) !== null) {
    throw new ConnectError("auth: this is asked by workers only", Code.PermissionDenied);
  }
}
