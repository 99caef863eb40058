/** What a call to the cluster ended with when it did not succeed. */
export { GRPC } from "../../transport/grpc/mod.ts";

/** What calls and streams are told once the client was closed. */
export const CLIENT_CLOSED = "etcd: the client is closed";

/** A failed call. `message` is the server's text, or what the client says of the connection. */
export class EtcdError extends Error {
  override readonly name = "EtcdError";
  /** Number of the gRPC code. */
  readonly code: number;
  /** True when the request certainly did not reach a server. */
  readonly isUnsent: boolean;

  constructor(code: number, message: string, options: ErrorOptions & { isUnsent?: boolean } = {}) {
    super(message, options);
    this.code = code;
    this.isUnsent = options.isUnsent ?? false;
  }

  /** True for what a server said of itself or of the cluster, as opposed to what happened to the connection. */
  get isFromServer(): boolean {
    return this.message.startsWith("etcdserver:");
  }
}
