/** HTTP without gRPC on the gRPC port: what etcd answers there (health, version, metrics, its JSON gateway), by the
 *  handler of the HTTP edge. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import type { HttpHandler } from "../http.ts";

/** What is needed to answer. */
export interface PlainHttpDeps {
  readonly handler: HttpHandler;
  /** Time for a request's headers and for a request as a whole, in milliseconds. */
  readonly requestTimeoutMs: number;
  /** Largest sum of header names and values, in bytes. */
  readonly maxHeaderBytes: number;
}

/** Answers requests. */
export interface PlainHttp {
  /** Takes a connection whose first bytes are HTTP/1. */
  serve(socket: Socket): void;
  /** Answers one HTTP/2 request that is no gRPC call. */
  answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void;
  /** Closes what is idle. */
  drain(): void;
  /** Closes everything. */
  close(): void;
}

/** What etcd says of itself, of the release that Maintenance.Status names. */
const ETCD_VERSION = { etcdserver: "3.5.21", etcdcluster: "3.5.0" };

/** Paths that etcd's port has. The rest of the HTTP API is at the HTTP port: a path is made a URL here, which would change
 *  keys such as `..` in it. */
const PATHS: ReadonlySet<string> = new Set(["/health", "/version", "/metrics", "/livez", "/readyz"]);
const JSON_GATEWAY = /^\/v3\/[A-Za-z0-9_/-]*$/;

/** The line that etcdctl looks for has no labels. */
const LABELLED_MEMORY = /^process_resident_memory_bytes\{[^}]*\} (.*)\n/gm;

/** Header fields that speak of the connection and have no meaning to the handler. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
]);

/** Creates it. */
export function createPlainHttp(deps: PlainHttpDeps): PlainHttp {
  const server = createServer({ maxHeaderSize: deps.maxHeaderBytes }, (request, response) => {
    answerHttp1(request, response).catch(() => response.destroy());
  });
  server.headersTimeout = deps.requestTimeoutMs;
  server.requestTimeout = deps.requestTimeoutMs;
  const sockets = new Set<Socket>(); // bounded by gateway.grpc.maxConnections

  async function answerHttp1(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const answer = await respond(request.method ?? "GET", request.url ?? "/", request.headers, request);
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    await writeBody(answer, response);
  }

  async function answerHttp2(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    const method = String(headers[":method"] ?? "GET");
    const answer = await respond(method, String(headers[":path"] ?? "/"), headers, stream);
    if (stream.destroyed) return void answer.body?.cancel();
    const fields: OutgoingHttpHeaders = { ":status": answer.status, ...Object.fromEntries(answer.headers) };
    stream.respond(fields);
    await writeBody(answer, stream);
  }

  async function respond(
    method: string,
    target: string,
    fields: IncomingHttpHeaders,
    body: Readable,
  ): Promise<Response> {
    const queryAt = target.indexOf("?");
    const path = queryAt < 0 ? target : target.slice(0, queryAt);
    if (!PATHS.has(path) && !JSON_GATEWAY.test(path)) {
      body.resume();
      return new Response("404 page not found\n", { status: 404, headers: { "content-type": "text/plain" } });
    }
    const headers = new Headers();
    for (const [name, value] of Object.entries(fields)) {
      if (name.startsWith(":") || HOP_BY_HOP.has(name) || value === undefined) continue;
      for (const item of Array.isArray(value) ? value : [value]) headers.append(name, item);
    }
    const authority = fields[":authority"];
    if (!headers.has("host") && typeof authority === "string") headers.set("host", authority);
    const hasBody = method !== "GET" && method !== "HEAD";
    if (!hasBody) body.resume();
    const request = new Request(`http://localhost${target}`, {
      method,
      headers,
      ...(hasBody ? { body: ReadableStream.from(body) as ReadableStream<Uint8Array<ArrayBuffer>> } : {}),
    });
    const answer = await deps.handler(request);
    if (!answer.ok) return answer;
    if (path === "/version") return Response.json(ETCD_VERSION);
    if (path === "/health") return Response.json({ health: "true" });
    if (path === "/metrics" && method === "GET") return withPlainMemory(answer);
    return answer;
  }

  return {
    serve(socket) {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      server.emit("connection", socket);
    },
    answer(stream, headers) {
      stream.on("error", () => {});
      answerHttp2(stream, headers).catch(() => stream.close());
    },
    drain: () => server.closeIdleConnections(),
    close() {
      for (const socket of sockets) socket.destroy();
    },
  };
}

async function withPlainMemory(answer: Response): Promise<Response> {
  let value: string | undefined;
  const text = (await answer.text()).replace(LABELLED_MEMORY, (_, figure: string) => {
    value ??= figure;
    return "";
  });
  const line = value === undefined ? "" : `process_resident_memory_bytes ${value}\n`;
  return new Response(text + line, { headers: answer.headers });
}

/** Writes a body no faster than the client takes it, and stops the source when the client has gone. */
async function writeBody(answer: Response, to: Writable): Promise<void> {
  if (answer.body === null) return void to.end();
  const reader = answer.body.getReader();
  to.once("close", () => reader.cancel().catch(() => {}));
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (to.destroyed) return;
    if (!to.write(part.value)) {
      await new Promise<void>((resolve) => {
        to.once("drain", resolve);
        to.once("close", resolve);
      });
    }
  }
  to.end();
}
