/** Access tokens of others (OpenID Connect issuers), whose public keys are fetched and kept. */
import { create } from "@bufbuild/protobuf";
import {
  createLocalJWKSet,
  decodeJwt,
  type JSONWebKeySet,
  type JWTPayload,
  jwtVerify,
  type ProtectedHeaderParameters,
} from "jose";
import { Principal_Kind, PrincipalSchema } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { ADMIN, encodePrincipal } from "../../runtime/principal.ts";
import { GatewayError } from "../problem.ts";
import type { Timer } from "../timer.ts";
import { CLOCK_TOLERANCE_S, refusalOf, type VerifiedToken } from "./checked_token.ts";
import type { IssuerConfig } from "./config.ts";
import { invalidCredential } from "./failure.ts";

/** Pause between two fetches of one issuer's keys, in milliseconds, whatever key ids come. */
const FETCH_PAUSE_MS = 10_000;
/** Age from which keys are fetched anew, beside the requests, in milliseconds. */
const KEYS_AGE_MS = 600_000;
/** How long one fetch may take, in milliseconds. */
const FETCH_MS = 5_000;
/** Largest document of keys, in bytes, and most keys in it. Real ones have 2 to 10 KiB. */
const KEYS_BYTES_MAX = 256 * 1_024;
const KEYS_MAX = 100;

/** What issuers take. */
export interface IssuersDeps {
  readonly clock: { now(): number; wallMs(): number };
  readonly timer: Timer;
  readonly fetch: typeof fetch;
  readonly log: { info(message: string, fields?: Record<string, unknown>): void };
}

/** The issuers of the configuration, by name. */
export class Issuers {
  readonly #issuers: ReadonlyMap<string, Issuer>;

  constructor(configs: readonly IssuerConfig[], deps: IssuersDeps) {
    this.#issuers = new Map(configs.map((config) => [config.issuer, new Issuer(config, deps)]));
  }

  get size(): number {
    return this.#issuers.size;
  }

  find(name: string | undefined): Issuer | undefined {
    return name === undefined ? undefined : this.#issuers.get(name);
  }

  /** Ends what is under way. */
  close(): void {
    for (const issuer of this.#issuers.values()) issuer.close();
  }
}

/** `iss` of a token that nobody has checked; undefined when it says none. */
export function issuerOf(token: string): string | undefined {
  try {
    return decodeJwt(token).iss;
  } catch {
    return undefined; // the check of the token says what is wrong with it
  }
}

/** One issuer. */
export class Issuer {
  readonly name: string;
  readonly #config: IssuerConfig;
  readonly #deps: IssuersDeps;
  #keys: ReturnType<typeof createLocalJWKSet> | undefined;
  #fetchedAtMs = -Infinity;
  #triedAtMs = -Infinity;
  #fetching: Promise<void> | undefined;
  #abort: AbortController | undefined;

  constructor(config: IssuerConfig, deps: IssuersDeps) {
    this.name = config.issuer;
    this.#config = config;
    this.#deps = deps;
  }

  /** Checks a token. The key is always one of the configured address, whatever the header names.
   *  @throws {GatewayError} `unauthenticated`; `unavailable` while no keys could be fetched. */
  async verify(token: string, header: ProtectedHeaderParameters): Promise<VerifiedToken> {
    const { algorithms, audience, tokenType } = this.#config;
    if (!(algorithms as readonly string[]).includes(header.alg ?? "")) {
      throw invalidCredential("the token is not valid");
    }
    await this.#prepare();
    for (let hasFetched = false;; hasFetched = true) {
      try {
        const { payload } = await jwtVerify(token, this.#keys!, {
          algorithms: [...algorithms],
          issuer: this.name,
          audience,
          ...(tokenType === "any" ? {} : { typ: tokenType }),
          requiredClaims: ["exp", "sub"],
          clockTolerance: CLOCK_TOLERANCE_S,
          currentDate: new Date(this.#deps.clock.wallMs()),
        });
        return this.#identify(payload);
      } catch (error) {
        const isUnknown = (error as { code?: unknown }).code === "ERR_JWKS_NO_MATCHING_KEY";
        if (!isUnknown || hasFetched) throw refusalOf(error);
        await this.#fetchAgain();
      }
    }
  }

