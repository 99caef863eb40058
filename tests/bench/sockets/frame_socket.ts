/** A WebSocket (RFC 6455) on a bare connection that does no more than frames, so that thousands of them leave most of a machine to
 *  the server that they measure. */
import { joinBytes } from "../../../services/runtime/bytes.ts";

/** What a socket is opened with. */
export interface FrameSocketOptions {
  /** `ws://host:port/path`. */
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Bytes of the read buffer; it grows for larger messages. */
  readonly bufferBytes?: number;
  /** Told of each binary or text message. The bytes are valid during the call only. */
  onMessage(payload: Uint8Array, socket: FrameSocket): void;
}

/** An open socket. */
export interface FrameSocket {
  /** Messages and their bytes so far. */
  readonly messages: number;
  readonly bytes: number;
  /** Sends a binary message. The bytes must not change until it is sent. */
  send(payload: Uint8Array): void;
  /** Ends the connection without a farewell, as a client that goes away does. */
  drop(): void;
  /** How the socket ended: the code of the server's close frame, or 1006. */
  readonly ended: Promise<number>;
}

const DEFAULT_BUFFER_BYTES = 2_048;
const [CONTINUATION, TEXT, BINARY, CLOSE, PING] = [0, 1, 2, 8, 9];
const PONG = 10;

