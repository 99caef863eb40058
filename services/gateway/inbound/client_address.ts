/** Who sent a request, as far as the connection and trusted proxies tell. Pure.
 *
 *  Each proxy adds at the right who connected to it. So the chain is read from the right, and only as long as the one who
 *  speaks is trusted: what a client wrote itself stands left of what a trusted proxy says of it, and is never reached. */
import type { Client, ClientAddresses, Remote } from "../stages.ts";
import { formatIp, type IpAddress, type IpBlock, isInBlock, parseBlock, parseIp } from "./ip_address.ts";

/** Longest chain that is followed. */
const HOPS_MAX = 32;

/** One end of a connection that a proxy tells of. */
interface Hop {
  readonly address: IpAddress;
  readonly port: number;
}

/** What the fields say of the client; `hop` is undefined where nobody who is trusted says. */
interface Told {
  readonly hop: Hop | undefined;
  readonly isSecure: boolean | undefined;
}

const NOTHING_TOLD: Told = { hop: undefined, isSecure: undefined };

/** Creates it. `trustedProxies` are addresses and blocks. @throws {RangeError} for one that is neither. */
export function createClientAddresses(trustedProxies: readonly string[]): ClientAddresses {
  const blocks = trustedProxies.map((text) => {
    const block = parseBlock(text);
    if (block === undefined) throw new RangeError(`Cannot trust ${text}: not an address or block`);
    return block;
  });
  if (blocks.length === 0) return { of: (remote) => clientOf(remote) };
  return {
    of(remote, headers) {
      const forwarded = headers.get("forwarded");
      const forwardedFor = headers.get("x-forwarded-for");
      const proto = headers.get("x-forwarded-proto");
      const client = clientOf(remote);
      if (forwarded === null && forwardedFor === null && proto === null) return client;
      const address = parseIp(remote.hostname);
      if (address === undefined || !isTrusted(address, blocks)) return client;
      const standard = forwarded === null ? undefined : readForwarded(forwarded, blocks);
      const usual = forwardedFor === null && proto === null
        ? undefined
        : readForwardedFor(forwardedFor ?? "", proto ?? "", blocks);
      return applied(client, agreed(standard, usual));
    },
  };
}

/** Where both kinds of fields are there, a proxy that writes one of them may have passed on what the client wrote as the
 *  other: they count where they say the same. */
function agreed(standard: Told | undefined, usual: Told | undefined): Told {
  if (standard === undefined || usual === undefined) return standard ?? usual ?? NOTHING_TOLD;
  const isSame = textOf(standard.hop) === textOf(usual.hop) && standard.isSecure === usual.isSecure;
  return isSame ? standard : NOTHING_TOLD;
}

function textOf(hop: Hop | undefined): string | undefined {
  return hop === undefined ? undefined : formatIp(hop.address);
}

function applied(client: Client, { hop, isSecure }: Told): Client {
  return {
    ip: hop === undefined ? client.ip : formatIp(hop.address),
    port: hop === undefined ? client.port : hop.port,
    isSecure: isSecure ?? client.isSecure,
  };
}

/** The other end of the connection, without zone, and IPv4 as IPv4 where one listener takes both. */
function clientOf({ hostname, port, isSecure }: Remote): Client {
  const isPlain = !hostname.includes("%") && !hostname.startsWith("::ffff:");
  const address = isPlain ? undefined : parseIp(hostname);
  return { ip: address === undefined ? hostname : formatIp(address), port, isSecure };
}

function isTrusted(address: IpAddress, blocks: readonly IpBlock[]): boolean {
  return blocks.some((block) => isInBlock(address, block));
}

// ---- X-Forwarded-For, X-Forwarded-Proto ----

