/** What a request says of its call: protocol, codec and time. */
import type { DescMethod } from "@bufbuild/protobuf";
import type { Exchange } from "../../exchange.ts";
import { GatewayError } from "../../problem.ts";
import { parseTimeout } from "../grpc/headers.ts";
import { type Codec, JSON_CODEC, PROTO } from "./codec.ts";

/** How a call is spoken. `connect`: one message each way, as bodies; `connect_stream`: enveloped messages; `grpc_web`:
 *  the same in gRPC's form. */
export interface CallHead {
  readonly protocol: "connect" | "connect_stream" | "grpc_web";
  readonly codec: Codec;
  /** Whether bodies are base64 texts (`grpc-web-text`). */
  readonly isText: boolean;
  /** Of the answer, and of the request where it has a body. */
  readonly contentType: string;
}

const CODECS: readonly [suffix: string, codec: Codec][] = [["proto", PROTO], ["json", JSON_CODEC]];

const HEADS = new Map<string, CallHead>(
  CODECS.flatMap(([name, codec]) => [
    head("connect", codec, `application/${name}`),
    head("connect_stream", codec, `application/connect+${name}`),
    head("grpc_web", codec, `application/grpc-web+${name}`),
    head("grpc_web", codec, `application/grpc-web-text+${name}`, true),
  ]).concat([
    head("grpc_web", PROTO, "application/grpc-web"),
    head("grpc_web", PROTO, "application/grpc-web-text", true),
  ]).map((each) => [each.contentType, each]),
);

function head(
  protocol: CallHead["protocol"],
  codec: Codec,
  contentType: string,
  isText = false,
): CallHead {
  return { protocol, codec, isText, contentType };
}

/** The content types that a method takes, for `Accept-Post`. */
export function contentTypesOf({ methodKind }: DescMethod): string[] {
  const other = methodKind === "unary" ? "connect_stream" : "connect";
  return [...HEADS.values()].filter(({ protocol }) => protocol !== other).map((each) => each.contentType);
}

/** The head of a request; undefined where its content type is none of the method's. */
export function readHead(exchange: Exchange, { methodKind }: DescMethod): CallHead | undefined {
  if (exchange.method === "GET" || exchange.method === "HEAD") {
    const encoding = new URLSearchParams(exchange.query).get("encoding");
    return encoding === null ? HEADS.get("application/json") : HEADS.get(`application/${encoding}`);
  }
  const found = headOf(exchange.headers.get("content-type") ?? "");
  if (found === undefined || found.protocol === "grpc_web") return found;
  return (found.protocol === "connect") === (methodKind === "unary") ? found : undefined;
}

function headOf(contentType: string): CallHead | undefined {
  const exact = HEADS.get(contentType);
  if (exact !== undefined) return exact;
  const [type, ...parameters] = contentType.toLowerCase().split(";").map((part) => part.trim());
  const isUtf8 = parameters.every((each) => !each.startsWith("charset=") || /^charset="?utf-8"?$/.test(each));
  return isUtf8 ? HEADS.get(type!) : undefined;
}

const CONNECT_TIMEOUT = /^\d{1,10}$/;

/** The time that the client gives its call, in ms; undefined when it names none.
 *  @throws {GatewayError} `invalid_argument` for one that is none, or a version of the protocol that is not 1. */
export function timeoutOf(head: CallHead, exchange: Exchange): number | undefined {
  const { headers } = exchange;
  if (head.protocol === "grpc_web") {
    const text = headers.get("grpc-timeout");
    if (text === null) return undefined;
    const timeoutMs = parseTimeout(text);
    if (timeoutMs !== undefined) return Math.ceil(timeoutMs);
    refuse(`malformed grpc-timeout: ${text.slice(0, 32)}`);
  }
  const version = headers.get("connect-protocol-version");
  if (version !== null && version !== "1") {
    refuse(`Connect-Protocol-Version is not 1 but ${version.slice(0, 32)}`);
  }
  const text = headers.get("connect-timeout-ms");
  if (text === null) return undefined;
  return CONNECT_TIMEOUT.test(text)
    ? Number(text)
    : refuse(`malformed Connect-Timeout-Ms: ${text.slice(0, 32)}`);
}

function refuse(message: string): never {
  throw new GatewayError("invalid_argument", message);
}
