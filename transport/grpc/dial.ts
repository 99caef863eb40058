/** Sockets towards servers: TCP, or TLS with HTTP/2 agreed on. */
import { Buffer } from "node:buffer";
import { isIP } from "node:net";
import { checkServerIdentity, connect, type TLSSocket } from "node:tls";

/** Certificates as PEM texts. */
export interface GrpcTls {
  /** Authorities that the server's certificate may come from, besides the platform's. */
  readonly ca?: string;
  /** The client's certificate and key, for servers that ask for one. */
  readonly cert?: string;
  readonly key?: string;
  /** Name the server's certificate must carry, when it is not the address'. */
  readonly serverName?: string;
}

/** A connection's bytes. One `read` and one `write` at a time. */
export interface ByteSocket {
  /** The next bytes, which are the caller's from now on; null at the end. */
  read(): Promise<Uint8Array | null>;
  /** Resolves when the platform has taken all. */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends it in both directions; what waits rejects. Idempotent. */
  close(): void;
}

/** Bytes of one read: what a socket's buffer mostly has. */
const READ_BYTES = 64 * 1024;

/** Connects to `host:port` (IPv6 in brackets). The platform resolves a name and asks for the right to reach the name itself.
 *  @throws what the platform says, or the reason of `signal`. */
export async function dial(
  address: string,
  tls: GrpcTls | undefined,
  signal: AbortSignal,
): Promise<ByteSocket> {
  const { hostname, port } = splitAddress(address);
  if (tls !== undefined) return await dialTls(hostname, port, tls, signal);
  const socket = await Deno.connect({ hostname, port, signal });
  socket.setNoDelay(true);
  return denoSocket(socket);
}

/** Node's TLS: the platform's own names the server to itself by what it connects to only, and does not let go of a socket
 *  that is closed while it shakes hands. */
function dialTls(
  hostname: string,
  port: number,
  { ca, cert, key, serverName }: GrpcTls,
  signal: AbortSignal,
): Promise<ByteSocket> {
  const host = hostname.replace(/^\[|\]$/g, "");
  const name = serverName ?? host;
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port,
      ALPNProtocols: [HTTP2],
      ...(isIP(name) === 0 ? { servername: name } : {}),
      checkServerIdentity: (_host, certificate) => checkServerIdentity(name, certificate),
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    });
    const abort = () => socket.destroy(signal.reason);
    signal.addEventListener("abort", abort);
    socket.on("close", () => signal.removeEventListener("abort", abort));
    socket.once("error", reject);
    socket.once("secureConnect", () => {
      signal.removeEventListener("abort", abort);
      if (socket.alpnProtocol === HTTP2) return resolve(nodeSocket(socket));
      socket.destroy(new Error("the server does not speak HTTP/2 over TLS"));
    });
  });
}

function denoSocket(socket: Deno.Conn): ByteSocket {
  const buffer = new Uint8Array(READ_BYTES);
  let isClosed = false;
  return {
    async read() {
      const count = await socket.read(buffer);
      return count === null ? null : buffer.slice(0, count);
    },
    async write(bytes) {
      for (let at = 0; at < bytes.length;) at += await socket.write(at === 0 ? bytes : bytes.subarray(at));
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      socket.close();
    },
  };
}

function nodeSocket(socket: TLSSocket): ByteSocket {
  socket.setNoDelay(true);
  socket.on("error", () => {}); // told by the read or write that fails
  const parts: AsyncIterator<Buffer> = socket[Symbol.asyncIterator]();
  return {
    async read() {
      const { value, done } = await parts.next();
      return done === true ? null : value;
    },
    write: (bytes) =>
      new Promise((resolve, reject) => socket.write(bytes, (error) => error ? reject(error) : resolve())),
    close: () => void socket.destroy(),
  };
}

const HTTP2 = "h2";

function splitAddress(address: string): { hostname: string; port: number } {
  const colon = address.lastIndexOf(":");
  const port = Number(address.slice(colon + 1));
  if (colon < 1 || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new RangeError(`Cannot connect: the address must be host:port, got ${JSON.stringify(address)}`);
  }
  return { hostname: address.slice(0, colon), port };
}
