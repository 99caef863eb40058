/** Checks passwords in the password worker, taking as long for names that nobody has. */
import type { User } from "./accounts.ts";
import { hmac, isSame, SECRET_BYTES, toBase64Url } from "./secrets.ts";

/** The password worker. Both reject with a ConnectError. */
export interface Passwords {
  hash(password: string): Promise<string>;
  verify(password: string, hash: string): Promise<{ matches: boolean; isOutdated: boolean }>;
}

/** Users whose password is remembered as right. */
const KNOWN_MAX = 1_000;

/** Checks of passwords. */
export class PasswordChecks {
  readonly #passwords: Passwords;
  readonly #random: { fill(target: Uint8Array): Uint8Array };
  /** The key of what is remembered; it never leaves this worker. */
  readonly #key: Uint8Array;
  /** By user id: a keyed digest of hash and password. */
  readonly #known = new Map<string, Uint8Array>();
  #dummy: Promise<string> | undefined;

  constructor(passwords: Passwords, random: { fill(target: Uint8Array): Uint8Array }) {
    this.#passwords = passwords;
    this.#random = random;
    this.#key = random.fill(new Uint8Array(SECRET_BYTES)).slice();
  }

  /** A hash to keep. */
  hash(password: string): Promise<string> {
    return this.#passwords.hash(password);
  }

  /** Whether it is the user's password. Without a user the answer is no and costs the same.
   *  `isOutdated`: the hash ought to be made anew. */
  async verify(
    user: User | undefined,
    password: string,
  ): Promise<{ matches: boolean; isOutdated: boolean }> {
    // Made by the first login of all, so that no later one tells by its time whether there is such a user.
    const dummy = await this.#dummyHash();
    if (user === undefined) {
      await this.#passwords.verify(password, dummy);
      return { matches: false, isOutdated: false };
    }
    return await this.#passwords.verify(password, user.passwordHash);
  }

  /** As `verify`, at once for a password that was right before: clients that send it with every connection come often. */
  async verifyRemembered(user: User | undefined, password: string): Promise<boolean> {
    const digest = hmac(this.#key, user?.passwordHash ?? "", "\0", password);
    const known = this.#known.get(user?.id ?? "");
    if (known !== undefined && isSame(known, digest)) return true;
    const { matches } = await this.verify(user, password);
    if (matches && user !== undefined) {
      this.#known.delete(user.id);
      if (this.#known.size >= KNOWN_MAX) this.#known.delete(this.#known.keys().next().value!);
      this.#known.set(user.id, digest);
    }
    return matches;
  }

  #dummyHash(): Promise<string> {
    if (this.#dummy === undefined) {
      const made = this.#passwords.hash(toBase64Url(this.#random.fill(new Uint8Array(SECRET_BYTES))));
      made.catch(() => this.#dummy = undefined);
      this.#dummy = made;
    }
    return this.#dummy;
  }
}
