/** The console: a page for browsers at `/`, and what it loads below `/console/`. Nothing of it is secret: what the page
 *  shows comes by the API, which asks who calls. */
import type { Exchange } from "../exchange.ts";
import { GatewayError } from "../problem.ts";

/** Serves the console. */
export interface ConsoleEdge {
  /** Whether a request is for the page or a part of it: of `/` only if it takes a page. */
  takes(exchange: Exchange): boolean;
  /** @throws {GatewayError} `route_not_found` for what is no part of the page, `method_not_allowed`. */
  answer(exchange: Exchange): Promise<Response>;
}

/** One file that the page loads. */
interface Asset {
  readonly type: string;
  readonly gzip: Uint8Array<ArrayBuffer>;
  /** Made for the first client that takes no gzip. */
  plain: Promise<Uint8Array<ArrayBuffer>> | undefined;
}

/** The page as it is served. */
interface Page {
  readonly html: string;
  readonly assets: ReadonlyMap<string, Asset>;
}

/** Where the parts are. */
const PREFIX = "/console/";
/** Label of their metrics. */
export const CONSOLE_TEMPLATE = `${PREFIX}{asset}`;

/** Stands for the nonce in the page. */
const NONCE_MARK = "@nonce@";
const NONCE_BYTES = 16;

/** Names have the content's hash: what was loaded once is never asked for again. */
const FOR_GOOD = "public, max-age=31536000, immutable";

const SAFETY: Readonly<Record<string, string>> = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

/** Creates it. */
export function createConsoleEdge(): ConsoleEdge {
  let loaded: Promise<Page> | undefined;

  return {
    takes({ path, headers }) {
      if (path === "/") return takesPage(headers.get("accept"));
      return path.startsWith(PREFIX);
    },
    async answer(exchange) {
      if (exchange.method !== "GET" && exchange.method !== "HEAD") {
        throw new GatewayError("method_not_allowed", "only GET and HEAD are possible here", {
          allow: "GET, HEAD",
        });
      }
      // Most gateways never see a browser: the page is in memory from the first request on.
      const page = await (loaded ??= load());
      return exchange.path === "/" ? document(page, exchange) : await asset(page, exchange);
    },
  };
}

/** Browsers name it; other clients say that they take anything, or nothing. */
function takesPage(accept: string | null): boolean {
  return accept !== null && accept.toLowerCase().includes("text/html");
}

async function load(): Promise<Page> {
  const { ASSETS, HTML } = await import("../console/gen/assets.ts");
  return {
    html: HTML,
    assets: new Map(
      ASSETS.map((
        { name, type, gzip },
      ) => [name, { type, gzip: Uint8Array.fromBase64(gzip), plain: undefined }]),
    ),
  };
}

function document({ html }: Page, { method, requestId }: Exchange): Response {
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES)).toBase64();
  return new Response(method === "HEAD" ? null : html.replaceAll(NONCE_MARK, nonce), {
    headers: {
      ...SAFETY,
      "content-type": "text/html; charset=utf-8",
      "content-security-policy": policy(nonce),
      "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
      // Each answer has a nonce of its own, and names the newest parts.
      "cache-control": "no-store",
      vary: "Accept",
      "x-request-id": requestId,
    },
  });
}

/** Scripts and styles of ours only. The nonce is for the style that the text editor makes for itself; `'self'` of
 *  connections is the page's own host over HTTP and WebSocket. */
function policy(nonce: string): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    `style-src 'self' 'nonce-${nonce}'`,
    "connect-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join("; ");
}

async function asset({ assets }: Page, exchange: Exchange): Promise<Response> {
  const name = exchange.path.slice(PREFIX.length);
  const found = assets.get(name);
  if (found === undefined) throw new GatewayError("route_not_found", "the console has no part of this name");
  const headers: Record<string, string> = {
    ...SAFETY,
    "cache-control": FOR_GOOD,
    etag: `"${name}"`,
    vary: "Accept-Encoding",
    "x-request-id": exchange.requestId,
  };
  if (isCurrent(exchange.ifNoneMatch, headers.etag!)) return new Response(null, { status: 304, headers });
  headers["content-type"] = found.type;
  const isPacked = takesGzip(exchange.headers.get("accept-encoding"));
  if (isPacked) headers["content-encoding"] = "gzip";
  else headers["cache-control"] += ", no-transform";
  const body = isPacked ? found.gzip : await (found.plain ??= unpack(found.gzip));
  headers["content-length"] = String(body.length);
  return new Response(exchange.method === "HEAD" ? null : body, { headers });
}

async function unpack(gzip: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const plain = new Blob([gzip]).stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(plain).bytes();
}

function isCurrent(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  return ifNoneMatch.split(",").some((tag) => {
    const text = tag.trim();
    return text === "*" || text.replace(/^W\//, "") === etag;
  });
}

/** Whether a client takes gzip: named, or everything, and not with a quality of 0. */
function takesGzip(acceptEncoding: string | null): boolean {
  for (const part of (acceptEncoding ?? "").toLowerCase().split(",")) {
    const [coding, ...parameters] = part.split(";").map((text) => text.trim());
    if (coding !== "gzip" && coding !== "*") continue;
    if (!parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter))) return true;
  }
  return false;
}
