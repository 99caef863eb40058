/** The product's users at the Redis port: names and passwords, and API keys, which the session worker knows. What a
 *  connection may do is looked at again and again, so that what was taken away is gone within a second. */
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { CredentialService, type Principal } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { callUnary } from "../../../transport/rpc/mod.ts";
import { encodePrincipal } from "../../runtime/principal.ts";
import { KvError } from "../errors.ts";
import { type GuardedCaller, NOBODY } from "./guard.ts";
import { rightsOf } from "./rights.ts";

/** How often credentials in use are shown again, in milliseconds. */
export const RECHECK_MS = 500;
/** How long they hold while that cannot be done, in milliseconds: the time of the session worker's restart. */
export const UNKNOWN_MAX_MS = 15_000;
/** How long one asking may take, in milliseconds; a password takes some 50, and may wait for others'. */
const ANSWER_MS = 10_000;
/** What API keys begin with. */
const API_KEY_PREFIX = "afk_";

/** What is shown: a key, or a name and a password. */
export interface Shown {
  readonly username: string;
  readonly secret: string;
}

/** Who somebody is, from a login to its end. */
export interface ProductLogin {
  readonly username: string;
  readonly caller: GuardedCaller;
  /** Ends the looking again. Idempotent. */
  close(): void;
}

/** What it is made of. */
export interface ProductUsersDeps {
  /** The transport to the session worker. */
  transport(): Transport;
  readonly clock: { now(): number };
  /** Calls `fn` once, `delayMs` from now; the returned function cancels it. */
  after(delayMs: number, fn: () => void): () => void;
}

/** One login in use. */
interface Login extends ProductLogin {
  readonly shown: Shown;
  encoded: string;
  readonly onChange: (caller: GuardedCaller | undefined) => void;
}

/** Users and keys of the product. */
export class ProductUsers {
  readonly #deps: ProductUsersDeps;
  /** As many as Redis connections, which the gateways bound. */
  readonly #logins = new Set<Login>();
  #cancel: (() => void) | undefined;
  #unknownSinceMs: number | undefined;

  constructor(deps: ProductUsersDeps) {
    this.#deps = deps;
  }

  /** Who the credential stands for. `onChange` is told when that may do something else, or, with undefined, nothing more.
   *  @throws {KvError} `authFailed`; `clusterUnavailable` when it cannot be found out. */
  async login(shown: Shown, onChange: Login["onChange"]): Promise<ProductLogin> {
    const principal = await this.#ask(shown);
    const login: Login = {
      username: principal.username,
      caller: callerOf(principal),
      shown,
      encoded: encodePrincipal(principal),
      onChange,
      close: () => void this.#logins.delete(login),
    };
    this.#logins.add(login);
    if (this.#cancel === undefined) this.#arm();
    return login;
  }

  /** Lets go of everything. */
  close(): void {
    this.#logins.clear();
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #arm(): void {
    this.#cancel = this.#deps.after(RECHECK_MS, () => {
      this.#cancel = undefined;
      this.#round().finally(() => {
        if (this.#logins.size > 0 && this.#cancel === undefined) this.#arm();
      });
    });
  }

  /** Shows every credential in use once, whatever connections have it. */
  async #round(): Promise<void> {
    const byShown = new Map<string, Login[]>();
    for (const login of this.#logins) {
      const key = JSON.stringify(login.shown);
      const found = byShown.get(key);
      if (found === undefined) byShown.set(key, [login]);
      else found.push(login);
    }
    await Promise.all(Array.from(byShown.values(), (logins) => this.#check(logins)));
  }

  async #check(logins: readonly Login[]): Promise<void> {
    let principal: Principal | undefined;
    try {
      principal = await this.#ask(logins[0]!.shown);
      this.#unknownSinceMs = undefined;
    } catch (error) {
      if (!(error instanceof KvError && error.kind === "authFailed")) {
        const now = this.#deps.clock.now();
        this.#unknownSinceMs ??= now;
        if (now - this.#unknownSinceMs < UNKNOWN_MAX_MS) return;
      }
    }
    const encoded = principal === undefined ? "" : encodePrincipal(principal);
    for (const login of logins) {
      if (!this.#logins.has(login) || login.encoded === encoded) continue;
      login.encoded = encoded;
      if (principal === undefined) this.#logins.delete(login);
      login.onChange(principal && callerOf(principal));
    }
  }

  async #ask({ username, secret }: Shown): Promise<Principal> {
    const isKey = secret.startsWith(API_KEY_PREFIX);
    const credential = isKey
      ? { case: "apiKey", value: secret } as const
      : { case: "password", value: { username, password: secret } } as const;
    try {
      const answer = await callUnary(
        this.#deps.transport(),
        CredentialService.method.authenticate,
        { credential },
        { timeoutMs: ANSWER_MS },
      );
      if (answer.principal !== undefined) return answer.principal;
    } catch (error) {
      const code = error instanceof ConnectError ? error.code : Code.Unknown;
      if (code === Code.Unauthenticated || code === Code.InvalidArgument) throw new KvError("authFailed");
      if (code === Code.ResourceExhausted) throw new KvError("tooManyRequests");
      throw new KvError("clusterUnavailable", "who it is cannot be found out", { cause: error });
    }
    throw new KvError("authFailed");
  }
}

function callerOf(principal: Principal): GuardedCaller {
  const rights = rightsOf(principal);
  return rights === undefined ? NOBODY : { ...NOBODY, rights };
}
