/** One person in one document: an unmodified client of Yjs, and a bot behind it. */
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";
import { createBot } from "./bots.ts";
import type { Example } from "./examples.ts";

/** How long a document may take to be there, in ms. */
const OPEN_DEADLINE_MS = 10_000;

/** Somebody who is there. */
export interface Visit {
  /** Things done so far. */
  readonly steps: number;
  /** Leaves. Idempotent. */
  leave(): void;
}

/** What a visit takes. */
export interface VisitOptions {
  readonly example: Pick<Example, "id" | "type">;
  readonly person: { readonly name: string; readonly color: string };
  /** `http://host:port` */
  readonly endpoint: string;
  readonly token: string | undefined;
  chance(): number;
  /** The document is not to be had any more. */
  onClosed(reason: string): void;
}

/** Opens a document and begins to work. Rejects when it cannot be opened in time. */
export async function visit(options: VisitOptions): Promise<Visit> {
  const { example, person, chance } = options;
  const doc = new Y.Doc();
  const url = new URL("/api/v1/documents", options.endpoint.replace(/^http/, "ws")).href;
  const provider = new WebsocketProvider(url, `${encodeURIComponent(example.id)}/sync`, doc, {
    WebSocketPolyfill: socketOf(options.token),
    disableBc: true,
  });
  let timer: ReturnType<typeof setTimeout> | undefined;
  let steps = 0;
  const leave = () => {
    clearTimeout(timer);
    provider.destroy();
    doc.destroy();
  };
  try {
    await opened(provider);
  } catch (error) {
    leave();
    throw error;
  }
  provider.awareness.setLocalStateField("user", { ...person, colorLight: `${person.color}33` });
  const bot = createBot(example.type, { doc, awareness: provider.awareness, chance });
  const work = () => {
    // Nobody writes into a document that is not there: what is done offline would come all at once.
    const pauseMs = provider.wsconnected ? bot.step() : 500;
    if (provider.wsconnected) steps++;
    timer = setTimeout(work, pauseMs);
  };
  provider.on("closed", ({ code, reason }) => {
    leave();
    options.onClosed(reason || `closed with ${code}`);
  });
  work();
  return {
    get steps() {
      return steps;
    },
    leave,
  };
}

/** Resolves once the document is as the server has it. */
function opened(provider: WebsocketProvider): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no answer")), OPEN_DEADLINE_MS);
    provider.on("sync", (isSynced) => {
      if (!isSynced) return;
      clearTimeout(timer);
      resolve();
    });
    provider.on("closed", ({ code, reason }) => {
      clearTimeout(timer);
      reject(new Error(reason || `closed with ${code}`));
    });
  });
}

/** A WebSocket that shows a token as every other request does. */
function socketOf(token: string | undefined): typeof WebSocket {
  if (token === undefined) return WebSocket;
  return class extends WebSocket {
    constructor(url: string | URL, protocols?: string | string[] | WebSocketOptions) {
      const given = typeof protocols === "string" || Array.isArray(protocols) ? { protocols } : protocols;
      super(url, { ...given, headers: { authorization: `Bearer ${token}` } });
    }
  };
}
