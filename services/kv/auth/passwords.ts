/** Hashing and checking passwords without holding up the store.
 *
 *  scrypt runs on another thread; bcrypt (etcd's, for users that came from etcd or are to go there) runs here, a
 *  millisecond at a time. Few run at once and few more wait, so a flood of logins costs bounded work. A password that was
 *  found right once is recognised at once from then on: when a thousand connections come back after a restart, their
 *  user's password is worked out once. */
import { createHmac, scrypt, timingSafeEqual } from "node:crypto";
import { type Bcrypt, bcrypt, BCRYPT_COST, bcryptLike, isBcrypt } from "./bcrypt.ts";
import { KvError } from "../errors.ts";

/** Makes and checks hashes of passwords. */
export interface PasswordHasher {
  /** A hash with a new salt. @throws {KvError} `tooManyRequests`. */
  hash(password: string): Promise<Uint8Array>;
  /** Whether the hash is that of the password. Without a hash the answer is no and takes as long.
   *  @throws {KvError} `tooManyRequests`. */
  verify(password: string, hash: Uint8Array | undefined): Promise<boolean>;
}

/** What hashing needs of its surroundings. */
export interface PasswordDeps {
  readonly random: { fill(target: Uint8Array): Uint8Array };
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
  /** How new passwords are hashed. */
  readonly newHashes: "scrypt" | "bcrypt";
}

/** Passwords that are worked out at once: more would take the processors from the store. */
const CHECKS_AT_ONCE = 2;
/** Passwords that wait for their turn; at a few a second, later ones would time out anyway. */
const CHECKS_WAITING_MAX = 1_000;
/** Passwords found right that are remembered, 32 bytes each. */
const KNOWN_MAX = 10_000;
/** OWASP's parameters for 16 MiB: N = 2^14, r = 8, p = 5. */
const SCRYPT = { ln: 14, r: 8, p: 5 };
/** Bounds on what a stored hash may ask for. */
const SCRYPT_MAX = { ln: 17, r: 16, p: 16 };
const SALT_BYTES = 16;
const HASH_BYTES = 32;
const SCRYPT_FORM = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/;

/** Creates the hasher. */
export function createPasswordHasher(deps: PasswordDeps): PasswordHasher {
  const turns = new Turns();
  const known = new KnownPasswords(deps.random.fill(new Uint8Array(HASH_BYTES)));

  async function run(work: Bcrypt): Promise<string> {
    for (;;) {
      const step = work.next();
      if (step.done === true) return step.value;
      await deps.pause();
    }
  }

  function make(password: string): Promise<string> {
    const salt = deps.random.fill(new Uint8Array(SALT_BYTES));
    return deps.newHashes === "scrypt"
      ? scryptText(password, salt, SCRYPT, HASH_BYTES)
      : run(bcrypt(encoder.encode(password), salt, BCRYPT_COST));
  }

  function remake(password: string, hash: string): Promise<string> | undefined {
    if (isBcrypt(hash)) return run(bcryptLike(encoder.encode(password), hash));
    const match = SCRYPT_FORM.exec(hash);
    if (match === null) return undefined;
    const [ln, r, p] = [Number(match[1]), Number(match[2]), Number(match[3])] as const;
    if (ln < 1 || ln > SCRYPT_MAX.ln || r < 1 || r > SCRYPT_MAX.r || p < 1 || p > SCRYPT_MAX.p) {
      return undefined;
    }
    return scryptText(password, fromBase64(match[4]!), { ln, r, p }, fromBase64(match[5]!).length);
  }

  return {
    async hash(password) {
      return encoder.encode(await turns.take(() => make(password)));
    },
    verify(password, stored) {
      const hash = stored === undefined ? undefined : latin1(stored);
      if (hash !== undefined && known.has(hash, password)) return Promise.resolve(true);
      return turns.take(async () => {
        // Somebody before us in the queue may have brought the same password.
        if (hash !== undefined && known.has(hash, password)) return true;
        const made = hash === undefined ? undefined : remake(password, hash);
        if (hash === undefined || made === undefined) {
          await make(password);
          return false;
        }
        const isRight = isEqual(await made, hash);
        if (isRight) known.add(hash, password);
        return isRight;
      });
    },
  };
}

/** Lets few tasks run at once, in order. */
class Turns {
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  async take<T>(task: () => Promise<T>): Promise<T> {
    if (this.#running < CHECKS_AT_ONCE) this.#running++;
    else {
      if (this.#waiting.length >= CHECKS_WAITING_MAX) throw new KvError("tooManyRequests");
      // Whoever ends hands its turn over.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}

/** Hashes whose password is known, by a keyed digest of it; the key never leaves this process. */
class KnownPasswords {
  readonly #digests = new Map<string, Uint8Array>();

  constructor(readonly key: Uint8Array) {}

  has(hash: string, password: string): boolean {
    const digest = this.#digests.get(hash);
    return digest !== undefined && timingSafeEqual(digest, this.#digest(hash, password));
  }

  add(hash: string, password: string): void {
    if (this.#digests.size >= KNOWN_MAX) this.#digests.clear();
    this.#digests.set(hash, this.#digest(hash, password));
  }

  #digest(hash: string, password: string): Uint8Array {
    return createHmac("sha256", this.key).update(hash).update("\0").update(password).digest();
  }
}

const encoder = new TextEncoder();

function scryptText(
  password: string,
  salt: Uint8Array,
  { ln, r, p }: typeof SCRYPT,
  length: number,
): Promise<string> {
  const N = 2 ** ln;
  return new Promise((resolve, reject) => {
    scrypt(password, salt, length, { N, r, p, maxmem: 256 * N * r }, (error, key) => {
      if (error !== null) reject(error);
      else resolve(`$scrypt$ln=${ln},r=${r},p=${p}$${toBase64(salt)}$${toBase64(key)}`);
    });
  });
}

function isEqual(a: string, b: string): boolean {
  const left = encoder.encode(a);
  const right = encoder.encode(b);
  return left.length === right.length && timingSafeEqual(left, right);
}

function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

function toBase64(bytes: Uint8Array): string {
  return btoa(latin1(bytes)).replace(/=+$/, "");
}

function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