/** Opens a socket. @throws {Error} when the server's answer is no upgrade. */
export async function openFrameSocket(options: FrameSocketOptions): Promise<FrameSocket> {
  const url = new URL(options.url);
  const conn = await Deno.connect({ hostname: url.hostname, port: Number(url.port) });
  conn.setNoDelay(true);
  const key = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16))));
  const headers = Object.entries(options.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`).join(
    "",
  );
  const request = `GET ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\nUpgrade: websocket\r\n` +
    `Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n${headers}\r\n`;
  await writeAll(conn, new TextEncoder().encode(request));
  const reader = new FrameReader(conn, options.bufferBytes ?? DEFAULT_BUFFER_BYTES);
  const head = await reader.readHead();
  if (!head.startsWith("HTTP/1.1 101")) {
    conn.close();
    throw new Error(`${options.url} answered ${head.split("\r\n", 1)[0]}`);
  }
  return new OpenSocket(conn, reader, options);
}

class OpenSocket implements FrameSocket {
  messages = 0;
  bytes = 0;
  readonly ended: Promise<number>;
  readonly #conn: Deno.TcpConn;
  readonly #onMessage: FrameSocketOptions["onMessage"];
  #waiting: Uint8Array[] = [];
  #isWriting = false;
  #isClosed = false;
  #closeCode = 1006;

  constructor(conn: Deno.TcpConn, reader: FrameReader, { onMessage }: FrameSocketOptions) {
    this.#conn = conn;
    this.#onMessage = onMessage;
    this.ended = this.#read(reader);
  }

  send(payload: Uint8Array): void {
    this.#sendFrame(BINARY!, payload);
  }

  drop(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#conn.close();
  }

  async #read(reader: FrameReader): Promise<number> {
    try {
      await reader.readFrames((opcode, payload) => this.#take(opcode, payload));
    } catch (error) {
      // The connection is gone: what `ended` tells.
      if (!(error instanceof Deno.errors.BadResource || isDisconnect(error))) throw error;
    }
    this.drop();
    return this.#closeCode;
  }

  #take(opcode: number, payload: Uint8Array): void {
    if (opcode === BINARY || opcode === TEXT) {
      this.messages++;
      this.bytes += payload.length;
      this.#onMessage(payload, this);
    } else if (opcode === PING) this.#sendFrame(PONG, payload.slice());
    else if (opcode === CLOSE) {
      this.#closeCode = payload.length >= 2 ? payload[0]! << 8 | payload[1]! : 1005;
      this.#sendFrame(CLOSE, payload.slice(0, 2));
    }
  }

  #sendFrame(opcode: number, payload: Uint8Array): void {
    if (this.#isClosed) return;
    this.#waiting.push(frame(opcode, payload));
    if (!this.#isWriting) this.#write();
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    try {
      while (this.#waiting.length > 0) {
        const bytes = this.#waiting.length === 1 ? this.#waiting[0]! : joinBytes(this.#waiting);
        this.#waiting = [];
        await writeAll(this.#conn, bytes);
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource || isDisconnect(error))) throw error;
      this.#waiting = [];
    } finally {
      this.#isWriting = false;
    }
  }
}

/** A frame as a client sends it. Its mask is zero: the server unmasks as it does any other. */
function frame(opcode: number, payload: Uint8Array): Uint8Array {
  const { length } = payload;
  const head = length < 126 ? 2 : length < 65_536 ? 4 : 10;
  const bytes = new Uint8Array(head + 4 + length);
  bytes[0] = 0x80 | opcode;
  if (head === 2) bytes[1] = 0x80 | length;
  else {
    const view = new DataView(bytes.buffer);
    bytes[1] = 0x80 | (head === 4 ? 126 : 127);
    if (head === 4) view.setUint16(2, length);
    else view.setUint32(6, length);
  }
  bytes.set(payload, head + 4);
  return bytes;
}

/** Reads frames off a connection through one buffer. */
class FrameReader {
  #buffer: Uint8Array<ArrayBuffer>;
  #start = 0;
  #end = 0;
  /** Parts of a message that came in several frames, and what kind it is. */
  #parts: Uint8Array[] = [];
  #kind = 0;

  constructor(private readonly conn: Deno.TcpConn, bytes: number) {
    this.#buffer = new Uint8Array(bytes);
  }

  /** The head of the HTTP answer. */
  async readHead(): Promise<string> {
    while (true) {
      const text = new TextDecoder("latin1").decode(this.#buffer.subarray(0, this.#end));
      const end = text.indexOf("\r\n\r\n");
      if (end >= 0) {
        this.#start = end + 4;
        return text.slice(0, end);
      }
      this.#makeRoom(this.#end + 1);
      if (!await this.#fill()) return text;
    }
  }

  /** Hands over each frame until the connection ends. */
  async readFrames(take: (opcode: number, payload: Uint8Array) => void): Promise<void> {
    do {
      while (this.#next(take));
    } while (await this.#fill());
  }

  /** Whether there was a whole frame. */
  #next(take: (opcode: number, payload: Uint8Array) => void): boolean {
    const buffer = this.#buffer;
    const there = this.#end - this.#start;
    if (there < 2) return this.#wait(2);
    const at = this.#start;
    const short = buffer[at + 1]! & 0x7f;
    const head = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (there < head) return this.#wait(head);
    const length = short < 126
      ? short
      : short === 126
      ? buffer[at + 2]! << 8 | buffer[at + 3]!
      : new DataView(buffer.buffer, at + 6, 4).getUint32(0);
    if (there < head + length) return this.#wait(head + length);
    this.#start = at + head + length;
    this.#deliver(buffer[at]!, buffer.subarray(at + head, this.#start), take);
    return true;
  }

  #deliver(first: number, payload: Uint8Array, take: (opcode: number, payload: Uint8Array) => void): void {
    const opcode = first & 15;
    const isLast = (first & 0x80) !== 0;
    if (opcode >= CLOSE! || (isLast && opcode !== CONTINUATION)) return take(opcode, payload);
    if (opcode !== CONTINUATION) this.#kind = opcode;
    this.#parts.push(payload.slice());
    if (!isLast) return;
    const parts = this.#parts;
    this.#parts = [];
    take(this.#kind, joinBytes(parts));
  }

  #wait(bytes: number): false {
    this.#makeRoom(bytes);
    return false;
  }

  /** Lets `bytes` fit behind the start. */
  #makeRoom(bytes: number): void {
    if (this.#start === this.#end) this.#start = this.#end = 0;
    if (this.#start + bytes <= this.#buffer.length) return;
    const rest = this.#buffer.subarray(this.#start, this.#end);
    if (bytes <= this.#buffer.length) this.#buffer.copyWithin(0, this.#start, this.#end);
    else {
      const larger = new Uint8Array(Math.max(bytes, this.#buffer.length * 2));
      larger.set(rest);
      this.#buffer = larger;
    }
    this.#start = 0;
    this.#end = rest.length;
  }

  async #fill(): Promise<boolean> {
    const count = await this.conn.read(this.#buffer.subarray(this.#end));
    if (count === null) return false;
    this.#end += count;
    return true;
  }
}

async function writeAll(conn: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await conn.write(bytes.subarray(sent));
}

function isDisconnect(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.Interrupted || error instanceof Deno.errors.ConnectionAborted;
}
