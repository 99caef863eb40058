/** The rival for bulk: QUIC as the runtime has it, natively. */
import { answer } from "./ask.ts";
import { CERTIFICATE, KEY } from "./localhost_certificate.ts";

type Message =
  | { readonly do: "listen" }
  | { readonly do: "connect"; readonly port: number }
  | { readonly do: "bulk"; readonly bytes: number };

const alpnProtocols = ["bulk"];
let connection: Deno.QuicConn | undefined;

answer<Message>(async (message) => {
  switch (message.do) {
    case "listen": {
      const endpoint = new Deno.QuicEndpoint({ hostname: "127.0.0.1", port: 0 });
      void serve(endpoint.listen({ cert: CERTIFICATE, key: KEY, alpnProtocols }));
      return endpoint.addr.port;
    }
    case "connect":
      connection = await Deno.connectQuic({
        hostname: "127.0.0.1",
        port: message.port,
        serverName: "localhost",
        alpnProtocols,
        caCerts: [CERTIFICATE],
      });
      return true;
    case "bulk":
      return bulk(message.bytes);
  }
});

async function serve(listener: Deno.QuicListener): Promise<void> {
  const accepted = await listener.accept();
  for await (const stream of accepted.incomingBidirectionalStreams) {
    for await (const _ of stream.readable);
    const writer = stream.writable.getWriter();
    await writer.write(new Uint8Array(1));
    await writer.close();
  }
}

async function bulk(byteCount: number): Promise<number> {
  if (!connection) throw new Error("connect comes first");
  const startMs = performance.now();
  const stream = await connection.createBidirectionalStream();
  const writer = stream.writable.getWriter();
  for (let left = byteCount; left > 0; left -= 65_536) {
    await writer.ready;
    void writer.write(new Uint8Array(Math.min(left, 65_536)));
  }
  await writer.close();
  for await (const _ of stream.readable);
  return byteCount * 1_000 / (performance.now() - startMs);
}
