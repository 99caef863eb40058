/** Documents against SIGKILL: what an unmodified Hocuspocus provider shows as saved, and every operation that was answered, is
 *  there after the death of the process; and what was not is offered again and merges. */
import { HocuspocusProvider, HocuspocusProviderWebsocket } from "@hocuspocus/provider";
import { assert, assertEquals } from "@std/assert";
import * as Y from "yjs";
import { formatGuuid, GUUID_BYTES } from "../../services/runtime/guuid.ts";
import { SimRandom } from "../sim/random.ts";
import { type Product, startProduct } from "../support/product.ts";

const SOAK = Deno.env.get("AETHERFLOW_SOAK") === "1";
/** Rounds of edit, kill, restart, check: two seconds or so each. */
const ROUNDS = SOAK ? 60 : 5;
const DOCUMENTS = ["notes", "plan: äö*%2F/..", "board"];
/** Providers of each document. */
const EDITORS = 3;
/** Clients that send operations. */
const SENDERS = 4;
const OPERATED = "operated";
/** Time of a round until the kill, in ms. */
const ROUND_MS_MIN = 100;
const ROUND_MS_MAX = 900;
/** Longest pause between two edits of one client. */
const EDIT_PAUSE_MS = 30;
/** When something that must happen counts as not happening. */
const GIVE_UP_MS = 20_000;

