/** The server half of RPC: handlers typed by Connect's `ServiceImpl`, on any number of channels. */
import {
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type Message,
  type MessageInitShape,
} from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextValues,
  type HandlerContext,
  type ServiceImpl,
} from "@connectrpc/connect";
import type { Channel, ChannelStream, StreamHandler } from "../channels/channel.ts";
import { Bag, type Bagged } from "./bag.ts";
import { readCall } from "./call_header.ts";
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
import { type END_OF_MESSAGES, Inbound, type InboundOwner } from "./inbound.ts";
import { latin1, readMetadata } from "./metadata.ts";
import { MethodTable } from "./methods.ts";
import { Outbound, type OutboundTarget } from "./outbound.ts";
import { type StatusCode, STREAM_CODE, writeErrorEnd, writeHeaders, writeOkEnd } from "./status.ts";

/** What bounds a server, and whom it tells. */
export interface RpcServerOptions {
  /** Calls that may run at a time, over all channels; more are refused with `resource_exhausted`. Default 16,384. */
  readonly maxConcurrentCalls?: number;
  /** Largest message sent or taken. Default: 4 MiB taken, 64 MiB sent. */
  readonly maxMessageBytes?: number;
  /** Told of every error that a handler did not mean for its caller; the caller gets `internal` without its text.
   *  `requestHeader` is the call's, with its request id and trace context. */
  readonly onError?: (method: string, error: unknown, requestHeader: Headers) => void;
  readonly observer?: RpcObserver;
  /** Time and timers. Default: the platform's. */
  readonly clock?: RpcClock;
}

/** Told of every call that ended. Runs on the call's turn: count and return. */
export interface RpcObserver {
  /** `method` is the path `/pkg.Service/Method` of a served method, or "" when the call named none; `code` 0 is success. */
  onCallEnd(method: string, code: StatusCode, elapsedMs: number): void;
}

/** Figures of a server; counters count from its start. */
export interface RpcServerStats {
  readonly running: number;
  readonly accepted: number;
  /** Refused because the server was full or draining. */
  readonly refused: number;
  /** Ended with another code than 0, refused ones included. */
  readonly failed: number;
  readonly channels: number;
}

/** Serves RPC. */
export interface RpcServer {
  /** Adds a service; methods without a handler answer `unimplemented`. @throws {RangeError} if it is already served. */
  service<S extends DescService>(service: S, impl: Partial<ServiceImpl<S>>): RpcServer;
  /** Serves the streams that the peer opens on `channel`, until it ends. */
  accept(channel: Channel): void;
  /** Refuses new calls with `unavailable` from now on; settles when the running ones have ended. */
  drain(): Promise<void>;
  /** Ends the calls that still run with `unavailable`. For a drain whose time is up. */
  abort(reason: string): void;
  stats(): RpcServerStats;
}

/** Makes a server that serves nothing yet. */
export function createRpcServer(options: RpcServerOptions = {}): RpcServer {
  return new RpcServerImpl(options);
}

type Handler = (request: unknown, context: HandlerContext) => unknown;

interface Method {
  readonly path: string;
  readonly desc: DescMethod;
  readonly handler: Handler | undefined;
}

class RpcServerImpl implements RpcServer {
  readonly clock: RpcClock;
  readonly deadlines: DeadlineQueue;
  readonly writer = new FrameWriter();
  readonly encoder = new MessageEncoder();
  readonly methods = new MethodTable<Method>();
  readonly maxMessageBytes: number;
  readonly maxAnswerBytes: number;
  readonly maxConcurrentCalls: number;
  readonly observer: RpcObserver | undefined;
  draining = false;
  readonly #onError: RpcServerOptions["onError"];
  readonly #running = new Bag<ServerCall>();
  #drained: { promise: Promise<void>; resolve: () => void } | undefined;
  #accepted = 0;
  #refused = 0;
  #failed = 0;
  #channels = 0;

