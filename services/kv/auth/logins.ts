/** Logins: a name and password for a credential or a token. */
import type { AuthStore, Credential } from "./auth.ts";
import { KvError } from "../errors.ts";
import type { PasswordHasher } from "./passwords.ts";
import type { Tokens } from "./tokens.ts";

/** Checks names and passwords. */
export class Logins {
  constructor(readonly auth: AuthStore, readonly hasher: PasswordHasher, readonly tokens: Tokens) {}

  /** Who name and password prove the caller to be. Takes as long for a name that does not exist.
   *  @throws {KvError} `authNotEnabled`, `authFailed`, `noPasswordUser`, `tooManyRequests`. */
  async login(name: string, password: string): Promise<Credential> {
    const login = this.auth.loginOf(name);
    const isRight = await this.hasher.verify(password, login?.password);
    if (!isRight || login === undefined) throw new KvError("authFailed");
    // The password may have changed, or the user gone, while it was worked out.
    if (!this.auth.isLive(login.credential)) throw new KvError("authFailed");
    return login.credential;
  }

  /** As `login`, for a token. */
  async token(name: string, password: string): Promise<string> {
    return this.tokens.issue(await this.login(name, password));
  }
}
