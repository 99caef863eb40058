/** The client half of RPC: a Connect `Transport` on a channel. */
import {
  type DescMessage,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  type StreamResponse,
  type Transport,
  type UnaryResponse,
} from "@connectrpc/connect";
import { type Channel, ChannelError, type ChannelStream, type StreamHandler } from "../channels/channel.ts";
import { pathBytes, writeCall } from "./call_header.ts";
import { MessageEncoder } from "./codec.ts";
import { DeadlineQueue, type RpcClock, systemRpcClock, type Timed } from "./deadline.ts";
import {
  DEFAULT_MAX_ANSWER_BYTES,
  DEFAULT_MAX_MESSAGE_BYTES,
  FRAME,
  FrameReader,
  FrameWriter,
  NEED_MORE,
  VIOLATION,
} from "./frame.ts";
import { END_OF_MESSAGES, Inbound, type InboundOwner } from "./inbound.ts";
import { checkMetadata, readMetadata } from "./metadata.ts";
import { Outbound, type OutboundTarget } from "./outbound.ts";
import { type CallEnd, endToError, readEnd, STREAM_CODE } from "./status.ts";

/** How calls reach a peer, and what bounds them. */
export interface ChannelTransportOptions {
  /** The channel for the next call, asked once for each. A ConnectError it throws fails the call as it is; anything else
   *  fails it with `unavailable`. */
  readonly channel: () => Channel | Promise<Channel>;
  /** Deadline of calls that name none, in ms. Default: none. */
  readonly defaultTimeoutMs?: number;
  /** Largest message sent or taken. Default: 4 MiB sent, 64 MiB taken, since what was asked for may be larger than what
   *  was put in at a time. */
  readonly maxMessageBytes?: number;
  /** Calls that may wait for a free stream, each within its deadline; more fail with `resource_exhausted`.
   *  Default 16,384: some 10 MB of small calls. */
  readonly maxQueuedCalls?: number;
  /** Time and timers. Default: the platform's. */
  readonly clock?: RpcClock;
}

/** What `callUnary` takes beside the message. */
export interface CallUnaryOptions {
  /** Time the call may take, in ms; 0 or less is no deadline, undefined the transport's default. */
  readonly timeoutMs?: number | undefined;
  readonly headers?: HeadersInit | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Figures of a transport. */
export interface ChannelTransportStats {
  /** Calls with a stream that have not ended. */
  readonly running: number;
  /** Calls that wait for a stream. */
  readonly queued: number;
}

/** A Connect `Transport` whose calls are streams of a channel. Errors are ConnectErrors; a channel that ends in mid-call is
 *  `unavailable`. `bytes` fields of answers are views of what was received: copy what outlives the call. */
export interface ChannelTransport extends Transport {
  stats(): ChannelTransportStats;
}

/** Makes a transport. Nothing is opened until the first call. */
export function createChannelTransport(options: ChannelTransportOptions): ChannelTransport {
  return new ChannelTransportImpl(options);
}

/** One unary call without the objects that `createClient` makes for headers and trailers. Works on any transport.
 *  @throws {ConnectError} (as a rejection) */
export function callUnary<I extends DescMessage, O extends DescMessage>(
  transport: Transport,
  method: DescMethodUnary<I, O>,
  message: MessageInitShape<I>,
  options: CallUnaryOptions = NO_OPTIONS,
): Promise<MessageShape<O>> {
  const { timeoutMs, headers, signal } = options;
  if (transport instanceof ChannelTransportImpl) {
    return transport.startUnary(method, signal, timeoutMs, headers, message, undefined) as Promise<
      MessageShape<O>
    >;
  }
  return transport.unary(method, signal, timeoutMs, headers, message).then((response) => response.message);
}

const NO_OPTIONS: CallUnaryOptions = {};

/** Errors of calls that never had a stream. */
const neverSent = new WeakSet<object>();

/** Whether a call that failed with `error` surely left nothing at its peer: not a byte of it was sent. Such a call may be
 *  made again whatever it does. False of all else, errors of other transports among it. */
export function wasNeverSent(error: unknown): boolean {
  return typeof error === "object" && error !== null && neverSent.has(error);
}

/** The transport itself, for the kinds of calls in this folder. */
export class ChannelTransportImpl implements ChannelTransport {
  readonly options: ChannelTransportOptions;
  readonly clock: RpcClock;
  readonly deadlines: DeadlineQueue;
  readonly writer = new FrameWriter();
  readonly encoder = new MessageEncoder();
  readonly maxMessageBytes: number;
  readonly maxAnswerBytes: number;
  readonly maxQueuedCalls: number;
  running = 0;
  readonly #paths = new WeakMap<DescMethod, Uint8Array>();
  readonly #queue = new Set<ClientCall>();
  #serving = false;
  readonly #retry: Timed = { dueAt: 0, heapIndex: -1, onDue: () => this.#serveQueue() };

