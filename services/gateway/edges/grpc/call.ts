/** One gRPC call: an HTTP/2 stream at one side, a call of ours at the other, and bytes that pass between them unread. */
import { Code } from "@connectrpc/connect";
import { encodeFields } from "../../../../transport/http2/hpack.ts";
import type { Http2Stream, StreamHandler } from "../../../../transport/http2/stream.ts";
import type { Bagged } from "../../../../transport/rpc/bag.ts";
import type { RawCall, RawCallHandler, RawEnd } from "../../../../transport/rpc/mod.ts";
import { PRINCIPAL_METADATA } from "../../../runtime/principal.ts";
import type { Followed } from "../../auth/followers.ts";
import type { GatewayError } from "../../problem.ts";
import type { Caller, Remote, RequestTrace } from "../../stages.ts";
import { detailsOf, encodeStatusDetails } from "../connect/failure.ts";
import type { CallHead } from "./call_head.ts";
import { encodeStatusMessage } from "./headers.ts";
import { MessageReader, prefixOf } from "../../../../transport/grpc/message_reader.ts";
import type { GrpcMethod } from "./method.ts";
import { AfterRefresh, loginFrom, sessionFrom } from "./sign_in.ts";

/** What calls need of their edge. */
export interface CallOwner {
  readonly maxMessageBytes: number;
  readonly clock: { now(): number };
  newRequestId(): string;
  /** Resolves when what was changed before holds at this gateway. */
  refreshPolicy(): Promise<void>;
  /** Calls `call.start()` now, or with others at the end of the turn. */
  schedule(call: GrpcCall): void;
  /** The call has ended, whoever ended it. Called once. */
  onCallEnd(call: GrpcCall, code: number, message: string): void;
}

type Fields = [name: string, value: string][];

const HEAD_FIELDS: Fields = [[":status", "200"], ["content-type", "application/grpc"]];
const HEAD = encodeFields(HEAD_FIELDS);
const OK_FIELDS: Fields = [["grpc-status", "0"]];
const OK_TRAILERS = encodeFields(OK_FIELDS);

/** A call under way. */
export class GrpcCall implements RawCallHandler, StreamHandler, Bagged {
  bagIndex = -1;
  readonly method: GrpcMethod;
  readonly startedAtMs: number;
  readonly requestId: string;
  readonly trace: RequestTrace | undefined;
  readonly remote: Remote;
  /** Undefined until it is known; the worker is not called before. */
  caller: Caller | undefined;
  /** The call in the followers' list, if its caller's rights are looked at again. */
  followed: Followed | undefined;
  /** Whether it was to start before it was known who calls. */
  #isHeld = false;
  readonly #owner: CallOwner;
  readonly #stream: Http2Stream;
  readonly head: CallHead;
  readonly #reader: MessageReader;
  #call: RawCall | undefined;
  /** The one message of a call that has one, until the call starts. */
  #message: Uint8Array | undefined;
  /** Whether the request is complete, or nothing more of it matters. */
  #requestDone = false;
  /** Whether the client has sent all of it. */
  #isRequestHere = false;
  #answer: Uint8Array | undefined;
  #answerHead: Fields | undefined;
  #headSent = false;
  #ended = false;

  constructor(
    owner: CallOwner,
    method: GrpcMethod,
    stream: Http2Stream,
    head: CallHead,
    trace: RequestTrace | undefined,
    remote: Remote,
  ) {
    this.method = method;
    this.trace = trace;
    this.remote = remote;
    this.#owner = owner;
    this.#stream = stream;
    this.head = head;
    this.startedAtMs = owner.clock.now();
    this.requestId = head.requestId ?? owner.newRequestId();
    this.#reader = new MessageReader(owner.maxMessageBytes, head.encoding);
  }

  /** Whether it has ended. */
  get isOver(): boolean {
    return this.#ended;
  }

  /** Begins to read the request. */
  begin(isWhole: boolean): void {
    this.#stream.handler = this;
    if (!this.method.takesOne) this.start();
    if (isWhole) this.onBodyEnd();
  }

