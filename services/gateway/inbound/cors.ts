/** Cross-origin requests of browsers (the Fetch standard's CORS protocol): closed unless origins are named. Pure. */
import type { Cors } from "../stages.ts";
import type { CorsConfig } from "./config.ts";

/** What a preflight's answer depends on. */
const PREFLIGHT_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/** Lets no page of another origin read anything. */
const CLOSED: Cors = { preflight: () => undefined, apply() {} };

/** Creates it. An origin is answered with its own name only if it is listed; `*` is answered with `*`, with which browsers
 *  send no cookies. */
export function createCors(config: CorsConfig): Cors {
  const isAny = config.origins.includes("*");
  const listed: ReadonlySet<string> = new Set(config.origins);
  if (listed.size === 0) return CLOSED;
  const methods = config.methods.join(", ");
  const headers = config.headers.join(", ");
  const exposed = config.exposeHeaders.join(", ");

  const isAllowed = (origin: string | undefined) => origin !== undefined && (isAny || listed.has(origin));

  return {
    preflight(exchange) {
      if (exchange.method !== "OPTIONS" || !isAllowed(exchange.origin)) return undefined;
      if (!exchange.headers.has("access-control-request-method")) return undefined;
      return new Response(null, {
        status: 204,
        headers: {
          "access-control-allow-methods": methods,
          ...(headers === "" ? {} : { "access-control-allow-headers": headers }),
          "access-control-max-age": String(config.maxAgeS),
          ...(isAny ? {} : { vary: PREFLIGHT_VARY }),
          "x-request-id": exchange.requestId,
        },
      });
    },
    apply(exchange, answer) {
      // Also where no origin is allowed: a cache must not give that answer to an origin that is.
      if (!isAny && !answer.has("vary")) answer.append("vary", "Origin");
      else if (!isAny && !/\borigin\b/i.test(answer.get("vary")!)) answer.append("vary", "Origin");
      if (!isAllowed(exchange.origin)) return;
      answer.set("access-control-allow-origin", isAny ? "*" : exchange.origin!);
      if (config.credentials) answer.set("access-control-allow-credentials", "true");
      if (exposed !== "" && !answer.has("access-control-allow-methods")) {
        answer.set("access-control-expose-headers", exposed);
      }
    },
  };
}
