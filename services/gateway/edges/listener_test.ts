import { connect, type TLSSocket } from "node:tls";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { CERTIFICATE, KEY } from "../../../tests/bench/transport/localhost_certificate.ts";
import type { TlsTexts } from "../config.ts";
import { createManualTimer } from "../testing/harness.ts";
import { SECOND_CERTIFICATE, SECOND_KEY } from "../testing/second_certificate.ts";
import { listenTcp } from "./grpc/listener.ts";
import type { HttpHandler } from "./http.ts";
import { listenHttp, RETIRE_MS } from "./listener.ts";

const FIRST: TlsTexts = { cert: CERTIFICATE, key: KEY, clientCa: undefined };
const SECOND: TlsTexts = { cert: SECOND_CERTIFICATE, key: SECOND_KEY, clientCa: undefined };

/** Name in the certificate that a new connection is shown, and the protocol that was agreed. */
async function shown(port: number): Promise<string> {
  const socket: TLSSocket = connect({
    port,
    host: "127.0.0.1",
    rejectUnauthorized: false,
    ALPNProtocols: ["h2"],
  });
  await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
  const { CN } = socket.getPeerCertificate().subject;
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.destroy();
  await closed;
  return `${CN} ${socket.alpnProtocol}`;
}

function client(http2: boolean): Deno.HttpClient {
  return Deno.createHttpClient({ caCerts: [CERTIFICATE, SECOND_CERTIFICATE], http1: !http2, http2 });
}

const echo: HttpHandler = (_request, remote) => Promise.resolve(new Response(`secure ${remote.isSecure}`));

Deno.test("listenHttp() speaks TLS over HTTP/1.1 and HTTP/2, and tells browsers to stay with it", async () => {
  const timer = createManualTimer();
  const listener = listenHttp(echo, {
    host: "127.0.0.1",
    port: 0,
    isShared: false,
    tls: FIRST,
    hstsMaxAgeS: 60,
    timer,
  });
  const { protocol, port } = new URL(listener.url);
  assertEquals(protocol, "https:");
  for (const http2 of [false, true]) {
    using http = client(http2);
    const answer = await fetch(`https://localhost:${port}/`, { client: http });
    assertEquals([
      await answer.text(),
      answer.headers.get("strict-transport-security"),
      answer.headers.get("connection"),
    ], [
      "secure true",
      "max-age=60",
      null,
    ]);
  }
  assertEquals(await shown(Number(port)), "localhost h2");
  await listener.shutdown();
});

Deno.test("HttpListener.reload() shows the new certificate, finishes what is under way and closes the old server", async () => {
  const timer = createManualTimer();
  const begun = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  const handler: HttpHandler = async (request, remote) => {
    if (!request.url.endsWith("/slow")) return await echo(request, remote);
    begun.resolve();
    await go.promise;
    return new Response("slow");
  };
  const listener = listenHttp(handler, { host: "127.0.0.1", port: 0, isShared: false, tls: FIRST, timer });
  const port = Number(new URL(listener.url).port);
  using http = client(false);
  const slow = fetch(`https://localhost:${port}/slow`, { client: http });
  await begun.promise;
  assertThrows(() => listener.reload({ ...SECOND, cert: "no certificate" }), Error, "certificate");
  assertThrows(() => listener.reload({ ...SECOND, key: KEY }), Error, "not the certificate's");
  assertEquals(await shown(port), "localhost h2");

  listener.reload(SECOND);
  go.resolve();
  const answer = await slow;
  assertEquals([await answer.text(), answer.headers.get("connection")], ["slow", "close"]);
  assertEquals(timer.fire(RETIRE_MS), 1);
  // Until the old server has closed its socket, a connection may still be its.
  let last = "";
  while (last !== "second h2") last = await shown(port).catch(() => "closing");
  using fresh = client(true);
  assertEquals(await (await fetch(`https://localhost:${port}/`, { client: fresh })).text(), "secure true");
  await listener.shutdown();
});

Deno.test("HttpListener.shutdown() does not wait for a server that retires", async () => {
  const timer = createManualTimer();
  const listener = listenHttp(echo, { host: "127.0.0.1", port: 0, isShared: false, tls: FIRST, timer });
  listener.reload(SECOND);
  await listener.shutdown();
  assertEquals(timer.waiting, []);
});

Deno.test("a listener without TLS is not reloaded into one", async () => {
  const plain = listenHttp(echo, { host: "127.0.0.1", port: 0, isShared: false, timer: createManualTimer() });
  assertThrows(() => plain.reload(SECOND), Error, "restart");
  assert(plain.url.startsWith("http://"));
  await plain.shutdown();
});

Deno.test("TcpListener.reload() shows the new certificate to new connections and keeps the old ones", async () => {
  const sockets: { destroy(): void; write(text: string): void }[] = [];
  const listener = listenTcp(
    { host: "127.0.0.1", port: 0, isShared: false, tls: FIRST },
    (socket) => void sockets.push(socket.on("error", () => {})),
    () => {},
  );
  await listener.listening;
  const port = Number(listener.address.split(":")[1]);
  const old = connect({ port, host: "127.0.0.1", rejectUnauthorized: false });
  await new Promise((resolve) => old.once("secureConnect", resolve));
  assertEquals(await shown(port), "localhost h2");
  assertThrows(() => listener.reload({ ...SECOND, cert: "no certificate" }));
  assertThrows(() => listener.reload({ ...SECOND, clientCa: CERTIFICATE }), Error, "restart");
  assertEquals(await shown(port), "localhost h2");
  listener.reload(SECOND);
  assertEquals(await shown(port), "second h2");
  const heard = new Promise((resolve) => old.once("data", (bytes) => resolve(String(bytes))));
  sockets[0]!.write("still here");
  assertEquals(await heard, "still here");
  old.destroy();
  for (const socket of sockets) socket.destroy();
  listener.close();
});
