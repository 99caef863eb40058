/** Figures of authentication. */
import { Counter, type Registry } from "../../runtime/metrics.ts";

/** Where they are counted. Results are words of the code, never of callers. */
export interface AuthMetrics {
  login(result: "ok" | "refused" | "throttled" | "failed"): void;
  /** `repeat`: the same successor again; `reuse`: a session was ended. */
  refresh(result: "ok" | "repeat" | "reuse" | "refused" | "failed"): void;
  authentication(credential: CredentialKind, result: "ok" | "refused" | "failed"): void;
}

/** What callers may show. */
export type CredentialKind = "session_id" | "session_token" | "api_key" | "password" | "none";

/** Registers the figures. */
export function createAuthMetrics(registry: Registry): AuthMetrics {
  const registers = [registry];
  const logins = new Counter({
    name: "aetherflow_auth_logins_total",
    help: "Logins, by result.",
    labelNames: ["result"],
    registers,
  });
  const refreshes = new Counter({
    name: "aetherflow_auth_refreshes_total",
    help: "Refresh tokens that came, by result; reuse ends the session.",
    labelNames: ["result"],
    registers,
  });
  const authentications = new Counter({
    name: "aetherflow_auth_authentications_total",
    help: "Credentials that gateways asked about, by kind and result.",
    labelNames: ["credential", "result"],
    registers,
  });
  return {
    login: (result) => logins.inc({ result }),
    refresh: (result) => refreshes.inc({ result }),
    authentication: (credential, result) => authentications.inc({ credential, result }),
  };
}

/** Counts nothing, for tests. */
export const noMetrics: AuthMetrics = { login() {}, refresh() {}, authentication() {} };
