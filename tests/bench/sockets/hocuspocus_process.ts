/** The rival: @hocuspocus/server on Deno's own HTTP server, as its documents describe it. Documents are kept in memory, and edits
 *  are acknowledged when they are there. */
import { Hocuspocus } from "@hocuspocus/server";
import { answerLines } from "./process.ts";

const hocuspocus = new Hocuspocus({ quiet: true });

const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
  const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
  socket.binaryType = "arraybuffer";
  let client: ReturnType<typeof hocuspocus.handleConnection> | undefined;
  socket.onopen = () => client = hocuspocus.handleConnection(socket, request);
  socket.onmessage = ({ data }) => client?.handleMessage(new Uint8Array(data as ArrayBuffer));
  socket.onclose = ({ code, reason }) => client?.handleClose({ code, reason });
  return response;
});

await answerLines(() => `ws://127.0.0.1:${server.addr.port}`);
