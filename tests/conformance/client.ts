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
import * as grpc from "@grpc/grpc-js";

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
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), {
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    "grpc.enable_retries": 0,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 20,
    "grpc.max_reconnect_backoff_ms": 200,
  });
  return {
    address,
    unary: (method, request, options = {}) =>
      new Promise((resolve) => {
        client.makeUnaryRequest(
          pathOf(method),
          writer(method.input),
          reader(method.output),
          create(method.input, request),
          metadataOf(options),
          { deadline: Date.now() + (options.timeoutMs ?? CALL_DEADLINE_MS) },
          (error, message) => {
            if (message !== undefined) resolve({ ok: true, message });
            else resolve(refusal(error));
          },
        );
      }),
    list: (method, request, options = {}) =>
      new Promise((resolve) => {
        const messages: MessageShape<typeof method.output>[] = [];
        const call = client.makeServerStreamRequest(
          pathOf(method),
          writer(method.input),
          reader(method.output),
          create(method.input, request),
          metadataOf(options),
          { deadline: Date.now() + (options.timeoutMs ?? CALL_DEADLINE_MS) },
        );
        call.on("data", (message) => {
          messages.push(message);
          if (messages.length === options.limit) call.cancel();
        });
        call.on("error", () => {}); // told by the status
        call.on("status", (status) => resolve({ messages, end: ending(status) }));
      }),
    bidi(method, options = {}) {
      const call = client.makeBidiStreamRequest(
        pathOf(method),
        writer(method.input),
        reader(method.output),
        metadataOf(options),
      );
      const ended = new Promise<Outcome<undefined>>((resolve) =>
        call.on("status", (status) => resolve(ending(status)))
      );
      const streams: Streams<typeof method.input, typeof method.output> = {
        send: (request) => void call.write(create(method.input, request)),
        end: () => call.end(),
        cancel: () => call.cancel(),
        onMessage: () => {},
        ended,
      };
      call.on("data", (message) => streams.onMessage(message));
      call.on("error", () => {}); // told by the status
      return streams;
    },
    [Symbol.dispose]: () => client.close(),
  };
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function writer<D extends DescMessage>(schema: D): (message: MessageShape<D>) => Buffer {
  return (message) => Buffer.from(toBinary(schema, message));
}

function reader<D extends DescMessage>(schema: D): (bytes: Uint8Array) => MessageShape<D> {
  return (bytes) => fromBinary(schema, bytes);
}

function metadataOf({ token }: CallOptions): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (token !== undefined) metadata.set("token", token);
  return metadata;
}

function refusal(error: grpc.ServiceError | null): Outcome<never> {
  return { ok: false, code: error?.code ?? grpc.status.UNKNOWN, text: error?.details ?? "" };
}

function ending({ code, details }: grpc.StatusObject): Outcome<undefined> {
  return code === grpc.status.OK ? { ok: true, message: undefined } : { ok: false, code, text: details };
}
