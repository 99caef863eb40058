/** Which edges are open to a network, and what that takes. Pure. */
import { isLoopbackHost } from "../limits/protected_mode.ts";

/** The part of the configuration that says so. */
export interface ExposureConfig {
  readonly http: { readonly host: string; readonly tls: { readonly certFile: string } };
  readonly grpc: {
    readonly host: string;
    readonly tls: { readonly certFile: string; readonly clientCaFile: string };
  };
  readonly resp: { readonly host: string };
  readonly trustedProxies: readonly unknown[];
}

/** Edges at which strangers may knock who have not shown a certificate. */
export function openEdges({ http, grpc, resp }: ExposureConfig): ("http" | "grpc" | "resp")[] {
  const found: ("http" | "grpc" | "resp")[] = [];
  if (!isLoopbackHost(http.host)) found.push("http");
  if (!isLoopbackHost(grpc.host) && grpc.tls.clientCaFile === "") found.push("grpc");
  if (!isLoopbackHost(resp.host)) found.push("resp");
  return found;
}

/** Why an edge may not be open while it is not sure that everybody must show who they are. */
export const NEEDS_AUTHENTICATION =
  "expected a loopback address (127.0.0.1, ::1 or localhost): no authentication is " +
  "configured, and without it AetherFlow is not opened to a network; set session.auth.mode to required to open it";

/** What is worth a word at the start: credentials that travel in the open. */
export function exposureWarnings(config: ExposureConfig): string[] {
  const found: string[] = [];
  const { http, grpc, resp, trustedProxies } = config;
  if (!isLoopbackHost(http.host) && http.tls.certFile === "" && trustedProxies.length === 0) {
    found.push(
      `HTTP on ${http.host} is not encrypted: set gateway.http.tls, or name the proxies that encrypt in ` +
        "gateway.trustedProxies",
    );
  }
  if (!isLoopbackHost(grpc.host) && grpc.tls.certFile === "") {
    found.push(`gRPC on ${grpc.host} is not encrypted: set gateway.grpc.tls`);
  }
  if (!isLoopbackHost(resp.host)) {
    found.push(`the Redis protocol on ${resp.host} is not encrypted: keep it to a network that you trust`);
  }
  return found;
}