  constructor(options: ChannelTransportOptions) {
    this.options = options;
    this.clock = options.clock ?? systemRpcClock;
    this.deadlines = new DeadlineQueue(this.clock);
    this.maxMessageBytes = options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES;
    this.maxAnswerBytes = options.maxMessageBytes ?? DEFAULT_MAX_ANSWER_BYTES;
    this.maxQueuedCalls = options.maxQueuedCalls ?? 16_384;
  }

  stats(): ChannelTransportStats {
    return { running: this.running, queued: this.#queue.size };
  }

  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: MessageInitShape<I>,
    _contextValues?: ContextValues,
  ): Promise<UnaryResponse<I, O>> {
    // The response object is the call's own lazy view: Headers are made when they are read.
    return this.startUnary(method, signal, timeoutMs, header, input, ClientUnaryResponse) as Promise<
      UnaryResponse<I, O>
    >;
  }

  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    _contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    const response = new Promise<StreamResponse<I, O>>((resolve, reject) => {
      const call = new ClientStreamCall(this, method, header, input, resolve as Resolve, reject);
      call.begin(signal, timeoutMs);
    });
    // createClient awaits this promise when its answer is first read. A call that fails before that must not count as an
    // unhandled rejection and end the process; the reader still gets the error.
    response.catch(() => {});
    return response;
  }

