/** The TCP port under the gRPC edge: accepts connections, with or without TLS. */
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { TlsTexts } from "../../config.ts";
import { checkCertificate } from "../certificate.ts";

/** What listens. */
export interface TcpListener {
  /** Settles when connections are accepted. @throws {Error} (as a rejection) with `code` EADDRINUSE if the port is taken. */
  readonly listening: Promise<void>;
  /** `127.0.0.1:2379`, with the real port; known once it listens. */
  readonly address: string;
  /** Takes other certificates for connections that come from now on. @throws {Error} if they are none, or the listener has no
   *  TLS; then the old ones stay. */
  reload(tls: TlsTexts): void;
  /** Accepts no more. Connections live on. */
  close(): void;
}

/** Where to listen and whom to tell. */
export interface TcpListenerOptions {
  readonly host: string;
  /** 0 is any free one. */
  readonly port: number;
  /** Lets several workers share the port (Linux). */
  readonly isShared: boolean;
  readonly tls: TlsTexts | undefined;
}

/** Takes a connection, which has said nothing yet; with TLS, one whose handshake is done. */
export type AcceptSocket = (socket: Socket) => void;

/** Connections that the kernel holds until they are accepted: enough for thousands of clients that start at once. */
const BACKLOG = 4096;

/** Time for a TLS handshake, in milliseconds. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Starts to listen. `onTlsError` hears of handshakes that failed. */
export function listenTcp(
  { host, port, isShared, tls }: TcpListenerOptions,
  accept: AcceptSocket,
  onTlsError: () => void,
): TcpListener {
  const secure = tls === undefined ? undefined : createTlsServer({
    ...secureContext(tls),
    ...(tls.clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: true }),
    ALPNProtocols: ["h2", "http/1.1"],
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
  }, accept).on("tlsClientError", onTlsError);
  const server: Server = secure ?? createServer({ noDelay: true }, accept);
  const listening = new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port, backlog: BACKLOG, reusePort: isShared }, () => {
      server.off("error", reject);
      resolve();
    });
  });
  let address = "";
  return {
    listening: listening.then(() => {
      const { address: hostname, port } = server.address() as AddressInfo;
      address = hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
    }),
    get address() {
      return address;
    },
    reload(next) {
      if (secure === undefined) throw new Error("the gRPC port has no TLS: that takes a restart");
      if ((next.clientCa === undefined) !== (tls!.clientCa === undefined)) {
        throw new Error("whether the gRPC port asks for client certificates takes a restart");
      }
      checkCertificate(next);
      secure.setSecureContext(secureContext(next));
    },
    close: () => void server.close(),
  };
}

function secureContext({ cert, key, clientCa }: TlsTexts): { cert: string; key: string; ca?: string } {
  return clientCa === undefined ? { cert, key } : { cert, key, ca: clientCa };
}
