import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  type CallListener,
  GRPC,
  GrpcChannel,
  GrpcError,
  type GrpcStatus,
} from "../../transport/grpc/mod.ts";

/** What came of a call: its message, or the code and text of its refusal. */
export type Outcome<T> =
  | { readonly ok: true; readonly message: T }
  | { readonly ok: false; readonly code: number; readonly text: string };

/** How long a call may take before it counts as hung, in ms. */
const CALL_DEADLINE_MS = 20_000;

/** How a call is made. */
export interface CallOptions {
  /** Sent as metadata `token`. */
  readonly token?: string | undefined;
  /** In ms; CALL_DEADLINE_MS when left out. */
  readonly timeoutMs?: number;
}

/** The two directions of a call with streams. */
export interface Streams<I extends DescMessage, O extends DescMessage> {
  send(request: MessageInitShape<I>): void;
  /** Ends our direction. */
  end(): void;
  /** Ends the call. */
  cancel(): void;
  /** Called for each answer, in order; set it right after opening. */
  onMessage: (message: MessageShape<O>) => void;
  /** The status the call ended with. */
  readonly ended: Promise<Outcome<undefined>>;
}

/** One connection to a server. */
export interface GrpcClient extends Disposable {
  readonly address: string;
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): Promise<Outcome<MessageShape<O>>>;
  /** Reads a stream of answers to its end, or `limit` of them. */
  list<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions & { readonly limit?: number },
  ): Promise<{ readonly messages: MessageShape<O>[]; readonly end: Outcome<undefined> }>;
  bidi<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    options?: CallOptions,
  ): Streams<I, O>;
}

/** Connects to `host:port`, cleartext, on the first call. */
export function createGrpcClient(address: string): GrpcClient {
  const channel = new GrpcChannel({
    address,
    maxReceiveBytes: Infinity,
    reconnectFirstMs: 20,
    reconnectMaxMs: 200,
    clock: { now: () => performance.now() },
    fraction: () => Math.random(),
  });
  return {
    address,
    async unary(method, request, options = {}) {
      const bytes = toBinary(method.input, create(method.input, request));
      try {
        const answer = await channel.unary(pathOf(method), bytes, callOptions(options));
        return { ok: true, message: fromBinary(method.output, answer) };
      } catch (error) {
        if (!(error instanceof GrpcError)) throw error;
        return { ok: false, code: error.code, text: error.message };
      }
    },
    list: (method, request, options = {}) =>
      new Promise((resolve) => {
        const messages: MessageShape<typeof method.output>[] = [];
        const listener: CallListener = {
          onMessage(bytes) {
            messages.push(fromBinary(method.output, bytes));
            if (messages.length === options.limit) call.cancel();
          },
          onEnd: (status) => resolve({ messages, end: ending(status) }),
        };
        const call = channel.start(pathOf(method), listener, {
          ...callOptions(options),
          request: toBinary(method.input, create(method.input, request)),
        });
      }),
    bidi(method, options = {}) {
      const ended = Promise.withResolvers<Outcome<undefined>>();
      const call = channel.start(pathOf(method), {
        onMessage: (bytes) => streams.onMessage(fromBinary(method.output, bytes)),
        onEnd: (status) => ended.resolve(ending(status)),
      }, { metadata: metadataOf(options) });
      const streams: Streams<typeof method.input, typeof method.output> = {
        send: (request) => void call.send(toBinary(method.input, create(method.input, request))),
        end: () => call.endSending(),
        cancel: () => call.cancel(),
        onMessage: () => {},
        ended: ended.promise,
      };
      return streams;
    },
    [Symbol.dispose]: () => channel[Symbol.dispose](),
  };
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function callOptions(options: CallOptions) {
  return { metadata: metadataOf(options), timeoutMs: options.timeoutMs ?? CALL_DEADLINE_MS };
}

function metadataOf({ token }: CallOptions): Record<string, string> {
  return token === undefined ? {} : { token };
}

function ending({ code, message }: GrpcStatus): Outcome<undefined> {
  return code === GRPC.OK ? { ok: true, message: undefined } : { ok: false, code, text: message };
}
