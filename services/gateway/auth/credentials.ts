/** Asks the session worker who a credential stands for, each time: nothing is authenticated after a revocation returned. */
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import {
  AuthenticateRequestSchema,
  type AuthenticateResponse,
  CredentialService,
  type Principal,
} from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { callUnary } from "../../../transport/rpc/mod.ts";
import { encodePrincipal } from "../../runtime/principal.ts";
import { GatewayError } from "../problem.ts";
import type { Timer } from "../timer.ts";
import { invalidCredential } from "./failure.ts";
import type { Proof } from "./identity.ts";

/** How long one asking may take, in milliseconds. It takes less than one; a worker that needs longer hangs. */
const ANSWER_MS = 5_000;
/** Askings under way from which further ones wait for the end of the turn: those that start together share a datagram,
 *  and those of one credential one call. One that is nearly alone does not wait. */
const GATHER_FROM = 4;

/** Who a credential stands for. */
export interface Authenticated {
  readonly principal: Principal;
  readonly encoded: string;
  /** Milliseconds since 1970; Infinity when it does not end by itself. */
  readonly expiresAtMs: number;
}

/** One call that several may wait for. */
interface Gathered {
  readonly proof: Proof;
  readonly answer: PromiseWithResolvers<Authenticated>;
}

/** Asks. */
export class Credentials {
  #underWay = 0;
  /** Those that wait for the end of this turn, by credential. A map of this turn only. */
  #gathered: Map<string, Gathered> | undefined;

  constructor(readonly deps: { transport(): Transport; readonly timer: Timer }) {}

  /** Who the credential stands for. The call begins after this does, so what it tells is true after the caller's request
   *  came; callers of one turn share it.
   *  @throws {GatewayError} `unauthenticated`; `unavailable` when it cannot be found out. */
  ask(proof: Proof): Promise<Authenticated> {
    if (this.#underWay < GATHER_FROM && this.#gathered === undefined) return this.#call(proof);
    if (this.#gathered === undefined) {
      this.#gathered = new Map();
      this.deps.timer.endOfTurn(() => this.#start());
    }
    const key = `${proof.kind} ${proof.text}`;
    let found = this.#gathered.get(key);
    if (found === undefined) {
      found = { proof, answer: Promise.withResolvers() };
      this.#gathered.set(key, found);
    }
    return found.answer.promise;
  }

  #start(): void {
    const gathered = this.#gathered!;
    this.#gathered = undefined;
    for (const { proof, answer } of gathered.values()) this.#call(proof).then(answer.resolve, answer.reject);
  }

  async #call({ kind, text }: Proof): Promise<Authenticated> {
    this.#underWay++;
    try {
      const request = create(AuthenticateRequestSchema, { credential: credentialOf(kind, text) });
      const answer = await callUnary(
        this.deps.transport(),
        CredentialService.method.authenticate,
        request,
        { timeoutMs: ANSWER_MS },
      );
      return authenticated(answer);
    } catch (error) {
      throw refusalOf(error);
    } finally {
      this.#underWay--;
    }
  }
}

function credentialOf(kind: Proof["kind"], value: string) {
  switch (kind) {
    case "session_id":
      return { case: "sessionId", value } as const;
    case "session_token":
      return { case: "sessionToken", value } as const;
    case "api_key":
      return { case: "apiKey", value } as const;
  }
}

function authenticated({ principal, expiresAt }: AuthenticateResponse): Authenticated {
  if (principal === undefined) throw new GatewayError("unavailable", "the session worker names nobody");
  return {
    principal,
    encoded: encodePrincipal(principal),
    expiresAtMs: expiresAt === undefined
      ? Infinity
      : Number(expiresAt.seconds) * 1_000 + Math.ceil(expiresAt.nanos / 1e6),
  };
}

function refusalOf(error: unknown): GatewayError {
  if (error instanceof GatewayError) return error;
  if (error instanceof ConnectError) {
    // What is no credential by its form stands for nobody either.
    if (
      error.code === Code.Unauthenticated || error.code === Code.InvalidArgument ||
      error.code === Code.NotFound
    ) {
      return invalidCredential("the credential is not valid (any more)", error);
    }
    if (error.code === Code.ResourceExhausted) {
      return new GatewayError("resource_exhausted", "too many ask who they are", { cause: error });
    }
  }
  return new GatewayError("unavailable", "who calls cannot be found out now", { cause: error });
}
