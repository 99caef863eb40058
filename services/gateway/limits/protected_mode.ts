/** Protected mode: with no users configured, only requests that a loopback name was asked for are answered. That
 *  stops a web page of somebody else, and a DNS name that was rebound to 127.0.0.1, from using the service. */

// What may stand in Host: a name, an IPv4 address or a bracketed IPv6 address, and a port.
const AUTHORITY = /^(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::(\d{1,5}))?$/;
const LOOPBACK_V4 = /^127(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}$/;

/** True for `localhost`, names under `.localhost`, 127.0.0.0/8 and `::1`; brackets around IPv6 are optional. */
export function isLoopbackHost(host: string): boolean {
  const name = host.toLowerCase();
  return name === "localhost" || name === "::1" || name === "[::1]" || name.endsWith(".localhost") ||
    LOOPBACK_V4.test(name);
}

/** The host of an authority (`localhost:8080` → `localhost`), lower case, or undefined when it is not well-formed. */
export function authorityHost(authority: string): string | undefined {
  const match = AUTHORITY.exec(authority);
  return match === null ? undefined : (match[1] ?? match[2])?.toLowerCase();
}

/** What protected mode says of a request. */
export type Verdict = "ok" | "malformed_host" | "foreign_host" | "foreign_origin";

/** Largest number of remembered Host values; the set is emptied when it is full. Real clients use a handful. */
const REMEMBERED_HOSTS_MAX = 64;

/** Decides whether Host and Origin are ours. */
export class ProtectedMode {
  #allowed: ReadonlySet<string> = new Set();
  #allowedOrigins: ReadonlySet<string> = new Set();
  readonly #accepted = new Set<string>();

  /** `allowedHosts`: names accepted besides loopback ones; `allowedOrigins`: origins, as browsers write them. `*` is none:
   *  that all pages may read does not mean that all may act as whoever sits at this machine. */
  constructor(allowedHosts: readonly string[], allowedOrigins: readonly string[] = []) {
    this.allow(allowedHosts, allowedOrigins);
  }

  /** What is allowed from now on, as in the constructor. */
  allow(allowedHosts: readonly string[], allowedOrigins: readonly string[]): void {
    this.#allowedOrigins = new Set(allowedOrigins.filter((origin) => origin !== "*"));
    this.#allowed = new Set(allowedHosts.map((host) => host.toLowerCase()));
    this.#accepted.clear();
  }

  /** `host` is the Host header (or `:authority`); `origin` the Origin header. */
  check(host: string, origin: string | undefined): Verdict {
    if (!this.#accepted.has(host)) {
      const name = authorityHost(host);
      if (name === undefined) return "malformed_host";
      if (!this.#isOurs(name)) return "foreign_host";
      if (this.#accepted.size >= REMEMBERED_HOSTS_MAX) this.#accepted.clear();
      this.#accepted.add(host);
    }
    if (origin === undefined || this.#allowedOrigins.has(origin)) return "ok";
    const separator = origin.indexOf("://");
    const name = separator < 0 ? undefined : authorityHost(origin.slice(separator + 3));
    return name !== undefined && this.#isOurs(name) ? "ok" : "foreign_origin";
  }

  #isOurs(name: string): boolean {
    return isLoopbackHost(name) || this.#allowed.has(name);
  }
}