  /** It is known who calls, and that they may. */
  admit(caller: Caller): void {
    this.caller = caller;
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.start();
    if (this.method.takesOne || this.#ended) return;
    // What came of the request meanwhile.
    this.#readMessages();
    if (this.#isRequestHere) this.#endRequest();
    else if (!this.#ended) this.#stream.resume();
  }

  /** Starts the call of the worker, or has it start when it is known who calls. */
  start(): void {
    if (this.#ended) return;
    if (this.caller === undefined) {
      this.#isHeld = true;
      return;
    }
    const { method, caller } = this;
    const { lateRefusal, timeoutMs, forwarded, shown } = this.head;
    if (lateRefusal !== undefined) return this.end(lateRefusal.code, lateRefusal.message);
    let message = this.#message;
    this.#message = undefined;
    const headers: Fields = [
      ["x-request-id", this.requestId],
      [PRINCIPAL_METADATA, caller.encoded],
      ...forwarded as Fields,
    ];
    // An etcd token is the store's to judge.
    const isForService = caller.credential === "none" || caller.credential === "etcd_token";
    if (shown.authorization !== undefined && isForService) {
      headers.push(["authorization", shown.authorization]);
    }
    if (this.trace !== undefined) headers.push(["traceparent", this.trace.traceparent]);
    if (message !== undefined) {
      if (method.around === "login") message = loginFrom(this.remote, message);
      else if (method.around === "session") message = sessionFrom(this.remote, message);
    }
    const handler: RawCallHandler = method.around === "users"
      ? new AfterRefresh(this, () => this.#owner.refreshPolicy())
      : this;
    this.#call = method.start(handler, {
      timeoutMs,
      headers,
      message,
      isWhole: message !== undefined,
    });
    // It may have ended before it was there to be cancelled.
    if (this.#ended) this.#call.cancel();
  }

  /** Ends the call with a status of the gateway's own. */
  end(code: Code, message: string): void {
    if (this.#ended) return;
    this.#call?.cancel();
    this.onEnd({ code, message, trailers: undefined });
  }

  /** Ends the call with an error of the gateway's own, and what is known of it besides. */
  fail(error: GatewayError): void {
    if (this.#ended) return;
    this.#call?.cancel();
    const { grpcCode: code, message } = error;
    this.onEnd({ code, message, trailers: undefined, details: detailsOf(error, this.requestId) });
  }

  // The worker's side.

  onHeaders(headers: Headers): void {
    this.#answerHead = [...headers];
  }

  onMessage(message: Uint8Array): void {
    if (this.#ended) return;
    this.method.metrics.messageOut();
    if (!this.method.streams) {
      this.#answer = message;
      return;
    }
    this.#sendHead();
    if (!this.#stream.write(prefixOf(message), message)) this.#call?.pause();
  }

  onDrain(): void {
    if (!this.#ended) this.#stream.resume();
  }

  onEnd(end: RawEnd): void {
    if (this.#ended) return;
    const { code, message, trailers } = end;
    this.#ended = true;
    if (this.#stream.isOpen) {
      if (code === 0) this.#succeed(trailers);
      else this.#fail(end);
    }
    this.#owner.onCallEnd(this, code, message);
  }

  // The client's side.

  onBody(chunk: Uint8Array): void {
    if (this.#requestDone || this.#ended) return;
    this.#reader.push(chunk);
    if (this.#isHeld) this.#stream.pause();
    else this.#readMessages();
  }

  #readMessages(): void {
    const reader = this.#reader;
    for (let message = reader.next(); message !== undefined; message = reader.next()) {
      this.method.metrics.messageIn();
      if (this.method.takesOne) {
        // As Go's server does: the one message is answered, what follows is not read.
        this.#requestDone = true;
        this.#message = message;
        return this.#owner.schedule(this);
      }
      if (!this.#call!.send(message)) this.#stream.pause();
      if (this.#ended) return;
    }
    if (reader.violation !== undefined) this.end(reader.violation.code, reader.violation.message);
  }

  onBodyEnd(): void {
    this.#isRequestHere = true;
    if (!this.#isHeld) this.#endRequest();
  }

  #endRequest(): void {
    if (this.#requestDone || this.#ended) return;
    this.#requestDone = true;
    if (this.#reader.isPartial) this.end(Code.Internal, "unexpected EOF");
    else if (this.method.takesOne) this.end(Code.Internal, "the request has no message");
    else this.#call!.endRequest();
  }

  onReset(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#call?.cancel();
    this.#owner.onCallEnd(this, Code.Canceled, "the client went away");
  }

  onWritable(): void {
    if (!this.#ended) this.#call?.resume();
  }

  // The answer.

  #sendHead(): void {
    if (this.#headSent) return;
    this.#headSent = true;
    this.#stream.respond(this.#headBlock());
  }

  #headBlock(): Uint8Array {
    return this.#answerHead === undefined ? HEAD : encodeFields([...HEAD_FIELDS, ...this.#answerHead]);
  }

  #succeed(trailers: Headers | undefined): void {
    const block = trailers === undefined ? OK_TRAILERS : encodeFields([...trailers, ...OK_FIELDS]);
    const answer = this.#answer;
    if (answer !== undefined) {
      this.#answer = undefined;
      return this.#stream.answer(this.#headBlock(), prefixOf(answer), answer, block);
    }
    this.#sendHead();
    this.#stream.end(block);
  }

  /** What the client still sends is not kept. It is not told to stop by a reset, which could overtake the status. */
  #fail({ code, message, trailers, details }: RawEnd): void {
    const status: Fields = [
      ...(trailers ?? []),
      ["grpc-status", String(code)],
      ["grpc-message", encodeStatusMessage(message)],
    ];
    const more = details === undefined ? undefined : encodeStatusDetails(code, message, details);
    if (more !== undefined) status.push(["grpc-status-details-bin", more]);
    if (this.#headSent) this.#stream.end(encodeFields(status));
    else this.#stream.respond(encodeFields([...HEAD_FIELDS, ...this.#answerHead ?? [], ...status]), true);
  }
}

/** Answers a request that no call begins with. */
export function refuseCall(stream: Http2Stream, code: Code, message: string): void {
  stream.respond(
    encodeFields([
      ...HEAD_FIELDS,
      ["grpc-status", String(code)],
      ["grpc-message", encodeStatusMessage(message)],
    ]),
    true,
  );
}
