/** Repeats answers to repeated requests: the `Idempotency-Key` header of
 *  draft-ietf-httpapi-idempotency-key-header, for POST and PATCH.
 *
 *  ```
 *             claim (the key must not exist)
 *  nothing ────────────────────────────────► running ──── answer < 500 ────► answered, for ttlMs
 *     ▲                                        │ │
 *     └──── answer ≥ 500, or "come again" ─────┘ └── gateway died: after the request's own time ──► nothing
 *  ```
 *
 *  The store decides who comes first, so that it holds over several gateways. */
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { type Principal, Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { KeyValueService } from "$proto/aetherflow/kv/v1/kv_pb.ts";
import { encodePrincipal, PRINCIPAL_METADATA, SYSTEM } from "../../runtime/principal.ts";
import type { Exchange } from "../exchange.ts";
import { type BodyLimits, readBody } from "../limits/body.ts";
import { errorResponse, fromServiceError, GatewayError } from "../problem.ts";
import type { Route } from "../routes.ts";
import type { Caller, Idempotency } from "../stages.ts";
import type { IdempotencyConfig } from "./config.ts";
import {
  decodeRecord,
  encodeRecord,
  fingerprintOf,
  type IdempotencyRecord,
  type KeptAnswer,
  type RecordKeys,
  recordKeys,
} from "./idempotency_record.ts";
import { parseItem } from "./structured_fields.ts";

/** What it is made of. */
export interface IdempotencyDeps {
  readonly config: IdempotencyConfig;
  /** Transport to the key-value store, which keeps the records. */
  kv(): Transport;
  readonly bodyLimits: BodyLimits;
  /** Longest time that a request may take. */
  readonly requestTimeoutMs: number;
  readonly log: { error(message: string, fields?: Record<string, unknown>): void };
}

/** Longest key, in characters: a UUID has 36. */
const KEY_CHARS_MAX = 255;
/** Time that a claim outlives its request's deadline by, for the answer to be kept, in milliseconds. */
const CLAIM_GRACE_MS = 2_000;
/** Time to keep an answer, in milliseconds: the client waits meanwhile. */
const STORE_TIMEOUT_MS = 2_000;
/** Claims that are tried when what stood in the way was gone as soon as it was looked at. */
const CLAIM_TRIES = 3;

/** Answers under 500 that say nothing about the request: it is meant to be sent again. */
const PASSING: ReadonlySet<number> = new Set([408, 425, 429, 499]);
/** Headers of an answer that are of one exchange, not of what was answered. */
const OF_EXCHANGE: ReadonlySet<string> = new Set(["x-request-id", "date"]);

/** Records are the gateway's own, whoever asks for the request that they are of. */
const AS_SYSTEM = { [PRINCIPAL_METADATA]: encodePrincipal(SYSTEM) };

/** What a claim came to. */
type Claim = { readonly revision: bigint } | { readonly record: IdempotencyRecord };

/** Creates the stage. */
export function createIdempotency(deps: IdempotencyDeps): Idempotency {
  const { config, log } = deps;
  const claimTtlMs = BigInt(deps.requestTimeoutMs + CLAIM_GRACE_MS);
  const client = () => createClient(KeyValueService, deps.kv());
  const options = { timeoutMs: STORE_TIMEOUT_MS, headers: AS_SYSTEM };

  async function claim(keys: RecordKeys, fingerprint: Uint8Array): Promise<Claim> {
    const value = encodeRecord(keys, { state: "running", fingerprint });
    for (let tries = 0; tries < CLAIM_TRIES; tries++) {
      try {
        const put = { key: keys.place, value, ifModRevision: 0n, ttlMs: claimTtlMs };
        return { revision: (await client().put(put, options)).modRevision };
      } catch (error) {
        if (!hasCode(error, Code.FailedPrecondition)) throw error;
      }
      try {
        const { entry } = await client().get({ key: keys.place }, options);
        return { record: decodeRecord(keys, entry!.value) };
      } catch (error) {
        if (!hasCode(error, Code.NotFound)) throw error;
      }
    }
    throw new GatewayError(
      "idempotency_running",
      "requests with this Idempotency-Key come and go; try again",
    );
  }

  /** Keeps what is to be answered from now on, or lets go of the claim. The answer goes out in any case. */
  async function settle(
    keys: RecordKeys,
    revision: bigint,
    record: IdempotencyRecord | undefined,
  ): Promise<void> {
    const claimed = { key: keys.place, ifModRevision: revision };
    try {
      if (record === undefined) await client().delete(claimed, options);
      else {
        const value = encodeRecord(keys, record);
        await client().put({ ...claimed, value, ttlMs: BigInt(config.ttlMs) }, options);
      }
    } catch (error) {
      // The claim ran out, and is another's by now.
      if (hasCode(error, Code.FailedPrecondition)) return;
      log.error("cannot keep the answer to a request with an Idempotency-Key", { error });
    }
  }

  /** `status` is the error's where the answer's own is 200 all the same. */
  function toRecord(
    fingerprint: Uint8Array,
    answer: KeptAnswer,
    status: number,
  ): IdempotencyRecord | undefined {
    if (status >= 500 || PASSING.has(status)) return undefined;
    if (answer.body.length > config.answerBytesMax) return { state: "unkept", fingerprint };
    return { state: "answered", fingerprint, answer };
  }

  /** Of calls by name, which say no in protocols of their own, only requests that reached no service are refused this way:
   *  they may be looked at anew. */
  async function toRefusal(
    fingerprint: Uint8Array,
    error: unknown,
    { requestId }: Exchange,
    route: Route,
  ): Promise<IdempotencyRecord | undefined> {
    if (route.protocol === "rpc") return undefined;
    const refusal = errorResponse(fromServiceError(error), requestId, route.dialect);
    return toRecord(fingerprint, await readAnswer(refusal), refusal.status);
  }

  return {
    async run(request, exchange, answer) {
      if (exchange.method !== "POST" && exchange.method !== "PATCH") return await answer(request);
      const { route } = exchange.match!;
      if (route.rpc.methodKind !== "unary") {
        throw new GatewayError("invalid_argument", "a stream cannot be repeated: leave Idempotency-Key out");
      }
      const key = readKey(exchange.idempotencyKey!);
      const body = await readBody(request, exchange.contentLength, deps.bodyLimits);
      const keys = recordKeys([clientOf(exchange), `${exchange.method} ${route.template}`], key);
      const fingerprint = fingerprintOf(keys, exchange, body);
      const claimed = await claim(keys, fingerprint).catch(unavailable);
      if ("record" in claimed) return repeat(claimed.record, fingerprint, exchange, config.answerBytesMax);

      const whole = new Request(request.url, { method: request.method, headers: request.headers, body });
      let response: Response;
      try {
        response = await answer(whole);
      } catch (error) {
        await settle(keys, claimed.revision, await toRefusal(fingerprint, error, exchange, route));
        throw error;
      }
      const kept = await readAnswer(response);
      await settle(keys, claimed.revision, toRecord(fingerprint, kept, exchange.errorStatus ?? kept.status));
      return new Response(hasBody(kept.status) ? kept.body : null, {
        status: kept.status,
        headers: response.headers,
      });
    },
  };
}

/** @throws {GatewayError} `invalid_argument` for what is no structured string of 1 to 255 characters. */
function readKey(field: string): string {
  const key = parseItem(field)?.value;
  if (typeof key === "string" && key !== "" && key.length <= KEY_CHARS_MAX) return key;
  throw new GatewayError(
    "invalid_argument",
    `Idempotency-Key is no string of 1 to ${KEY_CHARS_MAX} characters in double quotes, such as ` +
      '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
  );
}

/** Whose keys they are: nobody meets another's. */
function clientOf({ caller, client, authorization, token }: Exchange): string {
  const shown = caller === undefined || isShownToServices(caller) ? authorization ?? token : undefined;
  const name = caller === undefined ? "" : nameOf(caller.principal);
  return JSON.stringify([name === "" ? `address ${client.ip}` : name, shown ?? ""]);
}

function nameOf({ kind, userId, username, keyId }: Principal): string {
  if (kind === Principal_Kind.ANONYMOUS) return "";
  return `${kind} ${userId} ${username} ${keyId}`;
}

/** Whether it is a service that finds out who calls. */
function isShownToServices({ credential }: Caller): boolean {
  return credential === "none" || credential === "etcd_token";
}

/** What a repeated request is answered. @throws {GatewayError} when it is not the first one's answer. */
function repeat(
  record: IdempotencyRecord,
  fingerprint: Uint8Array,
  exchange: Exchange,
  answerBytesMax: number,
): Response {
  if (!record.fingerprint.every((byte, i) => byte === fingerprint[i])) {
    throw new GatewayError(
      "idempotency_mismatch",
      "this Idempotency-Key came with another request before: another path, query or body",
    );
  }
  if (record.state !== "answered") {
    throw record.state === "running"
      ? new GatewayError("idempotency_running", "the first request with this Idempotency-Key is under way")
      : new GatewayError(
        "failed_precondition",
        `the first request was answered with more than ${answerBytesMax} bytes (gateway.idempotency.answerBytesMax), ` +
          "which were not kept to be repeated",
      );
  }
  const { status, headers, body } = record.answer;
  exchange.responseBytes = body.length;
  const answer = new Response(hasBody(status) ? body : null, {
    status,
    headers: [...headers].map(([n, v]) => [n, v]),
  });
  answer.headers.set("x-request-id", exchange.requestId);
  answer.headers.set("idempotency-replayed", "true");
  return answer;
}

async function readAnswer(response: Response): Promise<KeptAnswer> {
  return {
    status: response.status,
    headers: [...response.headers].filter(([name]) => !OF_EXCHANGE.has(name)),
    body: new Uint8Array(await response.arrayBuffer()),
  };
}

/** RFC 9110 §6.4.1. */
function hasBody(status: number): boolean {
  return status !== 204 && status !== 304;
}

function hasCode(error: unknown, code: Code): boolean {
  return error instanceof ConnectError && error.code === code;
}

function unavailable(error: unknown): never {
  if (error instanceof GatewayError) throw error;
  throw new GatewayError("unavailable", "requests with an Idempotency-Key need the key-value store", {
    cause: error,
  });
}