  startUnary(
    method: DescMethodUnary,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: MessageInitShape<DescMessage>,
    wrap: typeof ClientUnaryResponse | undefined,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      new ClientUnaryCall(this, method, header, input, wrap, resolve, reject).begin(signal, timeoutMs);
    });
  }

  pathOf(method: DescMethod): Uint8Array {
    let path = this.#paths.get(method);
    if (path === undefined) {
      path = pathBytes(`/${method.parent.typeName}/${method.name}`);
      this.#paths.set(method, path);
    }
    return path;
  }

  /** True while a call that has not waited yet must go behind those that have. */
  get hasQueue(): boolean {
    return this.#queue.size > 0;
  }

  enqueue(call: ClientCall): void {
    if (this.#queue.size >= this.maxQueuedCalls) {
      call.fail(
        new ConnectError(
          `${this.#queue.size} calls wait for a stream, limit ${this.maxQueuedCalls}`,
          Code.ResourceExhausted,
        ),
      );
      return;
    }
    this.#queue.add(call);
    this.#awaitCredit();
  }

  dequeue(call: ClientCall): void {
    if (this.#queue.delete(call) && this.#queue.size === 0) this.deadlines.remove(this.#retry);
  }

  /** A call gave its stream back. */
  released(): void {
    this.running--;
    if (this.#queue.size > 0) this.#serveQueue();
  }

  #serveQueue(): void {
    // A call that fails at once gives its stream back from inside this loop, which goes on anyway.
    if (this.#serving) return;
    this.#serving = true;
    for (let left = this.#queue.size; left > 0; left--) {
      const [call] = this.#queue;
      if (call === undefined || !call.canOpen()) break;
      this.#queue.delete(call);
      call.open();
    }
    this.#serving = false;
    if (this.#queue.size === 0) this.deadlines.remove(this.#retry);
    else this.#awaitCredit();
  }

  // The peer's new credit makes no event, and it may come after the end of the call that freed it.
  #awaitCredit(): void {
    if (this.#retry.heapIndex >= 0) return;
    this.#retry.dueAt = this.clock.now() + CREDIT_POLL_MS;
    this.deadlines.add(this.#retry);
  }
}

/** How often waiting calls look for stream credit when no call ends meanwhile. */
const CREDIT_POLL_MS = 1;

type Resolve = (value: unknown) => void;

/** What unary and streaming calls share: channel, stream, deadline, cancellation and the one end. */
export abstract class ClientCall implements StreamHandler, Timed {
  dueAt = Infinity;
  heapIndex = -1;
  ended = false;
  responseHeaders: Uint8Array | undefined;
  end: CallEnd | undefined;
  protected stream: ChannelStream | undefined;
  #channel: Channel | undefined;
  #signal: AbortSignal | undefined;
  #onAbort: (() => void) | undefined;
  #timeoutMs: number | undefined;
  /** True when the call did not get its stream at once, so that less than `#timeoutMs` is left. */
  #delayed = false;
  protected requestEnded = false;
  protected responseEnded = false;

  constructor(
    readonly transport: ChannelTransportImpl,
    readonly method: DescMethod,
    readonly requestHeaders: HeadersInit | undefined,
  ) {}

  /** Writes the request, or its beginning, to the stream that was just opened. */
  protected abstract onOpen(stream: ChannelStream): void;
  /** The call is over: with an error, unless `complete` was called by the subclass. */
  protected abstract onFail(error: ConnectError): void;
  abstract onData(bytes: Uint8Array, fin: boolean): void;
  abstract onDrain(): void;

  begin(signal: AbortSignal | undefined, timeoutMs: number | undefined): void {
    if (signal !== undefined) {
      if (signal.aborted) return this.fail(abortError(signal));
      this.#signal = signal;
      this.#onAbort = () => this.fail(abortError(signal));
      signal.addEventListener("abort", this.#onAbort);
    }
    const { transport } = this;
    const timeout = timeoutMs ?? transport.options.defaultTimeoutMs;
    if (timeout !== undefined && timeout > 0 && timeout !== Infinity) {
      this.#timeoutMs = timeout;
      this.dueAt = transport.clock.now() + timeout;
      transport.deadlines.add(this);
    }
    let channel: Channel | Promise<Channel>;
    try {
      channel = transport.options.channel();
    } catch (error) {
      return this.fail(ConnectError.from(error, Code.Unavailable));
    }
    if (channel instanceof Promise) {
      this.#delayed = true;
      channel.then(
        (opened) => this.#useChannel(opened),
        (error) => this.fail(ConnectError.from(error, Code.Unavailable)),
      );
    } else {
      this.#useChannel(channel);
    }
  }

  canOpen(): boolean {
    const channel = this.#channel!;
    return !channel.isOpen || channel.streamCredit > 0;
  }

  open(): void {
    const channel = this.#channel!;
    let stream: ChannelStream;
    try {
      stream = channel.openStream(this);
    } catch (error) {
      if (!(error instanceof ChannelError)) throw error;
      if (error.code === "stream_limit") this.#wait();
      else this.fail(new ConnectError(`no channel to ${channel.peer}: ${error.message}`, Code.Unavailable));
      return;
    }
    this.stream = stream;
    this.transport.running++;
    try {
      this.onOpen(stream);
    } catch (error) {
      // Headers or a message that cannot be encoded: the caller's mistake, known before anything was sent.
      this.transport.writer.truncate(0);
      this.fail(ConnectError.from(error, Code.InvalidArgument));
    }
  }

  fail(error: ConnectError): void {
    if (this.ended) return;
    if (this.stream === undefined) neverSent.add(error);
    this.#close();
    this.#giveUp(STREAM_CODE.CANCEL);
    this.onFail(error);
    this.#release();
  }

  onDue(): void {
    this.fail(new ConnectError("the deadline passed", Code.DeadlineExceeded));
  }

  onReset(code: number): void {
    this.responseEnded = true;
    this.fail(this.#lossError(code));
  }

  onStop(code: number): void {
    // The server wants no more of the request; its answer decides about the call. What was not sent yet must not wait.
    this.requestEnded = true;
    this.stream?.reset(STREAM_CODE.STOP_DONE);
    this.onRequestStopped();
    // An answer that is whole stays readable, whatever became of the channel.
    if (this.#channel?.isOpen === false && !this.responseEnded) this.fail(this.#lossError(code));
  }

  protected onRequestStopped(): void {}

  /** Ends the call well as far as the protocol goes; the subclass then settles. */
  protected complete(): void {
    this.#close();
    if (!this.requestEnded) {
      this.requestEnded = true;
      this.stream!.reset(STREAM_CODE.CANCEL);
    }
    this.#release();
  }

  /** The peer broke the SPEC. */
  protected protocolError(message: string, code = Code.Internal): void {
    if (this.ended) return;
    this.#close();
    this.#giveUp(STREAM_CODE.PROTOCOL);
    this.onFail(new ConnectError(message, code));
    this.#release();
  }

  /** No timer is needed any more: all of the answer is here, though it may not have been read. */
  protected stopDeadline(): void {
    this.transport.deadlines.remove(this);
  }

  protected writeCallHeader(writer: FrameWriter): void {
    const remainingMs = this.#delayed && this.#timeoutMs !== undefined
      ? this.dueAt - this.transport.clock.now()
      : this.#timeoutMs;
    writeCall(writer, this.transport.pathOf(this.method), remainingMs, this.requestHeaders);
  }

  protected writeMessage(writer: FrameWriter, message: MessageInitShape<DescMessage>): void {
    const mark = writer.beginFrame(FRAME.MESSAGE);
    this.transport.encoder.write(writer, this.method.input, message);
    this.checkMessageSize(writer.endFrame(mark));
  }

  /** @throws {ConnectError} `resource_exhausted` when a request message is too large. */
  protected checkMessageSize(byteCount: number): void {
    if (byteCount > this.transport.maxMessageBytes) {
      throw new ConnectError(
        `request message of ${byteCount} bytes is over the limit of ${this.transport.maxMessageBytes}`,
        Code.ResourceExhausted,
      );
    }
  }

  #useChannel(channel: Channel): void {
    if (this.ended) return;
    this.#channel = channel;
    if (channel.isOpen && this.transport.hasQueue) this.#wait();
    else this.open();
  }

  #wait(): void {
    this.#delayed = true;
    this.transport.enqueue(this);
  }

  #close(): void {
    this.ended = true;
    this.transport.deadlines.remove(this);
    if (this.#onAbort !== undefined) this.#signal!.removeEventListener("abort", this.#onAbort);
    if (this.stream === undefined) this.transport.dequeue(this);
  }

  #giveUp(code: number): void {
    const { stream } = this;
    if (stream === undefined) return;
    // A server that has the whole request hears of it by the stop; one that has not, by the reset.
    this.requestEnded = true;
    stream.reset(code);
    if (!this.responseEnded) stream.stop(code);
  }

  #release(): void {
    if (this.stream !== undefined) this.transport.released();
  }

  #lossError(code: number): ConnectError {
    const channel = this.#channel!;
    if (!channel.isOpen) {
      return new ConnectError(
        `the channel to ${channel.peer} ended in mid-call (code ${code})`,
        Code.Unavailable,
      );
    }
    const message = `${channel.peer} gave up the call (code ${code})`;
    return new ConnectError(message, code === STREAM_CODE.PROTOCOL ? Code.Internal : Code.Unavailable);
  }
}

class ClientUnaryCall extends ClientCall {
  readonly #frames: FrameReader;
  readonly #wrap: typeof ClientUnaryResponse | undefined;
  #input: MessageInitShape<DescMessage> | undefined;
  #message: Uint8Array | undefined;
  readonly #resolve: Resolve;
  readonly #reject: (error: unknown) => void;

  constructor(
    transport: ChannelTransportImpl,
    method: DescMethod,
    headers: HeadersInit | undefined,
    input: MessageInitShape<DescMessage>,
    wrap: typeof ClientUnaryResponse | undefined,
    resolve: Resolve,
    reject: (error: unknown) => void,
  ) {
    super(transport, method, headers);
    this.#frames = new FrameReader(transport.maxAnswerBytes);
    this.#input = input;
    this.#wrap = wrap;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  protected override onOpen(stream: ChannelStream): void {
    const { writer } = this.transport;
    this.writeCallHeader(writer);
    this.writeMessage(writer, this.#input!);
    this.#input = undefined;
    this.requestEnded = true;
    stream.write(writer.take(), true);
  }

  override onData(bytes: Uint8Array, fin: boolean): void {
    // SPEC §7.2.
    if (bytes.length > 0) this.stream!.consumed(bytes.length);
    this.responseEnded = fin;
    if (this.ended) return;
    this.#frames.push(bytes);
    for (;;) {
      const type = this.#frames.next();
      if (type === FRAME.MESSAGE) {
        if (this.#message !== undefined) return this.protocolError("more than one answer to a unary call");
        this.#message = this.#frames.payload;
      } else if (type === FRAME.END) {
        return this.#onEnd(this.#frames.payload);
      } else if (type === NEED_MORE) {
        if (fin) this.protocolError("the answer ended without a status");
        return;
      } else if (type === VIOLATION) {
        const { code, message } = this.#frames.violation!;
        return this.protocolError(message, code === Code.ResourceExhausted ? code : Code.Internal);
      } else if (
        type === FRAME.HEADERS && this.responseHeaders === undefined && this.#message === undefined
      ) {
        const wrong = checkMetadata(this.#frames.payload, 0);
        if (wrong !== undefined) return this.protocolError(wrong);
        this.responseHeaders = this.#frames.payload;
      } else {
        return this.protocolError(`frame of type ${type} out of place`);
      }
    }
  }

  override onDrain(): void {}

  protected override onFail(error: ConnectError): void {
    this.#reject(error);
  }

  #onEnd(payload: Uint8Array): void {
    const end = readEnd(payload);
    if (typeof end === "string") return this.protocolError(end);
    if (this.#frames.buffered > 0) return this.protocolError("bytes after the end of the answer");
    if (end.code !== 0) {
      this.complete();
      this.#reject(endToError(end, this.responseHeaders));
      return;
    }
    if (this.#message === undefined) return this.protocolError("the answer has no message");
    let message;
    try {
      message = fromBinary(this.method.output, this.#message);
    } catch (error) {
      return this.protocolError(`answer cannot be decoded: ${(error as Error).message}`);
    }
    this.end = end;
    this.complete();
    this.#resolve(this.#wrap === undefined ? message : new this.#wrap(this, message));
  }
}

/** Headers and trailers of an answer, made when they are read. */
class ClientResponse {
  readonly service: DescService;
  #header: Headers | undefined;
  #trailer: Headers | undefined;

  constructor(protected readonly call: ClientCall) {
    this.service = call.method.parent;
  }

  get header(): Headers {
    return this.#header ??= readMetadata(this.call.responseHeaders ?? NO_BYTES, 0, new Headers());
  }

  get trailer(): Headers {
    // Trailers exist once the end was read; until then there are none to be kept.
    const { end } = this.call;
    if (end === undefined) return new Headers();
    return this.#trailer ??= readMetadata(end.payload, end.metadataStart, new Headers());
  }
}

class ClientUnaryResponse extends ClientResponse {
  readonly stream = false;
  readonly method: DescMethod;
  constructor(call: ClientCall, readonly message: MessageShape<DescMessage>) {
    super(call);
    this.method = call.method;
  }
}

class ClientStreamResponse extends ClientResponse {
  readonly stream = true;
  readonly method: DescMethod;
  constructor(call: ClientCall, readonly message: AsyncIterable<MessageShape<DescMessage>>) {
    super(call);
    this.method = call.method;
  }
}

class ClientStreamCall extends ClientCall
  implements InboundOwner<MessageShape<DescMessage>>, OutboundTarget<MessageInitShape<DescMessage>> {
  readonly #frames: FrameReader;
  readonly #input: AsyncIterable<MessageInitShape<DescMessage>>;
  #outbound: Outbound<MessageInitShape<DescMessage>> | undefined;
  #inbound: Inbound<MessageShape<DescMessage>> | undefined;
  /** Bytes kept in `#frames` until there is an `#inbound`. */
  #sawMessage = false;
  readonly #resolve: Resolve;
  readonly #reject: (error: unknown) => void;

  constructor(
    transport: ChannelTransportImpl,
    method: DescMethod,
    headers: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<DescMessage>>,
    resolve: Resolve,
    reject: (error: unknown) => void,
  ) {
    super(transport, method, headers);
    this.#frames = new FrameReader(transport.maxAnswerBytes);
    this.#input = input;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  protected override onOpen(stream: ChannelStream): void {
    const { writer } = this.transport;
    this.writeCallHeader(writer);
    // A server-streaming request is one message and follows at once; together they are one write.
    const call = writer.take();
    if (this.method.methodKind !== "server_streaming") stream.write(call, false);
    else this.#held = call;
    this.#outbound = new Outbound(this.#input, this);
    this.#outbound.run();
  }
  #held: Uint8Array | undefined;

  sendMessage(message: MessageInitShape<DescMessage>): boolean {
    const { writer } = this.transport;
    const single = this.method.methodKind === "server_streaming";
    try {
      if (this.#held !== undefined) writer.bytes(this.#held);
      this.writeMessage(writer, message);
    } catch (error) {
      writer.truncate(0);
      throw error;
    }
    this.#held = undefined;
    this.requestEnded ||= single;
    const more = this.stream!.write(writer.take(), single);
    if (single) this.#outbound!.stop();
    return more;
  }

  onSourceEnd(): void {
    if (this.requestEnded) return;
    this.requestEnded = true;
    this.stream!.write(this.#held ?? NO_BYTES, true);
  }

  onSourceError(error: unknown): void {
    this.fail(ConnectError.from(error));
  }

  override onData(bytes: Uint8Array, fin: boolean): void {
    this.responseEnded = fin;
    if (this.ended) {
      if (this.#inbound !== undefined) this.#inbound.push(bytes, fin);
      else if (bytes.length > 0) this.stream!.consumed(bytes.length);
      return;
    }
    if (fin) this.stopDeadline();
    if (this.#inbound !== undefined) {
      this.#inbound.push(bytes, fin);
      return;
    }
    this.#frames.push(bytes);
    this.#onFirstBytes(bytes.length, fin);
  }

  override onDrain(): void {
    this.#outbound?.drained();
  }

  decode(bytes: Uint8Array): MessageShape<DescMessage> {
    this.#sawMessage = true;
    return fromBinary(this.method.output, bytes);
  }

  control(type: number, payload: Uint8Array): typeof END_OF_MESSAGES | ConnectError | undefined {
    if (type === FRAME.HEADERS && this.responseHeaders === undefined && !this.#sawMessage) {
      const wrong = checkMetadata(payload, 0);
      if (wrong !== undefined) return new ConnectError(wrong, Code.Internal);
      this.responseHeaders = payload;
      return undefined;
    }
    if (type !== FRAME.END) return new ConnectError(`frame of type ${type} out of place`, Code.Internal);
    const end = readEnd(payload);
    if (typeof end === "string") return new ConnectError(end, Code.Internal);
    if (this.#frames.buffered > 0) {
      return new ConnectError("bytes after the end of the answer", Code.Internal);
    }
    this.end = end;
    return end.code === 0 ? END_OF_MESSAGES : endToError(end, this.responseHeaders);
  }

  atFin(): ConnectError {
    return new ConnectError("the answer ended without a status", Code.Internal);
  }

  onInboundEnd(error: ConnectError | undefined, abandoned: boolean): void {
    if (this.ended) return;
    if (abandoned) {
      this.fail(new ConnectError("the caller stopped reading", Code.Canceled));
    } else if (this.end !== undefined) {
      this.#outbound?.stop();
      this.complete();
    } else {
      this.protocolError(error!.rawMessage, error!.code);
    }
  }

  protected override onRequestStopped(): void {
    this.#outbound?.stop();
  }

  protected override onFail(error: ConnectError): void {
    this.#outbound?.stop();
    if (this.#inbound !== undefined) this.#inbound.fail(error);
    else this.#reject(error);
  }

  /** Waits for what decides between an answer and a refusal: the headers, the first bytes of a message, or the end. */
  #onFirstBytes(byteCount: number, fin: boolean): void {
    const { stream } = this;
    let uncredited = byteCount;
    for (;;) {
      const next = this.#frames.peek();
      if (next === FRAME.MESSAGE || (next === NEED_MORE && this.responseHeaders !== undefined)) {
        // Headers and status were credited below; the inbound half credits the rest.
        const rest = this.#frames.buffered;
        if (uncredited > rest) stream!.consumed(uncredited - rest);
        this.#inbound = new Inbound(stream!, this.#frames, fin, this);
        this.#resolve(new ClientStreamResponse(this, this.#inbound));
        return;
      }
      const type = this.#frames.next();
      if (type === NEED_MORE) {
        stream!.consumed(uncredited);
        if (fin) this.protocolError("the answer ended without a status");
        return;
      }
      const rest = this.#frames.buffered;
      stream!.consumed(uncredited - Math.min(uncredited, rest));
      uncredited = Math.min(uncredited, rest);
      const outcome = type === VIOLATION
        ? new ConnectError(this.#frames.violation!.message, Code.Internal)
        : this.control(type, this.#frames.payload);
      if (outcome === undefined) continue;
      stream!.consumed(uncredited);
      this.#frames.clear();
      return this.#endBeforeMessages(outcome);
    }
  }

  #endBeforeMessages(outcome: typeof END_OF_MESSAGES | ConnectError): void {
    if (outcome !== END_OF_MESSAGES) {
      if (this.end === undefined) return this.protocolError(outcome.rawMessage, outcome.code);
      this.#outbound?.stop();
      this.complete();
      this.#reject(outcome);
      return;
    }
    this.#outbound?.stop();
    this.complete();
    this.#resolve(new ClientStreamResponse(this, nothing()));
  }
}

async function* nothing(): AsyncGenerator<never> {}

function abortError(signal: AbortSignal): ConnectError {
  return ConnectError.from(signal.reason, Code.Canceled);
}

const NO_BYTES = new Uint8Array(0);