  close(): void {
    this.#abort?.abort();
  }

  #identify({ sub, exp, ...claims }: JWTPayload): VerifiedToken {
    if (sub === undefined || sub === "" || sub.length > 256) {
      throw invalidCredential("the token is malformed");
    }
    const roles = rolesOf(claims, this.#config.rolesClaim);
    const mapped = this.#config.mapping.filter(({ role }) => role === "*" || roles.includes(role));
    const name = claims.preferred_username ?? claims.email;
    const principal = create(PrincipalSchema, {
      kind: Principal_Kind.EXTERNAL,
      userId: `${this.name}|${sub}`,
      username: typeof name === "string" && name !== "" ? name.slice(0, 256) : sub,
      roles: [mapped.some(({ admin }) => admin) ? ADMIN : "member"],
      grants: mapped.flatMap(({ grants }) => grants),
    });
    return {
      expiresAtMs: (exp! + CLOCK_TOLERANCE_S) * 1_000,
      sessionId: "",
      userId: principal.userId,
      external: { principal, encoded: encodePrincipal(principal) },
    };
  }

  async #prepare(): Promise<void> {
    const now = this.#deps.clock.now();
    if (this.#keys === undefined) await this.#fetchAgain();
    else if (now - this.#fetchedAtMs > KEYS_AGE_MS) this.#fetchAgain(); // meanwhile the old ones do
    if (this.#keys !== undefined) return;
    throw new GatewayError("unavailable", "the keys of the token's issuer cannot be fetched");
  }

  /** Fetches the keys, if that was not just tried: one fetch for all who wait. Never rejects; the old keys stay when it
   *  fails. */
  #fetchAgain(): Promise<void> {
    const now = this.#deps.clock.now();
    if (this.#fetching !== undefined) return this.#fetching;
    if (now - this.#triedAtMs < FETCH_PAUSE_MS) return Promise.resolve();
    this.#triedAtMs = now;
    const fetching = this.#fetch().then((keys) => {
      this.#keys = createLocalJWKSet(keys);
      this.#fetchedAtMs = this.#deps.clock.now();
    }).catch((error) => {
      this.#deps.log.info("the keys of an issuer could not be fetched", {
        issuer: this.name,
        error: String(error),
      });
    }).finally(() => this.#fetching = undefined);
    return this.#fetching = fetching;
  }

  async #fetch(): Promise<JSONWebKeySet> {
    const abort = this.#abort = new AbortController();
    const cancel = this.#deps.timer.after(FETCH_MS, () => abort.abort());
    try {
      const response = await this.#deps.fetch(this.#config.jwksUrl, {
        headers: { accept: "application/jwk-set+json, application/json" },
        redirect: "error",
        signal: abort.signal,
      });
      if (!response.ok) {
        await response.body?.cancel();
        throw new Error(`the answer is ${response.status}`);
      }
      return keysOf(await textOf(response));
    } finally {
      cancel();
      abort.abort(); // a body that was not read to its end
    }
  }
}

async function textOf(response: Response): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > KEYS_BYTES_MAX) throw new Error(`the keys are larger than ${KEYS_BYTES_MAX} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

function keysOf(text: string): JSONWebKeySet {
  const parsed = JSON.parse(text) as JSONWebKeySet | null;
  if (!Array.isArray(parsed?.keys)) throw new Error("the answer holds no keys");
  if (parsed.keys.length > KEYS_MAX) throw new Error(`there are more than ${KEYS_MAX} keys`);
  // A secret in there would be everybody's.
  return { keys: parsed.keys.filter((key) => key?.kty !== "oct") };
}

/** The roles that a claim holds; dots in its name go into objects. */
function rolesOf(claims: Record<string, unknown>, path: string): readonly string[] {
  const whole = claims[path];
  const found = whole ?? path.split(".").reduce<unknown>(
    (at, name) =>
      typeof at === "object" && at !== null && Object.hasOwn(at, name)
        ? (at as Record<string, unknown>)[name]
        : undefined,
    claims,
  );
  if (typeof found === "string") return found.split(" ");
  return Array.isArray(found) ? found.filter((each) => typeof each === "string") : [];
}
