/** Yjs clients of two gateways while the calls to the document service break: they converge, and what was shown as saved is there. */
import { assertEquals } from "@std/assert";
import { createSeededRandom, randomFraction } from "../../services/runtime/random.ts";
import { openSyncWorld } from "../support/sync_world.ts";
import { on, openHocuspocus, openHocuspocusSocket, openYWebsocket, until } from "../support/yjs.ts";

const ROUNDS = 40;
/** Rounds after which all calls break. */
const BREAK_EVERY = 9;

Deno.test({
  name: "clients of two gateways converge though their calls break, and all is saved in the end",
  // The providers leave timers of their reconnects behind when they are destroyed.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    const random = createSeededRandom(seed);
    const below = (count: number) => Math.floor(randomFraction(random) * count);
    await using world = openSyncWorld({ gateways: 2 });
    const sockets = world.gateways.map(({ url }) => openHocuspocusSocket(url, "?create=text"));
    const saving = sockets.map((socket) => openHocuspocus(socket, "d"));
    await Promise.all(saving.map((client) => client.saved()));
    const others = world.gateways.map(({ url }) => openYWebsocket(url, "d"));
    const clients = [...saving, ...others];
    await Promise.all(others.map((client) => client.synced()));

    for (let round = 1; round <= ROUNDS; round++) {
      for (const { text } of clients) {
        if (below(3) === 0 && text.length > 4) text.delete(below(text.length - 3), below(3) + 1);
        else text.insert(below(text.length + 1), String.fromCharCode(97 + below(26)));
      }
      await Promise.race(saving.map((client) => client.saved()));
      if (round % BREAK_EVERY === 0) world.breakLinks();
    }
    try {
      await Promise.all(saving.map((client) => client.saved()));
      const [first, ...rest] = clients;
      for (const client of rest) {
        await until(
          "the same text everywhere",
          (look) => {
            const stops = [on(first!.doc, "update", look), on(client.doc, "update", look)];
            return () => stops.forEach((stop) => stop());
          },
          () => first!.text.toString() === client.text.toString(),
        );
      }
      using late = openYWebsocket(world.url, "d");
      await late.synced();
      assertEquals(late.text.toString(), first!.text.toString());
      assertEquals(world.errors, []);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    } finally {
      for (const client of clients) client[Symbol.dispose]();
      for (const socket of sockets) socket.destroy();
    }
  },
});
