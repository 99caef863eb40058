/** The keys that sign access tokens.
 *
 *  A key is published for a while before it signs, and until the last token it signed has run out:
 *
 *  ```
 *  made ──── ACTIVATION_MS ────► signs ──── until the next one signs ──► verifies ──── accessTokenMs + SKEW_MS ────► gone
 *  └──────────────────────────────────── published ───────────────────────────────────────────────────────────────┘
 *  ``` */
import { type CryptoKey, exportJWK, generateKeyPair, importJWK, type JWK } from "jose";
import { formatGuuid, type GuuidSource } from "../../runtime/guuid.ts";
import type { AuthConfig } from "./config.ts";
import { AuthError } from "./errors.ts";
import { LIST_MAX, type RecordStore, type StoredRecord } from "./records.ts";
import { digest, fromBase64Url, SECRET_BYTES, toBase64Url } from "./secrets.ts";

/** How long a new key is published before it signs, in milliseconds: gateways are told at once, and other machines look
 *  for new keys more often than that. */
export const ACTIVATION_MS = 15_000;
/** What clocks of machines may differ by. */
export const SKEW_MS = 60_000;

/** Attempts to make the first key while other machines change keys too. */
const ATTEMPTS_MAX = 16;

const encoder = new TextEncoder();

/** Algorithms of access tokens. */
export type SigningAlgorithm = AuthConfig["algorithm"];

/** A key that may sign. */
export interface Signer {
  readonly kid: string;
  readonly algorithm: SigningAlgorithm;
  readonly key: CryptoKey | Uint8Array;
}

/** What verifies now. */
export interface PublishedKeys {
  /** RFC 7517. */
  readonly jwks: string;
  /** Of HS256, by key id. */
  readonly secrets: Readonly<Record<string, Uint8Array>>;
}

/** What keys are made of. */
export interface SigningKeysDeps {
  readonly records: RecordStore;
  readonly config: Pick<AuthConfig, "algorithm" | "hs256Secret" | "accessTokenMs" | "keyRotationMs">;
  readonly guuids: GuuidSource;
  readonly random: { fill(target: Uint8Array): Uint8Array };
  readonly clock: { wallMs(): number };
}

/** A key as a record, under `signing/<kid>`. */
interface KeyRecord {
  readonly kid: string;
  readonly algorithm: SigningAlgorithm;
  /** Private JWK of EdDSA. */
  readonly jwk?: JWK;
  /** base64url, of HS256. */
  readonly secret?: string;
  readonly createdAtMs: number;
  readonly activeAtMs: number;
  /** Longest time that a token it signed is good for. */
  readonly tokenMs: number;
}

interface KnownKey {
  readonly stored: StoredRecord;
  readonly record: KeyRecord;
}

/** The keys. Call `load` first. */
export class SigningKeys {
  readonly #deps: SigningKeysDeps;
  /** Oldest first. */
  #keys: readonly KnownKey[] = [];
  /** Imported keys, by id; those that are gone are dropped with the next `tick`. */
  readonly #imported = new Map<string, CryptoKey | Uint8Array>();
  #headVersion = 0;
  readonly #fixed: Signer | undefined;

  constructor(deps: SigningKeysDeps) {
    this.#deps = deps;
    const { algorithm, hs256Secret } = deps.config;
    if (algorithm === "HS256" && hs256Secret !== "") {
      // The id changes with the secret and tells nothing of it that a token's signature does not.
      const kid = `config-${digest(`aetherflow hs256 key id ${hs256Secret}`).slice(0, 16)}`;
      this.#fixed = { kid, algorithm, key: encoder.encode(hs256Secret) };
    }
  }

  /** Reads the keys and makes the first one. */
  async load(): Promise<void> {
    await this.#read();
    await this.tick();
  }

