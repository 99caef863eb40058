/** The floor of the HTTP figures: Deno.serve that answers every request with the same 64 bytes. */
const BODY = "x".repeat(64);

Deno.serve({
  hostname: "127.0.0.1",
  port: 0,
  onListen: ({ port }) => (self as unknown as { postMessage(message: unknown): void }).postMessage(port),
}, () => new Response(BODY));
