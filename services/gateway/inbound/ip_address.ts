/** IP addresses as numbers: read, written in one way, and matched with blocks. */

/** An address: eight groups of 16 bits. IPv4 is its IPv4-mapped form, `::ffff:a.b.c.d`, so that one address has one value. */
export type IpAddress = readonly number[];

/** Addresses that begin alike: `10.0.0.0/8`, `fd00::/8`. */
export interface IpBlock {
  readonly groups: IpAddress;
  /** Bits of the 128 that count. */
  readonly bits: number;
}

const V4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;
const GROUP = /^[0-9A-Fa-f]{1,4}$/;
/** RFC 4007 §11: what follows `%` names an interface of the machine that wrote it. */
const ZONE = /%[A-Za-z0-9._~-]{1,64}$/;
/** Longest text of an address with its zone. */
const TEXT_MAX = 45 + 65;
const GROUPS = 8;
const MAPPED: readonly number[] = [0, 0, 0, 0, 0, 0xffff];

/** Reads `192.0.2.1`, `2001:db8::1` or `fe80::1%eth0`, without brackets; the zone is left out. Undefined for all else:
 *  leading zeros of IPv4, which some read as octal, included. */
export function parseIp(text: string): IpAddress | undefined {
  if (text.length > TEXT_MAX) return undefined;
  if (!text.includes(":")) {
    const v4 = parseV4(text);
    return v4 === undefined ? undefined : [...MAPPED, ...v4];
  }
  return parseV6(text.replace(ZONE, ""));
}

function parseV4(text: string): [number, number] | undefined {
  const match = V4.exec(text);
  if (match === null) return undefined;
  const octets = match.slice(1).map((octet) => octet.length > 1 && octet[0] === "0" ? 256 : Number(octet));
  if (octets.some((octet) => octet > 255)) return undefined;
  return [octets[0]! * 256 + octets[1]!, octets[2]! * 256 + octets[3]!];
}

function parseV6(text: string): IpAddress | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1]!, true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = GROUPS - head.length - tail.length;
  // "::" stands for one group at least.
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  return [...head, ...new Array<number>(missing).fill(0), ...tail];
}

/** Groups between colons; the last may be IPv4's four octets where `mayEndV4`. */
function parseGroups(text: string, mayEndV4: boolean): number[] | undefined {
  if (text === "") return [];
  const parts = text.split(":");
  const groups: number[] = [];
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i]!;
    if (GROUP.test(part)) groups.push(parseInt(part, 16));
    else {
      const v4 = mayEndV4 && i === parts.length - 1 ? parseV4(part) : undefined;
      if (v4 === undefined) return undefined;
      groups.push(...v4);
    }
  }
  return groups;
}

/** True for IPv4, mapped or not. */
export function isV4(address: IpAddress): boolean {
  return MAPPED.every((group, i) => address[i] === group);
}

/** The one text of an address: four decimal octets, or RFC 5952. */
export function formatIp(address: IpAddress): string {
  if (isV4(address)) {
    return `${address[6]! >> 8}.${address[6]! & 255}.${address[7]! >> 8}.${address[7]! & 255}`;
  }
  let zerosAt = -1;
  let zeros = 1; // a single group is not shortened
  for (let at = 0; at < GROUPS; at++) {
    let end = at;
    while (end < GROUPS && address[end] === 0) end++;
    if (end - at > zeros) [zerosAt, zeros] = [at, end - at];
    at = Math.max(at, end - 1);
  }
  const texts = address.map((group) => group.toString(16));
  if (zerosAt < 0) return texts.join(":");
  return `${texts.slice(0, zerosAt).join(":")}::${texts.slice(zerosAt + zeros).join(":")}`;
}

/** Reads `10.0.0.0/8`, `fd00::/8`, or a single address. Undefined when it is none, or when bits after the prefix are set,
 *  which tells of a typing error. */
export function parseBlock(text: string): IpBlock | undefined {
  const slash = text.indexOf("/");
  const address = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined || text.includes("%")) return undefined;
  const isShort = !text.includes(":");
  let bits = 128;
  if (slash >= 0) {
    const digits = text.slice(slash + 1);
    if (!/^(0|[1-9]\d{0,2})$/.test(digits) || Number(digits) > (isShort ? 32 : 128)) return undefined;
    bits = Number(digits) + (isShort ? 96 : 0);
  }
  for (let i = 0; i < GROUPS; i++) {
    if ((address[i]! & ~maskOf(bits, i) & 0xffff) !== 0) return undefined;
  }
  return { groups: address, bits };
}

/** Whether the address lies in the block. */
export function isInBlock(address: IpAddress, block: IpBlock): boolean {
  for (let i = 0; i < GROUPS; i++) {
    const mask = maskOf(block.bits, i);
    if (mask === 0) return true;
    if ((address[i]! & mask) !== block.groups[i]) return false;
  }
  return true;
}

/** The bits of group `i` that count. */
function maskOf(bits: number, i: number): number {
  const own = Math.min(16, Math.max(0, bits - 16 * i));
  return (0xffff << (16 - own)) & 0xffff;
}
