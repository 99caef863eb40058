/** The HTTP server under the edge, with or without TLS. */
import type { TlsTexts } from "../config.ts";
import type { Timer } from "../timer.ts";
import { checkCertificate } from "./certificate.ts";
import type { HttpHandler } from "./http.ts";

/** A listening HTTP server. */
export interface HttpListener {
  /** `http://127.0.0.1:8080` or, with TLS, `https://127.0.0.1:8080`, with the real port. */
  readonly url: string;
  /** Takes another certificate: new connections get it, and who has one with the old certificate is asked to come again.
   *  @throws {Error} if it is none, or the listener has no TLS; then the old one stays. */
  reload(tls: TlsTexts): void;
  /** Stops accepting; resolves when the requests under way are answered and their connections closed. */
  shutdown(): Promise<void>;
}

/** Where and how to listen. */
export interface HttpListenerOptions {
  readonly host: string;
  /** 0 is any free one. */
  readonly port: number;
  /** Lets several workers share the port (Linux). */
  readonly isShared: boolean;
  /** Undefined: no TLS. With TLS the client may choose HTTP/2 or HTTP/1.1 (ALPN). */
  readonly tls?: Pick<TlsTexts, "cert" | "key"> | undefined;
  /** `max-age` of Strict-Transport-Security, with TLS; 0 leaves the header out. */
  readonly hstsMaxAgeS?: number;
  readonly timer: Timer;
}

/** A certificate belongs to a server of Deno for as long as it lives, so that a second one on the same port takes over. Measured with
 *  40 clients that never pause, half of them on a new connection for each request, over five reloads: of 13,500 requests 40 over
 *  HTTP/1.1 and 5 over HTTP/2 met a connection that was just closing. The gRPC port swaps certificates without that.
 *
 *  Time in which a server whose certificate was replaced tells HTTP/1 clients with each answer to come again on a new
 *  connection, in milliseconds; then it closes those that had nothing to ask. HTTP/2 has GOAWAY for that. */
export const RETIRE_MS = 1_000;

/** Listens. @throws {Deno.errors.AddrInUse} when the port is taken; {Error} when the certificate is none. */
export function listenHttp(handler: HttpHandler, options: HttpListenerOptions): HttpListener {
  const { host, isShared, timer } = options;
  const isSecure = options.tls !== undefined;
  const hsts = isSecure && options.hstsMaxAgeS ? `max-age=${options.hstsMaxAgeS}` : undefined;
  /** Servers that close, and what makes them do it at once. */
  const retiring = new Map<Deno.HttpServer, () => Promise<void>>();
  let current = open(options.port, options.tls);
  const { hostname, port } = current.addr;

  function open(port: number, tls: HttpListenerOptions["tls"]): Deno.HttpServer<Deno.NetAddr> {
    // A certificate belongs to a server of Deno for good, so a second one on the same port takes over; for that the
    // first must share it (Linux).
    const reusePort = isShared || (isSecure && Deno.build.os === "linux");
    const where = { hostname: host, port, reusePort, onListen() {} };
    if (tls === undefined) {
      return Deno.serve(where, (request, { remoteAddr: { hostname, port } }) => {
        return handler(request, { hostname, port, isSecure: false });
      });
    }
    const server = Deno.serve(
      { ...where, cert: tls.cert, key: tls.key },
      async (request, { remoteAddr: { hostname, port } }) => {
        const response = await handler(request, { hostname, port, isSecure: true });
        if (response.status === 101) return response; // its connection is a WebSocket's from now on
        if (hsts !== undefined) response.headers.set("strict-transport-security", hsts);
        if (server !== current) response.headers.set("connection", "close");
        return response;
      },
    );
    return server;
  }

  function retire(server: Deno.HttpServer): void {
    const close = () => {
      cancel();
      return server.shutdown().finally(() => retiring.delete(server));
    };
    const cancel = timer.after(RETIRE_MS, () => void close());
    retiring.set(server, close);
  }

  return {
    url: `${isSecure ? "https" : "http"}://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`,
    reload(tls) {
      if (!isSecure) throw new Error("the HTTP port has no TLS: that takes a restart");
      checkCertificate(tls);
      const old = current;
      current = open(port, tls);
      retire(old);
    },
    async shutdown() {
      await Promise.all([current.shutdown(), ...[...retiring.values()].map((close) => close())]);
    },
  };
}
