/** The cluster as the adapter calls it: messages in and out, whose token goes with a call, and a fresh one when the
 *  adapter's own has run out. */
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  Auth,
  AuthenticateRequestSchema,
  AuthenticateResponseSchema,
  type ResponseHeader,
} from "$proto/etcdserverpb/rpc_pb.ts";
import {
  type CallOptions,
  type EtcdClient,
  EtcdError,
  type EtcdStream,
  GRPC,
  type StreamListener,
} from "../../../../storage/etcd/mod.ts";

/** The account of callers that bring no token of their own. */
export interface Account {
  readonly username: string;
  readonly password: string;
}

/** Whose call it is. */
export interface Credentials {
  /** The caller's own token; unset: the adapter's account. */
  readonly token?: string;
  /** Metadata besides the token. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** A unary call to the cluster. */
export interface ClusterCall extends Credentials {
  readonly isRepeatable: boolean;
  /** In milliseconds; the configured time when left out. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

const AUTHENTICATE = pathOf(Auth.method.authenticate);
const INVALID_TOKEN = "etcdserver: invalid auth token";
const OLD_AUTH_REVISION = "etcdserver: revision of auth store is old";

/** The cluster. */
export class EtcdCluster {
  readonly #client: EtcdClient;
  readonly #account: Account | undefined;
  #token: Promise<string> | undefined;
  #revision = 0n;
  #isClosed = false;

  constructor(client: EtcdClient, account: Account | undefined) {
    this.#client = client;
    this.#account = account;
  }

  /** Newest revision any answer has named. */
  get revision(): bigint {
    return this.#revision;
  }

  /** Whether any endpoint can be reached, and what is wrong with the others. */
  health(): { ok: boolean; detail: string } {
    return this.#client.health();
  }

  /** Calls a unary method. @throws {EtcdError} */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { readonly input: I; readonly output: O },
    request: MessageInitShape<I>,
    call: ClusterCall,
  ): Promise<MessageShape<O>> {
    const bytes = toBinary(method.input, create(method.input, request));
    const answer = fromBinary(
      method.output,
      await this.#withToken(call, async (metadata) => {
        return await this.#client.unary(pathOf(method), bytes, { ...call, metadata });
      }),
    );
    this.sawHeader((answer as { header?: ResponseHeader }).header);
    return answer;
  }

  /** Opens a stream in both directions. @throws {EtcdError} */
  duplex(method: DescMethod, listener: StreamListener, call: Credentials & CallOptions): Promise<EtcdStream> {
    return this.#withToken(
      call,
      (metadata) => this.#client.duplex(pathOf(method), listener, { ...call, metadata }),
    );
  }

  /** Opens a stream of answers to one request. @throws {EtcdError} */
  answers(
    method: DescMethod,
    request: Uint8Array,
    listener: StreamListener,
    call: Credentials & CallOptions,
  ): Promise<EtcdStream> {
    return this.#withToken(
      call,
      (metadata) => this.#client.answers(pathOf(method), request, listener, { ...call, metadata }),
    );
  }

  /** Exchanges a name and password for a token. @throws {EtcdError} */
  async authenticate(name: string, password: string): Promise<string> {
    const request = toBinary(
      AuthenticateRequestSchema,
      create(AuthenticateRequestSchema, { name, password }),
    );
    const answer = await this.#client.unary(AUTHENTICATE, request, { isRepeatable: true });
    return fromBinary(AuthenticateResponseSchema, answer).token;
  }

  /** Forgets the account's token: the next call gets a new one. For streams, whose calls are judged by the token that
   *  they began with. */
  forgetToken(): void {
    this.#token = undefined;
  }

  /** Notes the revision of an answer that came by a stream. */
  sawHeader(header: ResponseHeader | undefined): void {
    if (header !== undefined && header.revision > this.#revision) this.#revision = header.revision;
  }

  /** True once it was closed. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Ends the streams and closes the connections. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#client.close();
  }

  async #withToken<T>(
    { token, metadata }: Credentials,
    call: (metadata: Readonly<Record<string, string>>) => Promise<T>,
  ): Promise<T> {
    if (token !== undefined) return await call({ ...metadata, token });
    if (this.#account === undefined) return await call(metadata ?? {});
    const used = this.#ownToken(this.#account);
    try {
      return await call(withOwn(metadata, await used));
    } catch (error) {
      if (!isStaleToken(error)) throw error;
      if (this.#token === used) this.#token = undefined;
      return await call(withOwn(metadata, await this.#ownToken(this.#account)));
    }
  }

  /** The account's token; the empty one while the cluster has authentication turned off. */
  #ownToken({ username, password }: Account): Promise<string> {
    if (this.#token !== undefined) return this.#token;
    const token = this.authenticate(username, password).catch((error) => {
      if (this.#token === token) this.#token = undefined;
      if (error instanceof EtcdError && error.message === "etcdserver: authentication is not enabled") {
        return "";
      }
      throw error;
    });
    return this.#token = token;
  }
}

/** `/package.Service/Method`. */
function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** A failed call as the wire between workers has it. The numbers of the codes are gRPC's on both sides. */
export function toConnectError(error: unknown): unknown {
  if (!(error instanceof EtcdError)) return error;
  const code = Code[error.code] === undefined ? Code.Unknown : error.code as Code;
  return new ConnectError(error.message, code, undefined, undefined, error);
}

function withOwn(
  metadata: Readonly<Record<string, string>> | undefined,
  token: string,
): Readonly<Record<string, string>> {
  return token === "" ? metadata ?? {} : { ...metadata, token };
}

function isStaleToken(error: unknown): boolean {
  return error instanceof EtcdError &&
    (error.message === INVALID_TOKEN || error.message === OLD_AUTH_REVISION) &&
    (error.code === GRPC.UNAUTHENTICATED || error.code === GRPC.INVALID_ARGUMENT);
}
