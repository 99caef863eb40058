/** The HTTP server under the edge. */
import type { HttpHandler } from "./http.ts";

/** A listening HTTP server. */
export interface HttpListener {
  /** `http://127.0.0.1:8080`, with the real port. */
  readonly url: string;
  /** Stops accepting; resolves when the requests under way are answered and their connections closed. */
  shutdown(): Promise<void>;
}

/** Listens on `host` and `port` (0 is any free one). `reusePort` lets several workers share a port (Linux).
 *  @throws {Deno.errors.AddrInUse} when the port is taken. */
export function listenHttp(
  handler: HttpHandler,
  { host, port }: { readonly host: string; readonly port: number },
  reusePort: boolean,
): HttpListener {
  const server = Deno.serve({ hostname: host, port, reusePort, onListen() {} }, (request, { remoteAddr }) => {
    const { hostname, port } = remoteAddr as Deno.NetAddr;
    return handler(request, { hostname, port, isSecure: false });
  });
  const { hostname, port: realPort } = server.addr;
  return {
    url: `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${realPort}`,
    shutdown: () => server.shutdown(),
  };
}
