/** Unmodified Yjs providers against the product, with waits on what they tell. */
import { HocuspocusProvider, HocuspocusProviderWebsocket } from "@hocuspocus/provider";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

/** How long a wait may take until it counts as hung, in ms: far above any bar, so that only a hang meets it. */
const HANG_MS = 20_000;

/** A client with y-websocket's provider. */
export interface YClient extends Disposable {
  readonly doc: Y.Doc;
  readonly text: Y.Text;
  readonly provider: WebsocketProvider;
  /** Codes and reasons of closed sockets so far. */
  readonly closes: { code: number; reason: string }[];
  /** Resolves when it has what the server has. */
  synced(): Promise<void>;
}

/** What a client of y-websocket is opened with. */
export interface YClientOptions {
  readonly params?: Record<string, string>;
  readonly protocols?: string[];
  readonly doc?: Y.Doc;
}

/** Opens y-websocket's provider as applications do. */
export function openYWebsocket(url: string, docId: string, options: YClientOptions = {}): YClient {
  const doc = options.doc ?? new Y.Doc();
  const provider = new WebsocketProvider(
    `${url.replace("http", "ws")}/api/v1/documents`,
    `${encodeURIComponent(docId)}/sync`,
    doc,
    {
      params: options.params ?? {},
      protocols: options.protocols ?? [],
      disableBc: true,
      maxBackoffTime: 200,
    },
  );
  const closes: { code: number; reason: string }[] = [];
  provider.on("connection-close", (event) => {
    if (event !== null) closes.push({ code: event.code, reason: event.reason });
  });
  return {
    doc,
    text: doc.getText("content"),
    provider,
    closes,
    synced: () => until("synced", (look) => on(provider, "sync", look), () => provider.synced),
    [Symbol.dispose]() {
      provider.destroy();
      provider.awareness.destroy();
      doc.destroy();
    },
  };
}

/** A client with Hocuspocus's provider on a socket of its own, or on one that it shares. */
export interface HocuspocusClient extends Disposable {
  readonly doc: Y.Doc;
  readonly text: Y.Text;
  readonly provider: HocuspocusProvider;
  synced(): Promise<void>;
  /** Resolves when the client shows all as saved. */
  saved(): Promise<void>;
}

/** Opens a socket that several documents share. */
export function openHocuspocusSocket(url: string, query = ""): HocuspocusProviderWebsocket {
  return new HocuspocusProviderWebsocket({
    url: `${url.replace("http", "ws")}/api/v1/sync${query}`,
    delay: 50,
    minDelay: 50,
    maxDelay: 200,
  });
}

/** Opens Hocuspocus's provider as applications do. */
export function openHocuspocus(
  socket: HocuspocusProviderWebsocket,
  docId: string,
  options: { token?: string; doc?: Y.Doc; sessionAwareness?: boolean } = {},
): HocuspocusClient {
  const doc = options.doc ?? new Y.Doc();
  const provider = new HocuspocusProvider({
    websocketProvider: socket,
    name: docId,
    document: doc,
    token: options.token ?? null,
    sessionAwareness: options.sessionAwareness ?? false,
  });
  provider.attach();
  return {
    doc,
    text: doc.getText("content"),
    provider,
    synced: () => until("synced", (look) => on(provider, "synced", look), () => provider.synced),
    saved: () =>
      until(
        "saved",
        (look) => on(provider, "unsyncedChanges", look),
        () => provider.synced && !provider.hasUnsyncedChanges,
      ),
    [Symbol.dispose]() {
      provider.destroy();
      doc.destroy();
    },
  };
}

/** Something that tells of events. */
interface Emitter {
  // deno-lint-ignore no-explicit-any -- each library has its own types of events
  on(name: any, listener: (...args: any[]) => void): unknown;
  // deno-lint-ignore no-explicit-any -- as above
  off(name: any, listener: (...args: any[]) => void): unknown;
}

/** Listens; the returned function ends that. */
export function on(emitter: Emitter, name: string, look: () => void): () => void {
  emitter.on(name, look);
  return () => void emitter.off(name, look);
}

/** Resolves when the text is what it should be, at every client. */
export async function showing(expected: string, ...clients: readonly { doc: Y.Doc; text: Y.Text }[]) {
  for (const { doc, text } of clients) {
    await until(
      `"${expected}", which is "${text}"`,
      (look) => on(doc, "update", look),
      () => text.toString() === expected,
    );
  }
}

/** Waits until `is`, which is asked at once and with each call of `look`. `listen` returns what ends the listening.
 *  @throws {Error} when that takes so long that it hangs. */
export async function until(
  what: string,
  listen: (look: () => void) => () => void,
  is: () => boolean,
): Promise<void> {
  if (is()) return;
  const done = Promise.withResolvers<void>();
  const stop = listen(() => {
    if (is()) done.resolve();
  });
  const timer = setTimeout(() => done.reject(new Error(`waited in vain for ${what}`)), HANG_MS);
  try {
    await done.promise;
  } finally {
    clearTimeout(timer);
    stop();
  }
}