Deno.test(`SIGKILL loses nothing that a provider showed as saved and no answered operation, ${ROUNDS} rounds`, async () => {
  const seed = Number(Deno.env.get("AETHERFLOW_SIM_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  const data = await Deno.makeTempDir({ prefix: "aetherflow-documents-kill9-" });
  const port = freeTcpPort();
  const random = new SimRandom(seed, "documents kill9");
  const start = () =>
    startProduct({
      data,
      args: [`gateway.http.port=${port}`, "log.level=error", "statesync.snapshotEveryEntries=50"].flatMap(
        (setting) => ["--set", setting],
      ),
    });
  const url = `http://127.0.0.1:${port}`;
  const editors: Editor[] = [];
  const operations = new Operations(url, random.fork("operations"));
  try {
    for (let round = 0; round <= ROUNDS; round++) {
      const product = await start();
      try {
        if (round === 0) {
          for (const docId of [...DOCUMENTS, OPERATED]) await makeDocument(url, docId);
          for (const docId of DOCUMENTS) {
            for (let i = 0; i < EDITORS; i++) {
              editors.push(new Editor(url, docId, random.fork(`${docId} ${i}`)));
            }
          }
        } else {
          await checkSaved(url, editors);
          await operations.check();
        }
        if (round < ROUNDS) await oneRound(product, editors, operations, random);
        else await checkMerged(url, editors);
      } finally {
        product.kill("SIGKILL");
        await product.exited;
      }
      for (const editor of editors) editor.editOffline();
    }
  } catch (cause) {
    throw new Error(`AETHERFLOW_SIM_SEED=${seed}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  } finally {
    await Promise.all(editors.map((editor) => editor.close()));
    await Deno.remove(data, { recursive: true });
  }
});

/** Edits from all sides until the kill. */
async function oneRound(
  product: Product,
  editors: readonly Editor[],
  operations: Operations,
  random: SimRandom,
): Promise<void> {
  let isKilled = false;
  const isOver = () => isKilled;
  const sides = [
    ...editors.map((editor) => editor.editUntil(isOver)),
    ...Array.from({ length: SENDERS }, (_, i) => operations.sendUntil(isOver, i)),
  ];
  await pause(ROUND_MS_MIN + random.below(ROUND_MS_MAX - ROUND_MS_MIN));
  product.kill("SIGKILL");
  isKilled = true;
  await product.exited;
  await Promise.all(sides);
}

/** One person's editor: a document, edited at random, with an unmodified provider. */
class Editor {
  readonly doc = new Y.Doc();
  /** The document as it was when the provider last said that nothing waits to be saved; undefined: it never did. */
  saved: Uint8Array | undefined;
  readonly #random: SimRandom;
  readonly #socket: HocuspocusProviderWebsocket;
  readonly #provider: HocuspocusProvider;
  #edits = 0;

  constructor(url: string, readonly docId: string, random: SimRandom) {
    this.#random = random;
    this.#socket = new HocuspocusProviderWebsocket({
      url: `${url.replace("http", "ws")}${SYNC_PATH}`,
      delay: 50,
      minDelay: 50,
      maxDelay: 100,
      factor: 1,
      jitter: false,
    });
    this.#provider = new HocuspocusProvider({
      websocketProvider: this.#socket,
      name: docId,
      document: this.doc,
      onUnsyncedChanges: () => this.#note(),
    });
    this.#provider.attach();
  }

  /** Whether everything is saved, as its user is shown. */
  get isSaved(): boolean {
    return this.#provider.synced && !this.#provider.hasUnsyncedChanges;
  }

  async editUntil(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await pause(this.#random.below(EDIT_PAUSE_MS));
      this.#edit();
    }
  }

  editOffline(): void {
    for (let i = this.#random.below(4); i > 0; i--) this.#edit();
  }

  async close(): Promise<void> {
    const { webSocket } = this.#socket;
    const closed = webSocket === null || webSocket.readyState === WebSocket.CLOSED
      ? Promise.resolve()
      : new Promise<void>((resolve) => webSocket.addEventListener("close", () => resolve()));
    this.#provider.destroy();
    this.#socket.destroy();
    await closed;
    this.doc.destroy();
  }

  #note(): void {
    if (this.isSaved) this.saved = Y.encodeStateAsUpdate(this.doc);
  }

  #edit(): void {
    const text = this.doc.getText("content");
    const at = this.#random.below(text.length + 1);
    const isDelete = text.length > 40 && this.#random.chance(0.3);
    if (isDelete) text.delete(Math.min(at, text.length - 3), 3);
    else text.insert(at, `${this.doc.clientID % 1_000}:${this.#edits++} `);
  }
}

/** What was claimed is there, as somebody sees it who knows nothing. */
async function checkSaved(url: string, editors: readonly Editor[]): Promise<void> {
  for (const docId of DOCUMENTS) {
    // Before it is read: they are back by now, and save more meanwhile.
    const shown = editors.filter((editor) => editor.docId === docId).map(({ saved }) => saved);
    const found = Y.snapshot(await readDocument(url, docId));
    for (const [i, saved] of shown.entries()) {
      if (saved === undefined) continue;
      assert(
        Y.snapshotContainsUpdate(found, saved),
        `${docId}: what editor ${i} was shown as saved is gone`,
      );
    }
  }
}

/** In the end all have everything. */
async function checkMerged(url: string, editors: readonly Editor[]): Promise<void> {
  await until(() => editors.every(({ isSaved }) => isSaved), "every editor shows its edits as saved");
  for (const docId of DOCUMENTS) {
    const doc = await readDocument(url, docId);
    const mine = editors.filter((editor) => editor.docId === docId);
    const text = doc.getText("content").toString();
    await until(
      () => mine.every((editor) => editor.doc.getText("content").toString() === text),
      `all editors of ${docId} have the text that is kept`,
    );
    assert(text.length > 0);
  }
}

/** Reads the document as it is now, by a request. */
async function readDocument(url: string, docId: string): Promise<Y.Doc> {
  const path = `${url}/api/v1/documents/${encodeURIComponent(docId)}`;
  const { document } = await readJson(`${path}?withoutContent=true`);
  const { state } = await readJson(`${path}/versions/${document.version}?withState=true`);
  const doc = new Y.Doc();
  Y.applyUpdate(doc, Uint8Array.fromBase64(state));
  return doc;
}

async function readJson(url: string) {
  const response = await fetch(url);
  const text = await response.text();
  assert(response.ok, `${url}: ${response.status} ${text}`);
  return JSON.parse(text);
}

/** Operations over HTTP, each with an id of its own, sent again when no answer came. */
class Operations {
  /** Version of each one that was answered. */
  readonly #answered = new Map<string, string>();
  /** Those without an answer, by sender: sent again first. */
  readonly #open = new Map<number, string>();

  constructor(readonly url: string, readonly random: SimRandom) {}

  async sendUntil(isOver: () => boolean, sender: number): Promise<void> {
    while (!isOver()) {
      const id = this.#open.get(sender) ?? formatGuuid(this.random.fill(new Uint8Array(GUUID_BYTES)));
      this.#open.set(sender, id);
      const answer = await this.#send(id, sender);
      if (answer === undefined) continue;
      this.#open.delete(sender);
      this.#answered.set(id, answer);
      await pause(this.random.below(10));
    }
  }

  /** Every answered one is in the history, once, with its version; the others at most once, and still so when sent again. */
  async check(): Promise<void> {
    for (const [sender, id] of this.#open) {
      const answer = await this.#send(id, sender);
      assert(answer !== undefined, `${id} sent again is not answered`);
      this.#answered.set(id, answer);
      this.#open.delete(sender);
    }
    const versions = new Map<string, string>();
    for (let pageToken = "";;) {
      const query = new URLSearchParams({ pageSize: "1000", pageToken });
      const response = await fetch(`${this.url}/api/v1/documents/${OPERATED}/operations?${query}`);
      const page = await response.json();
      assert(response.ok, JSON.stringify(page));
      for (const { id, version } of page.operations ?? []) {
        assert(!versions.has(id), `${id} is in the history twice`);
        versions.set(id, version);
      }
      pageToken = page.nextPageToken ?? "";
      if (pageToken === "") break;
    }
    for (const [id, version] of this.#answered) assertEquals(versions.get(id), version, `version of ${id}`);
    assertEquals(versions.size, this.#answered.size, "operations in the history");
  }

  /** The version that it made; undefined when no answer came. */
  async #send(id: string, sender: number): Promise<string | undefined> {
    let response: Response;
    try {
      response = await fetch(`${this.url}/api/v1/documents/${OPERATED}/operations`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({
          id,
          clientId: `sender-${sender}`,
          type: "text",
          text: { edits: [{ index: 0, insert: `${id} ` }] },
        }),
      });
    } catch {
      return undefined; // the process has died
    }
    const text = await response.text().catch(() => undefined);
    if (text === undefined || response.status >= 500) return undefined;
    assert(response.ok, `${id}: ${response.status} ${text}`);
    return JSON.parse(text).version;
  }
}

async function makeDocument(url: string, docId: string): Promise<void> {
  const response = await fetch(`${url}/api/v1/documents`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ docId, name: docId, type: "text" }),
  });
  assert(response.ok, await response.text());
}

/** A TCP port that was free a moment ago. */
function freeTcpPort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + GIVE_UP_MS;
  while (!condition()) {
    assert(performance.now() < deadline, `not so within ${GIVE_UP_MS} ms: ${what}`);
    await pause(5);
  }
}

/** Where documents are synchronised whose names stand in the messages. */
const SYNC_PATH = "/api/v1/sync";
