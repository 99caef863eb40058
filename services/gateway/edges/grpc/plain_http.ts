/** HTTP without gRPC on the gRPC port: what etcd answers there (health, version, metrics, its JSON gateway), by the
 *  handler of the HTTP edge. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { ERROR } from "../../../../transport/http2/errors.ts";
import { encodeFields } from "../../../../transport/http2/hpack.ts";
import type { RequestHead } from "../../../../transport/http2/request.ts";
import type { Http2Stream, StreamHandler } from "../../../../transport/http2/stream.ts";
import type { Remote } from "../../stages.ts";
import type { HttpHandler } from "../http.ts";

/** What is needed to answer. */
export interface PlainHttpDeps {
  readonly handler: HttpHandler;
  /** Time for a request's headers and for a request as a whole, in milliseconds. */
  readonly requestTimeoutMs: number;
  /** Largest sum of header names and values, in bytes. */
  readonly maxHeaderBytes: number;
  /** Whether the port speaks TLS. */
  readonly isSecure: boolean;
}

/** Answers requests. */
export interface PlainHttp {
  /** Takes a connection whose first bytes are HTTP/1. */
  serve(socket: Socket): void;
  /** Answers one HTTP/2 request that is no gRPC call. */
  answer(stream: Http2Stream, head: RequestHead, isWhole: boolean, remote: Remote): void;
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

/** How often clients that are too slow with a request are looked for, in milliseconds. */
const CHECK_INTERVAL_MS = 1_000;

/** Creates it. */
export function createPlainHttp(deps: PlainHttpDeps): PlainHttp {
  const options = { maxHeaderSize: deps.maxHeaderBytes, connectionsCheckingInterval: CHECK_INTERVAL_MS };
  const server = createServer(options, (request, response) => {
    answerHttp1(request, response).catch(() => response.destroy());
  });
  server.headersTimeout = deps.requestTimeoutMs;
  server.requestTimeout = deps.requestTimeoutMs;
  // It is given its sockets and listens nowhere, and only a listening server looks for slow clients.
  server.emit("listening");
  const sockets = new Set<Socket>(); // bounded by gateway.grpc.maxConnections

  async function answerHttp1(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const method = request.method ?? "GET";
    const headers = new Headers();
    const { rawHeaders } = request;
    for (let i = 0; i < rawHeaders.length; i += 2) addField(headers, rawHeaders[i]!, rawHeaders[i + 1]!);
    const target = request.url ?? "/";
    let body: ReadableStream | undefined;
    if (hasBody(method) && isServed(target)) body = ReadableStream.from(request);
    else request.resume();
    const { remoteAddress, remotePort } = request.socket;
    const remote = { hostname: remoteAddress ?? "", port: remotePort ?? 0, isSecure: deps.isSecure };
    const answer = await respond(method, target, headers, body, remote);
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    await writeBody(answer, new Http1Answer(response));
  }

  async function answerHttp2(
    stream: Http2Stream,
    head: RequestHead,
    isWhole: boolean,
    remote: Remote,
  ): Promise<void> {
    const { method, path, authority, fields } = head;
    const headers = new Headers();
    for (let i = 0; i < fields.length; i += 2) addField(headers, fields[i]!, fields[i + 1]!);
    if (!headers.has("host") && authority !== "") headers.set("host", authority);
    const exchange = new Http2Exchange(stream);
    stream.handler = exchange;
    if (isWhole) exchange.onBodyEnd();
    const answer = await respond(
      method,
      path,
      headers,
      hasBody(method) && isServed(path) ? exchange.body : exchange.discard(),
      remote,
    );
    if (!stream.isOpen) return void answer.body?.cancel();
    stream.respond(
      encodeFields([[":status", String(answer.status)], ...answer.headers]),
      answer.body === null,
    );
    if (answer.body !== null) await writeBody(answer, exchange);
  }

  async function respond(
    method: string,
    target: string,
    headers: Headers,
    body: ReadableStream | undefined,
    remote: Remote,
  ): Promise<Response> {
    const path = pathOf(target);
    if (!isServed(target)) {
      return new Response("404 page not found\n", { status: 404, headers: { "content-type": "text/plain" } });
    }
    const request = new Request(`http://localhost${target}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body }),
    });
    const answer = await deps.handler(request, remote);
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
    answer(stream, head, isWhole, remote) {
      answerHttp2(stream, head, isWhole, remote).catch(() => stream.reset(ERROR.INTERNAL_ERROR));
    },
    drain: () => server.closeIdleConnections(),
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
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

/** Where an answer's body goes. */
interface AnswerWriter {
  readonly isGone: boolean;
  /** False asks to wait for `writable`. */
  write(bytes: Uint8Array): boolean;
  /** Settles when more may be written, or when the client has gone. */
  writable(): Promise<void>;
  end(): void;
  onGone(fn: () => void): void;
}

/** Writes a body no faster than the client takes it, and stops the source when the client has gone. */
async function writeBody(answer: Response, to: AnswerWriter): Promise<void> {
  if (answer.body === null) return to.end();
  const reader = answer.body.getReader();
  to.onGone(() => void reader.cancel().catch(() => {}));
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (to.isGone) return;
    if (!to.write(part.value)) await to.writable();
  }
  to.end();
}

/** An answer over HTTP/1. */
class Http1Answer implements AnswerWriter {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  get isGone(): boolean {
    return this.#response.destroyed;
  }

  write(bytes: Uint8Array): boolean {
    return this.#response.write(bytes);
  }

  writable(): Promise<void> {
    return new Promise((resolve) => {
      this.#response.once("drain", resolve);
      this.#response.once("close", resolve);
    });
  }

  end(): void {
    this.#response.end();
  }

  onGone(fn: () => void): void {
    this.#response.once("close", fn);
  }
}

/** A request and its answer over HTTP/2. */
class Http2Exchange implements StreamHandler, AnswerWriter {
  /** The request's body. Holds at most the stream's window. */
  readonly body: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly #stream: Http2Stream;
  #source: ReadableStreamDefaultController | undefined;
  #wake: (() => void) | undefined;
  #gone: (() => void) | undefined;

  constructor(stream: Http2Stream) {
    this.#stream = stream;
    this.body = new ReadableStream({
      start: (controller) => void (this.#source = controller),
      pull: () => stream.resume(),
      cancel: () => void this.discard(),
    }, { highWaterMark: 1 });
  }

  get isGone(): boolean {
    return !this.#stream.isOpen;
  }

  /** Keeps nothing of the request's body from now on. */
  discard(): undefined {
    this.#source = undefined;
    this.#stream.resume();
  }

  onBody(bytes: Uint8Array): void {
    const source = this.#source;
    if (source === undefined) return;
    source.enqueue(bytes);
    if (source.desiredSize! <= 0) this.#stream.pause();
  }

  onBodyEnd(): void {
    this.#source?.close();
    this.#source = undefined;
  }

  onReset(): void {
    this.#source?.error(new Error("the client gave the request up"));
    this.#source = undefined;
    this.onWritable();
    this.#gone?.();
  }

  onWritable(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  write(bytes: Uint8Array): boolean {
    return this.#stream.write(bytes);
  }

  writable(): Promise<void> {
    return new Promise((resolve) => {
      if (this.isGone) resolve();
      else this.#wake = resolve;
    });
  }

  end(): void {
    this.#stream.end();
  }

  onGone(fn: () => void): void {
    this.#gone = fn;
  }
}

function hasBody(method: string): boolean {
  return method !== "GET" && method !== "HEAD";
}

function pathOf(target: string): string {
  const queryAt = target.indexOf("?");
  return queryAt < 0 ? target : target.slice(0, queryAt);
}

function isServed(target: string): boolean {
  const path = pathOf(target);
  return PATHS.has(path) || JSON_GATEWAY.test(path);
}

function addField(headers: Headers, name: string, value: string): void {
  if (!HOP_BY_HOP.has(name.toLowerCase())) headers.append(name, value);
}