  /** What is due: a new key when the present one is old, none when nothing needs it any more, and what other machines did.
   *  Whether what is published has changed. */
  async tick(): Promise<boolean> {
    const before = this.#ids();
    if (this.#deps.records.isShared) await this.#read();
    const now = this.#deps.clock.wallMs();
    await this.#raiseTokenTime();
    if (this.#fixed === undefined) {
      // Without one of the algorithm nothing can be signed: it signs at once.
      for (let attempt = 1; !this.#isNewestUsable(); attempt++) {
        if (attempt > ATTEMPTS_MAX) throw new AuthError("conflict");
        await this.#add(now);
      }
      const isOld = now - this.#keys.at(-1)!.record.createdAtMs >= this.#deps.config.keyRotationMs;
      if (isOld) await this.#add(now + ACTIVATION_MS);
    }
    await this.#prune(now);
    return this.#ids() !== before;
  }

  /** Makes the next key; its id. The present one signs until the new one is known everywhere.
   *  @throws {AuthError} `fixedSecret` */
  async rotate(): Promise<string> {
    if (this.#fixed !== undefined) throw new AuthError("fixedSecret");
    return await this.#add(this.#deps.clock.wallMs() + ACTIVATION_MS);
  }

  /** The key that signs now. */
  async signer(): Promise<Signer> {
    if (this.#fixed !== undefined) return this.#fixed;
    const now = this.#deps.clock.wallMs();
    const { algorithm } = this.#deps.config;
    const own = this.#keys.filter(({ record }) => record.algorithm === algorithm);
    const { record } = own.findLast(({ record }) => record.activeAtMs <= now) ?? own[0]!;
    return { kid: record.kid, algorithm, key: await this.#import(record) };
  }

  /** What verifies now. */
  published(): PublishedKeys {
    const secrets: Record<string, Uint8Array> = {};
    const keys: JWK[] = [];
    for (const { record: { kid, algorithm, jwk, secret } } of this.#keys) {
      if (jwk !== undefined) {
        keys.push({ kty: jwk.kty!, crv: jwk.crv!, x: jwk.x!, kid, alg: algorithm, use: "sig" });
      } else if (secret !== undefined) secrets[kid] = fromBase64Url(secret)!;
    }
    if (this.#fixed !== undefined) secrets[this.#fixed.kid] = this.#fixed.key as Uint8Array;
    return { jwks: JSON.stringify({ keys }), secrets };
  }

  #isNewestUsable(): boolean {
    return this.#keys.at(-1)?.record.algorithm === this.#deps.config.algorithm;
  }

  /** Text that changes with the keys. */
  #ids(): string {
    return this.#keys.map(({ record }) => record.kid).join();
  }

  async #read(): Promise<void> {
    const { records } = this.#deps;
    // First: if the head moves while the keys are read, the next commit fails and they are read again.
    this.#headVersion = (await records.get("signing-head"))?.version ?? 0;
    const stored = await records.list("signing/", "", LIST_MAX);
    this.#keys = stored.map((stored) => ({ stored, record: JSON.parse(stored.value) as KeyRecord }))
      .sort((a, b) => a.record.activeAtMs - b.record.activeAtMs || a.stored.version - b.stored.version);
    const known = new Set(this.#keys.map(({ record }) => record.kid));
    for (const kid of this.#imported.keys()) if (!known.has(kid)) this.#imported.delete(kid);
  }

  /** Adds a key that signs from `activeAtMs`; when another machine was faster, the one that it made. */
  async #add(activeAtMs: number): Promise<string> {
    const { records, config, clock, guuids, random } = this.#deps;
    const kid = formatGuuid(guuids.next());
    const base = {
      kid,
      algorithm: config.algorithm,
      createdAtMs: clock.wallMs(),
      activeAtMs,
      tokenMs: config.accessTokenMs,
    };
    let record: KeyRecord;
    if (config.algorithm === "EdDSA") {
      const { privateKey } = await generateKeyPair("EdDSA", { extractable: true, crv: "Ed25519" });
      record = { ...base, jwk: await exportJWK(privateKey) };
    } else record = { ...base, secret: toBase64Url(random.fill(new Uint8Array(SECRET_BYTES))) };
    const isFirst = await records.commit([
      { key: "signing-head", version: this.#headVersion, value: kid },
      { key: `signing/${kid}`, version: 0, value: JSON.stringify(record) },
    ]);
    await this.#read();
    return isFirst ? kid : this.#keys.at(-1)!.record.kid;
  }

  /** Keys sign tokens of the configured time, which may have grown since they were made. */
  async #raiseTokenTime(): Promise<void> {
    const { records, config } = this.#deps;
    const stale = this.#keys.filter(({ record }) => record.tokenMs < config.accessTokenMs);
    for (const { stored, record } of stale) {
      const value = JSON.stringify({ ...record, tokenMs: config.accessTokenMs });
      await records.commit([{ key: stored.key, version: stored.version, value }]);
    }
    if (stale.length > 0) await this.#read();
  }

  async #prune(now: number): Promise<void> {
    const { records } = this.#deps;
    const gone = this.#keys.filter(({ record }, i) => {
      const successor = this.#fixed === undefined ? this.#keys[i + 1]?.record : undefined;
      return successor !== undefined && now >= successor.activeAtMs + record.tokenMs + SKEW_MS;
    });
    for (const { stored } of gone) {
      await records.commit([{ key: stored.key, version: stored.version, value: null }]);
    }
    if (gone.length > 0) await this.#read();
  }

  async #import(record: KeyRecord): Promise<CryptoKey | Uint8Array> {
    let key = this.#imported.get(record.kid);
    if (key === undefined) {
      key = record.jwk === undefined
        ? fromBase64Url(record.secret!)!
        : await importJWK({ ...record.jwk, alg: "EdDSA" }, "EdDSA");
      this.#imported.set(record.kid, key);
    }
    return key;
  }
}
