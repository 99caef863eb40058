/** A plain client of the hub, for tests against the product. */
import type { Product } from "./product.ts";

/** A message of the hub. */
// deno-lint-ignore no-explicit-any -- what is in it, its type says
export type Received = Record<string, any>;

/** A client of the socket `/ws`. `using` closes it. */
export class HubClient implements Disposable {
  /** Everything that came. */
  readonly received: Received[] = [];
  readonly closed: Promise<CloseEvent>;
  #taken = 0;
  #wake = () => {};

  private constructor(readonly socket: WebSocket) {
    socket.addEventListener("message", ({ data }) => {
      this.received.push(JSON.parse(data));
      this.#wake();
    });
    this.closed = new Promise((resolve) =>
      socket.addEventListener("close", (event) => {
        resolve(event);
        this.#wake();
      })
    );
  }

  /** Opens one; `headers` are of the handshake. */
  static async connect(product: Product, headers: Record<string, string> = {}): Promise<HubClient> {
    const client = new HubClient(new WebSocket(`${product.url.replace("http", "ws")}/ws`, { headers }));
    await new Promise<void>((resolve, reject) => {
      client.socket.addEventListener("open", () => resolve());
      client.socket.addEventListener("error", (event) => reject(new Error((event as ErrorEvent).message)));
    });
    return client;
  }

  /** Sends a message. */
  say(type: string, data?: unknown): void {
    this.socket.send(JSON.stringify({ id: "r", type, data }));
  }

  /** The next message of a type. @throws {Error} when an error comes in its place, or the socket closes. */
  async next(type: string): Promise<Received> {
    for (;;) {
      while (this.#taken < this.received.length) {
        const message = this.received[this.#taken++]!;
        if (message.type === type) return message;
        if (message.type === "error") throw new Error(`${type} is awaited: ${JSON.stringify(message)}`);
      }
      if (this.socket.readyState === WebSocket.CLOSED) {
        throw new Error(`${type} is awaited: closed after ${JSON.stringify(this.received.slice(-3))}`);
      }
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  /** Sends a message and waits for its answer. */
  async ask(type: string, data?: unknown, answer = type): Promise<Received> {
    this.say(type, data);
    return await this.next(answer);
  }

  [Symbol.dispose](): void {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.close();
  }
}
