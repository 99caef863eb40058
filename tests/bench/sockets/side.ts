/** The servers that the socket benches compare: the product, the rival and the floor, each a process of its own. */
import { startProduct } from "../../support/product.ts";
import type { DocumentPlace } from "./light_client.ts";
import { startAsked } from "./process.ts";

/** A server under measurement. `await using` ends it. */
export interface Side extends AsyncDisposable {
  readonly name: string;
  /** The process whose time and memory count: all of the server. */
  readonly pid: number;
  /** `http://host:port`; empty where nothing but sockets is served. */
  readonly url: string;
  /** Where a document is, by the framing; makes it, of a type, where documents are made. */
  place(
    dialect: DocumentPlace["dialect"],
    docId: string,
    type: "text" | "whiteboard",
  ): Promise<DocumentPlace>;
}

/** Limits that are checked and refuse none: a bench comes from one address. */
const LIMITS = [
  "gateway.rateLimit.global.rate=1000000",
  "gateway.rateLimit.global.burst=1000000",
].flatMap((setting) => ["--set", setting]);

/** The product, with further arguments of `start`. */
export async function startOurs(args: readonly string[] = []): Promise<Side> {
  const product = await startProduct({ args: [...LIMITS, ...args] });
  const sockets = product.url.replace("http", "ws");
  return {
    name: "AetherFlow",
    pid: await product.hostPid(),
    url: product.url,
    async place(dialect, docId, type) {
      const answer = await fetch(`${product.url}/api/v1/documents`, {
        method: "POST",
        body: JSON.stringify({ docId, name: docId, type }),
        headers: { "content-type": "application/json" },
      });
      // A document that is there is as good as one made.
      if (!answer.ok && answer.status !== 409) {
        throw new Error(`documents: ${answer.status} ${await answer.text()}`);
      }
      await answer.body?.cancel();
      const path = dialect === "hocuspocus" ? HOCUSPOCUS_PATH : `/api/v1/documents/${docId}/sync`;
      return { dialect, docId, url: `${sockets}${path}` };
    },
    [Symbol.asyncDispose]: () => product[Symbol.asyncDispose](),
  };
}

/** @hocuspocus/server on Deno. */
export function startHocuspocus(): Promise<Side> {
  return startBeside("Hocuspocus 4.7.0 on Deno, in memory", "./hocuspocus_process.ts");
}

/** A server that hands on and does nothing else. */
export function startFloor(): Promise<Side> {
  return startBeside("Deno's WebSocket alone", "./floor_process.ts");
}

/** Path of the product where any document may be opened by its name in the messages. */
const HOCUSPOCUS_PATH = "/api/v1/sync";

async function startBeside(name: string, module: string): Promise<Side> {
  const process = startAsked(new URL(module, import.meta.url));
  const url = await process.ask<string>({});
  return {
    name,
    pid: process.pid,
    url: "",
    place: (dialect, docId) => Promise.resolve({ dialect, docId, url }),
    [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
  };
}
