/** Cookies of signed-in browsers, and the proof that a request by cookie is of our own pages. */
import type { Exchange } from "../exchange.ts";
import { authorityHost, isLoopbackHost } from "../limits/protected_mode.ts";
import { GatewayError } from "../problem.ts";

/** Which of the two. */
export type CookieKind = "access" | "refresh";

/** Names over https: `__Host-` makes browsers take them only with Secure, Path=/ and without a Domain, so that neither plain
 *  HTTP nor a neighbouring subdomain can set them. */
const SECURE_NAMES: Readonly<Record<CookieKind, string>> = {
  access: "__Host-aetherflow-access",
  refresh: "__Host-aetherflow-refresh",
};
/** Names over plain HTTP, which is for this machine only. */
const PLAIN_NAMES: Readonly<Record<CookieKind, string>> = {
  access: "aetherflow-access",
  refresh: "aetherflow-refresh",
};

/** The value of one of our cookies; undefined when there is none. */
export function readCookie({ cookie, client }: Exchange, kind: CookieKind): string | undefined {
  if (cookie === undefined) return undefined;
  const name = (client.isSecure ? SECURE_NAMES : PLAIN_NAMES)[kind];
  for (let at = 0; at < cookie.length;) {
    while (cookie.charCodeAt(at) === 0x20 || cookie.charCodeAt(at) === 0x3b) at++;
    const found = cookie.indexOf(";", at);
    const end = found < 0 ? cookie.length : found;
    if (cookie.charCodeAt(at + name.length) === 0x3d && cookie.startsWith(name, at)) {
      const value = cookie.slice(at + name.length + 1, end).trimEnd();
      return value === "" ? undefined : value;
    }
    at = end + 1;
  }
  return undefined;
}

/** `Set-Cookie` of a token that is good for `seconds`; 0 seconds and no value takes the cookie away. */
export function setCookie({ client }: Exchange, kind: CookieKind, value: string, seconds: number): string {
  const name = (client.isSecure ? SECURE_NAMES : PLAIN_NAMES)[kind];
  const secure = client.isSecure ? "; Secure" : "";
  return `${name}=${value}; Path=/; Max-Age=${seconds}; HttpOnly${secure}; SameSite=Strict`;
}

/** Refuses to hand out cookies over plain HTTP, but on this machine: everybody on the way could take them. */
export function refuseCookiesInTheOpen({ client, host }: Exchange): void {
  if (client.isSecure) return;
  const name = authorityHost(host);
  if (name !== undefined && isLoopbackHost(name)) return;
  throw new GatewayError(
    "failed_precondition",
    "cookies are given over https only; this request came in plain HTTP",
  );
}

/** Whether a page of our own, or of an allowed origin, has sent the request, or nobody's page: RFC 6454, and the
 *  Fetch Metadata that browsers send and pages cannot change. */
export function isSameOrigin(exchange: Exchange, isAllowedOrigin: (origin: string) => boolean): boolean {
  const { origin } = exchange;
  if (origin !== undefined) return isOwnOrigin(exchange, origin) || isAllowedOrigin(origin);
  const site = exchange.headers.get("sec-fetch-site");
  return site === "same-origin" || site === "none";
}

/** Whether a page of somebody else has sent the request. A client that is no browser says nothing of pages. */
export function isCrossSite(exchange: Exchange, isAllowedOrigin: (origin: string) => boolean): boolean {
  if (exchange.origin === undefined && exchange.headers.get("sec-fetch-site") === null) return false;
  return !isSameOrigin(exchange, isAllowedOrigin);
}

function isOwnOrigin({ host, client }: Exchange, origin: string): boolean {
  const scheme = client.isSecure ? "https://" : "http://";
  return origin.length === scheme.length + host.length && origin.startsWith(scheme) && origin.endsWith(host);
}

/** What the client of a refused request is told. */
export function csrfRefusal(): GatewayError {
  return new GatewayError(
    "csrf_refused",
    "a request by cookie that changes something must come from a page of this origin (Origin or Sec-Fetch-Site says so)",
  );
}
