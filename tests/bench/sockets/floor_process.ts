/** The floor: a WebSocket server that hands each message to all others as it came, and does nothing else. */
import { answerLines } from "./process.ts";

const sockets = new Set<WebSocket>();

const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
  const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: 0 });
  socket.binaryType = "arraybuffer";
  socket.onopen = () => sockets.add(socket);
  socket.onclose = () => sockets.delete(socket);
  socket.onmessage = ({ data }) => {
    for (const other of sockets) if (other !== socket) other.send(data);
  };
  return response;
});

await answerLines(() => `ws://127.0.0.1:${server.addr.port}`);