  constructor(options: RpcServerOptions) {
    this.clock = options.clock ?? systemRpcClock;
    this.deadlines = new DeadlineQueue(this.clock);
    this.maxMessageBytes = options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES;
    this.maxAnswerBytes = options.maxMessageBytes ?? DEFAULT_MAX_ANSWER_BYTES;
    this.maxConcurrentCalls = options.maxConcurrentCalls ?? 16_384;
    this.observer = options.observer;
    this.#onError = options.onError;
  }

  service<S extends DescService>(service: S, impl: Partial<ServiceImpl<S>>): RpcServer {
    const handlers = impl as Record<string, Handler | undefined>;
    for (const desc of service.methods) {
      const path = `/${service.typeName}/${desc.name}`;
      this.methods.add(path, { path, desc, handler: handlers[desc.localName]?.bind(impl) });
    }
    return this;
  }

  accept(channel: Channel): void {
    this.#channels++;
    channel.closed.then(() => this.#channels--);
    channel.onStream((stream) => new ServerCall(this, channel, stream));
  }

  drain(): Promise<void> {
    this.draining = true;
    if (this.#drained === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#drained = { promise, resolve };
      if (this.#running.size === 0) resolve();
    }
    return this.#drained.promise;
  }

  abort(reason: string): void {
    for (const call of this.#running.snapshot()) call.refuse(Code.Unavailable, reason);
  }

  stats(): RpcServerStats {
    return {
      running: this.#running.size,
      accepted: this.#accepted,
      refused: this.#refused,
      failed: this.#failed,
      channels: this.#channels,
    };
  }

  /** Takes a new call in; text says why not. */
  admit(call: ServerCall): { code: Code; message: string } | undefined {
    if (this.draining) {
      this.#refused++;
      return { code: Code.Unavailable, message: "the server is draining" };
    }
    if (this.#running.size >= this.maxConcurrentCalls) {
      this.#refused++;
      return {
        code: Code.ResourceExhausted,
        message: `${this.#running.size} calls are running, maxConcurrentCalls is ${this.maxConcurrentCalls}`,
      };
    }
    this.#accepted++;
    this.#running.add(call);
    return undefined;
  }

  /** A call ended. */
  onEnd(call: ServerCall, method: Method | undefined, code: StatusCode, startedAt: number): void {
    if (code !== 0) this.#failed++;
    this.#running.delete(call);
    this.observer?.onCallEnd(method?.path ?? "", code, this.clock.now() - startedAt);
    if (this.#running.size === 0) this.#drained?.resolve();
  }

  /** Tells the log of an error the caller must not see. */
  report(call: ServerCall, error: unknown): void {
    this.#onError?.(call.method?.path ?? "", error, call.context?.requestHeader ?? new Headers());
  }
}

class ServerCall
  implements
    StreamHandler,
    Timed,
    Bagged,
    InboundOwner<Message>,
    OutboundTarget<MessageInitShape<DescMessage>> {
  dueAt = Infinity;
  heapIndex = -1;
  bagIndex = -1;
  ended = false;
  abortReason: ConnectError | undefined;
  context: CallContext | undefined;
  method: Method | undefined;
  /** CALL payload and where its metadata begins. */
  header: Uint8Array = NO_BYTES;
  metadataStart = 0;
  readonly #startedAt: number;
  readonly #frames: FrameReader;
  #request: Uint8Array | undefined;
  #requestEnded = false;
  #headersSent = false;
  #inbound: Inbound<Message> | undefined;
  #outbound: Outbound<MessageInitShape<DescMessage>> | undefined;

  constructor(readonly server: RpcServerImpl, readonly channel: Channel, readonly stream: ChannelStream) {
    this.#startedAt = server.observer === undefined ? 0 : server.clock.now();
    this.#frames = new FrameReader(server.maxMessageBytes);
    const refusal = server.admit(this);
    if (refusal !== undefined) this.refuse(refusal.code, refusal.message);
  }

  onData(bytes: Uint8Array, fin: boolean): void {
    if (fin) this.#requestEnded = true;
    if (this.#inbound !== undefined) return this.#inbound.push(bytes, fin);
    if (this.ended) {
      if (bytes.length > 0) this.stream.consumed(bytes.length);
      return;
    }
    this.#frames.push(bytes);
    if (this.method === undefined && !this.#readHeader()) {
      if (bytes.length > 0) this.stream.consumed(bytes.length);
      return;
    }
    const kind = this.method!.desc.methodKind;
    if (kind === "unary" || kind === "server_streaming") {
      if (bytes.length > 0) this.stream.consumed(bytes.length);
      this.#readSingle();
      // Most handlers have answered by now; only those that go on need a timer.
      if (!this.ended && this.dueAt !== Infinity && this.heapIndex < 0) this.server.deadlines.add(this);
    } else {
      const rest = this.#frames.buffered;
      if (bytes.length > rest) this.stream.consumed(bytes.length - rest);
      this.#inbound = new Inbound(this.stream, this.#frames, fin, this);
      if (this.dueAt !== Infinity) this.server.deadlines.add(this);
      this.#dispatch(this.#inbound);
    }
  }

  onReset(code: number): void {
    // A half that was stopped from here is reset in answer to that, which is no cancellation.
    if (this.#requestEnded) return;
    this.#requestEnded = true;
    this.#cancelled(code);
  }

  onStop(code: number): void {
    // Of a call that has ended, the rest of the answer may still wait to be sent.
    if (this.ended) this.stream.reset(STREAM_CODE.CANCEL);
    this.#cancelled(code);
  }

  onDrain(): void {
    this.#outbound?.drained();
  }

  onDue(): void {
    this.refuse(Code.DeadlineExceeded, "the deadline passed");
  }

  /** Ends the call with an error of the server's own. */
  refuse(code: Code, message: string): void {
    this.fail(new ConnectError(message, code));
  }

  /** Ends the call with `error`. */
  fail(error: ConnectError): void {
    if (this.ended) return;
    this.ended = true;
    const { writer } = this.server;
    let end: Uint8Array;
    try {
      writeErrorEnd(writer, error, this.context?.trailerIfUsed);
      end = writer.take();
    } catch (cause) {
      // A detail that cannot be encoded must not hide the code.
      writer.truncate(0);
      this.server.report(this, cause);
      writeErrorEnd(writer, new ConnectError(error.rawMessage, error.code), undefined);
      end = writer.take();
    }
    this.stream.write(end, true);
    this.#close(error.code, error);
  }

  // InboundOwner: the request half of client-streaming and bidirectional calls.

  decode(bytes: Uint8Array): Message {
    return fromBinary(this.method!.desc.input, bytes);
  }

  control(type: number): typeof END_OF_MESSAGES | ConnectError | undefined {
    return new ConnectError(`frame of type ${type} out of place`, Code.InvalidArgument);
  }

  atFin(): ConnectError | undefined {
    return undefined;
  }

  onInboundEnd(error: ConnectError | undefined, abandoned: boolean): void {
    if (this.ended) return;
    if (error !== undefined) {
      this.fail(
        error.code === Code.Internal ? new ConnectError(error.rawMessage, Code.InvalidArgument) : error,
      );
    } else if (abandoned) {
      this.#stopRequest(STREAM_CODE.STOP_DONE);
    }
  }

  // OutboundTarget: the answers of server-streaming and bidirectional calls.

  sendMessage(message: MessageInitShape<DescMessage>): boolean {
    if (this.ended) return true;
    const { writer } = this.server;
    try {
      this.#writeHeadersOnce(writer);
      this.#writeMessage(writer, message);
    } catch (error) {
      writer.truncate(0);
      throw error;
    }
    return this.stream.write(writer.take(), false);
  }

  onSourceEnd(): void {
    if (this.ended) return;
    this.#succeed(undefined);
  }

  onSourceError(error: unknown): void {
    this.#onHandlerError(error);
  }

  /** Reads the CALL frame; false while there is no method to go on with. */
  #readHeader(): boolean {
    const type = this.#frames.next();
    if (type === NEED_MORE) {
      if (this.#requestEnded) this.#broken("the stream ended before its call header");
      return false;
    }
    if (type === VIOLATION) return this.#broken(this.#frames.violation!.message);
    if (type !== FRAME.CALL) {
      return this.#broken(`the first frame has type ${type}, a call header has ${FRAME.CALL}`);
    }
    const payload = this.#frames.payload;
    const header = readCall(payload);
    if ("code" in header) return this.#broken(header.message, header.code);
    const method = this.server.methods.find(payload, header.pathStart, header.pathEnd);
    if (method?.handler === undefined) {
      const path = latin1(payload, header.pathStart, header.pathEnd).replace(/[^\x21-\x7e]/g, "?");
      this.refuse(Code.Unimplemented, `${path} is not served here`);
      return false;
    }
    this.method = method;
    this.header = payload;
    this.metadataStart = header.metadataStart;
    const { remainingMs } = header;
    if (remainingMs !== undefined) {
      if (remainingMs === 0) {
        this.refuse(Code.DeadlineExceeded, "the deadline passed before the call arrived");
        return false;
      }
      this.dueAt = this.server.clock.now() + remainingMs;
    }
    return true;
  }

  /** Reads the one message of a unary request half; the call runs when the half has ended. */
  #readSingle(): void {
    for (;;) {
      const type = this.#frames.next();
      if (type === FRAME.MESSAGE) {
        if (this.#request !== undefined) return void this.#broken("more than one message in a unary request");
        this.#request = this.#frames.payload;
      } else if (type === NEED_MORE) {
        break;
      } else if (type === VIOLATION) {
        const { code, message } = this.#frames.violation!;
        return void this.#broken(message, code);
      } else {
        return void this.#broken(`frame of type ${type} out of place`);
      }
    }
    if (!this.#requestEnded) return;
    if (this.#frames.buffered > 0) return void this.#broken("a frame is cut short");
    if (this.#request === undefined) return void this.#broken("the request has no message");
    let request: Message;
    try {
      request = fromBinary(this.method!.desc.input, this.#request);
    } catch (error) {
      return void this.#broken(`request cannot be decoded: ${(error as Error).message}`);
    }
    this.#request = undefined;
    this.#dispatch(request);
  }

  #dispatch(request: unknown): void {
    const { desc, handler } = this.method!;
    let answer: unknown;
    try {
      answer = handler!(request, this.context = new CallContext(this));
      if (desc.methodKind === "server_streaming" || desc.methodKind === "bidi_streaming") {
        this.#outbound = new Outbound(answer as AsyncIterable<MessageInitShape<DescMessage>>, this);
      }
    } catch (error) {
      return this.#onHandlerError(error);
    }
    if (this.#outbound !== undefined) {
      if (this.ended) this.#outbound.stop();
      else this.#outbound.run();
    } else if (isThenable(answer)) {
      answer.then((value) => this.#onAnswer(value), (error) => this.#onHandlerError(error));
    } else {
      this.#onAnswer(answer);
    }
  }

  #onAnswer(answer: unknown): void {
    if (this.ended) return;
    this.#succeed(answer as MessageInitShape<DescMessage>);
  }

  #onHandlerError(error: unknown): void {
    // The call has ended by itself (deadline, cancellation): what the handler says now is its echo.
    if (this.ended) return;
    if (error instanceof ConnectError) return this.fail(error);
    this.server.report(this, error);
    this.refuse(Code.Internal, "internal error");
  }

  /** Ends the call well, with the one answer of a unary half in the same write. */
  #succeed(answer: MessageInitShape<DescMessage> | undefined): void {
    const { writer } = this.server;
    try {
      this.#writeHeadersOnce(writer);
      if (answer !== undefined) this.#writeMessage(writer, answer);
      else if (this.#outbound === undefined) throw new TypeError("the handler returned no message");
      writeOkEnd(writer, this.context!.trailerIfUsed);
    } catch (error) {
      writer.truncate(0);
      return this.#onHandlerError(error);
    }
    this.ended = true;
    this.stream.write(writer.take(), true);
    this.#close(0, undefined);
  }

  #writeHeadersOnce(writer: FrameWriter): void {
    if (this.#headersSent) return;
    const headers = this.context!.headerIfUsed;
    if (headers !== undefined) writeHeaders(writer, headers);
    this.#headersSent = true;
  }

  #writeMessage(writer: FrameWriter, message: MessageInitShape<DescMessage>): void {
    const { output } = this.method!.desc;
    const limit = this.server.maxAnswerBytes;
    const mark = writer.beginFrame(FRAME.MESSAGE);
    this.server.encoder.write(writer, output, message);
    const byteCount = writer.endFrame(mark);
    if (byteCount > limit) {
      throw new ConnectError(
        `answer of ${byteCount} bytes is over the limit of ${limit}`,
        Code.ResourceExhausted,
      );
    }
  }

  /** The caller broke the SPEC. */
  #broken(message: string, code = Code.InvalidArgument): false {
    this.#stopRequest(STREAM_CODE.PROTOCOL);
    this.refuse(code, message);
    return false;
  }

  /** The caller went away. */
  #cancelled(code: number): void {
    if (this.ended) return;
    this.ended = true;
    this.stream.reset(STREAM_CODE.CANCEL);
    const lost = !this.channel.isOpen;
    const message = lost ? "the caller's channel ended" : `the caller cancelled the call (code ${code})`;
    this.#close(Code.Canceled, new ConnectError(message, Code.Canceled));
  }

  #close(code: StatusCode, reason: ConnectError | undefined): void {
    this.server.deadlines.remove(this);
    this.#frames.clear();
    this.#stopRequest(STREAM_CODE.STOP_DONE);
    this.abortReason = reason ?? CALL_ENDED;
    this.context?.abort(this.abortReason);
    this.#outbound?.stop();
    if (reason === undefined) this.#inbound?.return();
    else this.#inbound?.fail(reason);
    this.server.onEnd(this, this.method, code, this.#startedAt);
  }

  #stopRequest(code: number): void {
    if (this.#requestEnded) return;
    this.#requestEnded = true;
    this.stream.stop(code);
  }
}

/** What handlers see of a call. Everything that costs is made when it is asked for. */
class CallContext implements HandlerContext {
  readonly requestMethod = "POST";
  readonly protocolName = "aetherflow";
  readonly #call: ServerCall;
  #controller: AbortController | undefined;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;
  #values: ContextValues | undefined;

  constructor(call: ServerCall) {
    this.#call = call;
  }

  get method(): DescMethod {
    return this.#call.method!.desc;
  }

  get service(): DescService {
    return this.#call.method!.desc.parent;
  }

  get url(): string {
    return `aetherflow://${this.#call.channel.peer}${this.#call.method!.path}`;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#call.abortReason !== undefined) this.#controller.abort(this.#call.abortReason);
    }
    return this.#controller.signal;
  }

  get requestHeader(): Headers {
    return this.#requestHeader ??= readMetadata(this.#call.header, this.#call.metadataStart, new Headers());
  }

  get responseHeader(): Headers {
    return this.#responseHeader ??= new Headers();
  }

  get responseTrailer(): Headers {
    return this.#responseTrailer ??= new Headers();
  }

  get values(): ContextValues {
    return this.#values ??= createContextValues();
  }

  timeoutMs(): number | undefined {
    const { dueAt, server } = this.#call;
    return dueAt === Infinity ? undefined : Math.max(0, dueAt - server.clock.now());
  }

  get headerIfUsed(): Headers | undefined {
    return this.#responseHeader;
  }

  get trailerIfUsed(): Headers | undefined {
    return this.#responseTrailer;
  }

  abort(reason: ConnectError): void {
    this.#controller?.abort(reason);
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

const NO_BYTES = new Uint8Array(0);

/** Why the signal of a call that went well is aborted at its end; nobody waits for it any more. */
const CALL_ENDED = new ConnectError("the call has ended", Code.Canceled);