function readForwardedFor(chain: string, protocols: string, blocks: readonly IpBlock[]): Told {
  const entries = chain === "" ? [] : chain.split(",");
  let hop: Hop | undefined;
  let index = entries.length;
  for (let hops = 0; index > 0 && hops < HOPS_MAX; hops++) {
    const next = parseNode(entries[index - 1]!.trim());
    if (next === undefined) break;
    index--;
    hop = next;
    if (!isTrusted(next.address, blocks)) break;
  }
  return { hop, isSecure: readProtocol(protocols, entries.length, index) };
}

/** Of several values the one that stands where the client's address does or, if they do not come in pairs, the last,
 *  which the proxy in front of us wrote. */
function readProtocol(protocols: string, entries: number, index: number): boolean | undefined {
  if (protocols === "") return undefined;
  const values = protocols.split(",");
  const value = values.length === entries && index < entries ? values[index] : values.at(-1);
  return isSecureProtocol(value!.trim());
}

function isSecureProtocol(name: string): boolean | undefined {
  const lower = name.toLowerCase();
  if (lower === "https" || lower === "wss") return true;
  return lower === "http" || lower === "ws" ? false : undefined;
}

// ---- Forwarded (RFC 7239) ----

const PAIR =
  /[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)|"((?:[^"\\]|\\.)*)")[ \t]*(?:;|$)/y;

function readForwarded(chain: string, blocks: readonly IpBlock[]): Told {
  let told = NOTHING_TOLD;
  let end = chain.length;
  for (let hops = 0; end > 0 && hops < HOPS_MAX; hops++) {
    const start = elementStart(chain, end);
    const element = readElement(chain.slice(start, end));
    if (element === undefined) break;
    end = start - 1;
    const proto = element.get("proto");
    const hop = parseNode(element.get("for") ?? "");
    const isSecure = proto === undefined ? undefined : isSecureProtocol(proto);
    // `unknown` and `_hidden` name nobody, so that nobody further left can be believed.
    if (hop === undefined) return { hop: told.hop, isSecure: isSecure ?? told.isSecure };
    told = { hop, isSecure };
    if (!isTrusted(hop.address, blocks)) break;
  }
  return told;
}

/** Where the last element before `end` begins: after a comma outside of quotes, looked for from the right, so that a quote
 *  that a client left open cannot swallow what proxies wrote after it. */
function elementStart(chain: string, end: number): number {
  let isQuoted = false;
  for (let at = end - 1; at >= 0; at--) {
    if (chain[at] === '"' && !isEscaped(chain, at)) isQuoted = !isQuoted;
    else if (chain[at] === "," && !isQuoted) return at + 1;
  }
  return 0;
}

function isEscaped(text: string, at: number): boolean {
  let slashes = 0;
  while (text[at - 1 - slashes] === "\\") slashes++;
  return slashes % 2 === 1;
}

/** Parameters by name; undefined when they are malformed, or one is there twice. */
function readElement(text: string): Map<string, string> | undefined {
  const pairs = new Map<string, string>();
  for (let at = 0; at < text.length;) {
    PAIR.lastIndex = at;
    const match = PAIR.exec(text);
    if (match === null) return undefined;
    at += match[0].length;
    const name = match[1]!.toLowerCase();
    if (pairs.has(name)) return undefined;
    pairs.set(name, match[2] ?? match[3]!.replace(/\\(.)/g, "$1"));
  }
  return pairs;
}

// ---- both ----

const BRACKETED = /^\[([^\]]*)\](?::(\d{1,5}|_[A-Za-z0-9._-]+))?$/;
const V4_WITH_PORT = /^([\d.]+)(?::(\d{1,5}|_[A-Za-z0-9._-]+))?$/;

/** `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80` and, as X-Forwarded-For often has it, `2001:db8::1`. */
function parseNode(text: string): Hop | undefined {
  const match = BRACKETED.exec(text) ?? V4_WITH_PORT.exec(text);
  const address = parseIp(match === null ? text : match[1]!);
  if (address === undefined) return undefined;
  const port = match?.[2] === undefined || match[2].startsWith("_") ? 0 : Number(match[2]);
  return port > 65_535 ? undefined : { address, port };
}
