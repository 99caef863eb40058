/** What a request's head says of a call. Made once for all requests that share one head. */
import { Code } from "@connectrpc/connect";
import type { RequestHead } from "../../../../transport/http2/request.ts";
import type { CallCredentials } from "../../auth/authentication.ts";
import { REQUEST_ID, TRACEPARENT } from "../../exchange.ts";
import { isGrpc, parseTimeout } from "./headers.ts";
import type { GrpcMethod, GrpcMethods } from "./method.ts";

/** Why a call does not begin, or ends here. */
export interface Refusal {
  readonly code: Code;
  readonly message: string;
}

/** The head of a call. */
export interface CallHead {
  /** False where the request is no gRPC call; the rest says nothing then. */
  readonly isGrpc: boolean;
  readonly method: GrpcMethod | undefined;
  /** Why no call with this head begins. */
  readonly refusal: Refusal | undefined;
  /** Why no call with this head begins while nobody has to show who they are. */
  readonly foreign: Refusal | undefined;
  /** What shows who calls. */
  readonly shown: CallCredentials;
  /** Why a call with this head ends as soon as its message is here. */
  readonly lateRefusal: Refusal | undefined;
  /** Time the call may take, in ms. */
  readonly timeoutMs: number | undefined;
  /** `grpc-encoding`. */
  readonly encoding: string | undefined;
  /** The client's request id, if it is well-formed. */
  readonly requestId: string | undefined;
  /** Of the client's span. */
  readonly traceparent: string | undefined;
  /** Fields that travel on to the worker, besides the request id and `traceparent`; `authorization` is not among them, since
   *  what has shown who calls is not the services' to see. */
  readonly forwarded: readonly (readonly [name: string, value: string])[];
}

/** Reads a head. `foreignness` says why a call to `authority` from `origin` is refused. */
export function readCallHead(
  head: RequestHead,
  methods: GrpcMethods,
  foreignness: (authority: string, origin: string | undefined) => string | undefined,
): CallHead {
  if (!isGrpc(head.get("content-type"))) return NO_CALL;
  let timeout: string | undefined;
  let requestId: string | undefined;
  let traceparent: string | undefined;
  let authorization: string | undefined, apiKey: string | undefined, token: string | undefined;
  const forwarded: [string, string][] = [];
  const { fields } = head;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!;
    const value = fields[i + 1]!;
    switch (name) {
      case "grpc-timeout":
        timeout = value;
        break;
      case "x-request-id":
        if (REQUEST_ID.test(value)) requestId = value;
        break;
      case "traceparent":
        if (TRACEPARENT.test(value)) traceparent = value;
        break;
      case "authorization":
        authorization = value;
        break;
      case "x-api-key":
        apiKey = value;
        break;
      // etcd's.
      case "token":
        token = value;
        forwarded.push([name, value]);
        break;
      case "tracestate":
        forwarded.push([name, value]);
    }
  }
  const method = methods.find(head.path);
  const foreign = foreignness(head.authority || (head.get("host") ?? ""), head.get("origin"));
  const timeoutMs = timeout === undefined ? undefined : parseTimeout(timeout);
  return {
    isGrpc: true,
    method,
    refusal: method === undefined
      ? { code: Code.Unimplemented, message: unknownMethod(head.path, methods) }
      : undefined,
    foreign: foreign === undefined ? undefined : { code: Code.PermissionDenied, message: foreign },
    shown: { authorization, apiKey, token, isForStore: method?.rule?.grant === "kv" },
    lateRefusal: timeout !== undefined && timeoutMs === undefined
      ? { code: Code.Internal, message: `malformed grpc-timeout: ${timeout.slice(0, 32)}` }
      : timeoutMs === 0
      ? { code: Code.DeadlineExceeded, message: "context deadline exceeded" }
      : undefined,
    timeoutMs,
    encoding: head.get("grpc-encoding"),
    requestId,
    traceparent,
    forwarded,
  };
}

const NO_CALL: CallHead = {
  isGrpc: false,
  method: undefined,
  refusal: undefined,
  foreign: undefined,
  shown: { authorization: undefined, apiKey: undefined, token: undefined, isForStore: false },
  lateRefusal: undefined,
  timeoutMs: undefined,
  encoding: undefined,
  requestId: undefined,
  traceparent: undefined,
  forwarded: [],
};

function unknownMethod(path: string, methods: GrpcMethods): string {
  const at = path.lastIndexOf("/");
  if (at < 1) return `malformed method name: ${JSON.stringify(path)}`;
  const service = path.slice(1, at);
  return methods.hasService(service)
    ? `unknown method ${path.slice(at + 1)} for service ${service}`
    : `unknown service ${service}`;
}
