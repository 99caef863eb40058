import type { Address, Transmit } from "../types.ts";

/** Sends handed to the runtime and not yet settled, at most. Each pins one datagram's buffer (up to 64 KiB), so 128 of
 *  them pin 8 MiB in the worst case; fewer would idle the socket while one turn's burst drains. */
export const MAX_SENDS_IN_FLIGHT = 128;

/** Receives kept outstanding. Each owns one buffer; all that are filled when the runtime polls the socket are
 *  handled in one turn, so this is also the largest batch. Measured: 8 reaches the plateau of a 64-in-flight echo. */
export const RECEIVES_OUTSTANDING = 8;

/** The largest UDP payload there is, rounded up: a datagram is never truncated. */
const RECEIVE_BUFFER_BYTES = 65_535;

/** Datagrams from this size on are worth a closure that gives their buffer back: allocating and collecting 32 KiB costs
 *  20 µs, as much as sealing them. */
const REUSE_BYTES_MIN = 4_096;

/** Receive failures in a row, with no datagram between them, after which the socket counts as broken. A single one is
 *  an ICMP message about some earlier send (ECONNREFUSED, or 10054 on Windows) and means nothing to the others. */
const MAX_RECEIVE_FAILURES_IN_ROW = 1_000;

/** What a socket tells its owner. Callbacks must not throw. */
export interface SocketHandler {
  /** One datagram; `bytes` is valid during the call only. */
  onDatagram(bytes: Uint8Array, from: Address): void;
  /** Sends are possible again after `canSend` was false. */
  onWritable(): void;
  /** The send of a large datagram has ended: its bytes may be used again. */
  onReusable(bytes: Uint8Array): void;
  /** The socket broke by itself; nothing more will arrive. */
  onBroken(error: Error): void;
}

/** What went through a socket since it was opened. Bytes are UDP payload. */
export interface SocketCounters {
  datagramsSent: number;
  bytesSent: number;
  datagramsReceived: number;
  bytesReceived: number;
  /** Sends that the operating system refused; to the protocol they are losses. */
  sendErrors: number;
  /** Receives that failed, mostly because an earlier send met a closed port. */
  receiveErrors: number;
}

/** One UDP socket: several receives outstanding, several sends in flight, no promise awaited on the way. */
export class UdpSocket {
  readonly address: Address;
  readonly counters: SocketCounters = {
    datagramsSent: 0,
    bytesSent: 0,
    datagramsReceived: 0,
    bytesReceived: 0,
    sendErrors: 0,
    receiveErrors: 0,
  };
  #conn: Deno.DatagramConn;
  #handler: SocketHandler;
  #sendsInFlight = 0;
  #wasFull = false;
  #closing = false;
  #receivers: number;
  #failuresInRow = 0;
  #onIdle: (() => void) | undefined;
  #onReceiversEnded: (() => void) | undefined;

  /** Binds at once. @throws {Deno.errors.AddrInUse} and whatever else binding throws. */
  constructor(listen: Address, handler: SocketHandler) {
    this.#conn = Deno.listenDatagram({ transport: "udp", hostname: listen.hostname, port: listen.port });
    const { hostname, port } = this.#conn.addr as Deno.NetAddr;
    this.address = { hostname, port };
    this.#handler = handler;
    this.#receivers = RECEIVES_OUTSTANDING;
    for (let i = 0; i < RECEIVES_OUTSTANDING; i++) this.#receiveForever(new Uint8Array(RECEIVE_BUFFER_BYTES));
  }

  /** False while MAX_SENDS_IN_FLIGHT sends have not settled; `onWritable` says when that is over. */
  get canSend(): boolean {
    if (this.#sendsInFlight < MAX_SENDS_IN_FLIGHT) return true;
    this.#wasFull = true;
    return false;
  }

  /** Sends one datagram without waiting; its bytes must not change until the send has settled. */
  send({ to, bytes }: Transmit): void {
    this.#sendsInFlight++;
    this.counters.datagramsSent++;
    this.counters.bytesSent += bytes.length;
    const sent = this.#conn.send(bytes, { transport: "udp", hostname: to.hostname, port: to.port });
    if (bytes.length < REUSE_BYTES_MIN) sent.then(this.#onSent, this.#onSendError);
    else this.#reuseAfter(sent, bytes);
  }

  /** Waits for the sends in flight, then closes and waits for the receives to end. Idempotent only in its owner's hands. */
  async close(): Promise<void> {
    if (this.#sendsInFlight > 0) await new Promise<void>((resolve) => this.#onIdle = resolve);
    this.#closing = true;
    const ended = new Promise<void>((resolve) => this.#onReceiversEnded = resolve);
    const receivers = this.#receivers;
    this.#conn.close();
    if (receivers > 0) await ended;
  }

  #reuseAfter(sent: Promise<number>, bytes: Uint8Array): void {
    const onEnd = () => {
      this.#handler.onReusable(bytes);
      this.#onSent();
    };
    sent.then(onEnd, () => {
      this.counters.sendErrors++;
      onEnd();
    });
  }

  #onSent = (): void => {
    this.#sendsInFlight--;
    if (this.#wasFull) {
      this.#wasFull = false;
      this.#handler.onWritable();
    }
    if (this.#sendsInFlight === 0) this.#onIdle?.();
  };

  #onSendError = (): void => {
    this.counters.sendErrors++;
    this.#onSent();
  };

  #receiveForever(buffer: Uint8Array): void {
    const onDatagram = ([bytes, from]: [Uint8Array, Deno.Addr]): void => {
      this.#failuresInRow = 0;
      this.counters.datagramsReceived++;
      this.counters.bytesReceived += bytes.length;
      this.#handler.onDatagram(bytes, from as Deno.NetAddr);
      receive();
    };
    const onError = (error: unknown): void => {
      if (this.#closing) return this.#receiverEnded();
      this.counters.receiveErrors++;
      if (++this.#failuresInRow < MAX_RECEIVE_FAILURES_IN_ROW) return receive();
      this.#receiverEnded();
      // The others end the same way; the owner hears of it once.
      if (this.#failuresInRow === MAX_RECEIVE_FAILURES_IN_ROW) {
        this.#handler.onBroken(error instanceof Error ? error : new Error(String(error)));
      }
    };
    const receive = (): void => {
      if (this.#closing) return this.#receiverEnded();
      this.#conn.receive(buffer).then(onDatagram, onError);
    };
    receive();
  }

  #receiverEnded(): void {
    if (--this.#receivers === 0) this.#onReceiversEnded?.();
  }
}
