/** Whether a caller may use a route at all. What of a service's things a caller may touch, the service judges. */
import { Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { Access } from "$proto/aetherflow/gateway/v1/edge_pb.ts";
import { ADMIN } from "../../runtime/principal.ts";
import type { Exchange } from "../exchange.ts";
import { GatewayError } from "../problem.ts";
import type { Authorization, Caller } from "../stages.ts";
import { credentialNeeded, insufficientRights } from "./failure.ts";

/** What an RPC takes; a Route has it. */
export interface AccessRule {
  readonly access: Access;
  /** Service whose grants a member needs; undefined: none. */
  readonly grant: string | undefined;
  /** Whether a grant to read is enough. */
  readonly isRead: boolean;
  /** etcd's RPCs carry reads and writes in one; its service looks at each. */
  readonly dialect: "aetherflow" | "etcd";
  /** `etcdserverpb.Auth/Authenticate`. */
  readonly rpcName: string;
}

/** The RPC by which the key-value store's own users get their token. */
const STORE_LOGIN = "etcdserverpb.Auth/Authenticate";

/** Whether it takes no credential. */
export function isOpenToAnyone(access: Access): boolean {
  return access === Access.ANYONE;
}

/** Why a caller may not call; undefined when it may. */
export function refusalOf(rule: AccessRule, { principal, credential }: Caller): GatewayError | undefined {
  if (rule.access === Access.ANYONE) return undefined;
  if (principal.kind === Principal_Kind.ANONYMOUS) {
    // The store knows its own tokens; it lets nobody in without one.
    const isStores = rule.grant === "kv" && rule.access !== Access.ADMIN &&
      (credential === "etcd_token" || rule.rpcName === STORE_LOGIN);
    return isStores ? undefined : credentialNeeded();
  }
  if (principal.roles.includes(ADMIN)) return undefined;
  if (rule.access === Access.ADMIN) return insufficientRights(`this takes the role ${ADMIN}`);
  const { grant } = rule;
  if (grant === undefined) return undefined;
  const isWrite = !rule.isRead && rule.dialect !== "etcd";
  const mayCall = principal.grants.some(({ service, write }) =>
    (service === grant || service === "*") && (write || !isWrite)
  );
  if (mayCall) return undefined;
  return insufficientRights(`this takes a grant to ${isWrite ? "write" : "read"} for ${grant}`);
}

/** Creates the stage. `closedPaths`: paths of the gateway's own that take a credential. */
export function createAuthorization(closedPaths: ReadonlySet<string>): Authorization {
  return {
    authorize(exchange: Exchange): void {
      const { match } = exchange;
      const caller = exchange.caller!;
      if (match !== undefined) {
        const refusal = refusalOf(match.route, caller);
        if (refusal !== undefined) throw refusal;
      } else if (closedPaths.has(exchange.path) && caller.principal.kind === Principal_Kind.ANONYMOUS) {
        throw credentialNeeded();
      }
    },
  };
}
