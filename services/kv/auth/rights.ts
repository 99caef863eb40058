/** What the principal of a call may do here, beside the store's own users: prefixes of keys, or nothing. */
import { type Principal, Principal_Kind } from "$proto/aetherflow/auth/v1/auth_pb.ts";
import { isAdmin, PRINCIPAL_METADATA, principalOf, SYSTEM_KEYS } from "../../runtime/principal.ts";
import { RecentMap } from "../../runtime/recent_map.ts";
import { prefixRange } from "../key.ts";
import { KvError } from "../errors.ts";
import type { Access } from "./auth.ts";
import { KeySpans, type Span, spanOf } from "./permissions.ts";

/** Name of this service in grants. */
const SERVICE = "kv";

/** Principals whose rights are remembered, per generation: some 1 KiB each. */
const REMEMBERED_PRINCIPALS = 1_024;

const encoder = new TextEncoder();

/** What a restricted caller may do. Whoever is not restricted has none: then the store's own users decide, if there are
 *  any. */
export class Rights {
  readonly #spans: Readonly<Record<Access, KeySpans>> | undefined;

  /** `spans`: what may be read and written; undefined for nobody. */
  constructor(
    readonly username: string,
    spans: Readonly<Record<Access, KeySpans>> | undefined,
    /** Whether it may use the keys that workers keep for themselves. */
    readonly isSystem = false,
  ) {
    this.#spans = spans;
  }

  /** Whether it is nobody, who may become somebody by a token of the store. */
  get isNobody(): boolean {
    return this.#spans === undefined;
  }

  /** @throws {KvError} `noCredentials` for nobody. */
  user(): void {
    if (this.#spans === undefined) throw new KvError("noCredentials");
  }

  /** @throws {KvError} `noCredentials`, `permissionDenied`. */
  keys(access: Access, span: Span): void {
    this.user();
    if (!this.#spans![access].covers(span)) throw new KvError("permissionDenied");
  }

  /** What takes the whole store. @throws {KvError} `noCredentials`, `permissionDenied`. */
  refuse(): never {
    this.user();
    throw new KvError("permissionDenied");
  }

  /** Whether it may do `access` to every key. */
  hasAll(access: Access): boolean {
    return this.#spans?.[access].covers(EVERYTHING) === true;
  }
}

const EVERYTHING: Span = ["\0", undefined];

/** Rights of the callers without any. */
const NOBODYS = new Rights("", undefined);

/** Rights of workers on their own behalf. */
const SYSTEMS = systemRights();

function systemRights(): Rights {
  const prefix = encoder.encode(SYSTEM_KEYS);
  const own = new KeySpans([spanOf(prefix, prefixRange(prefix))]);
  return new Rights("system", { read: own, write: own }, true);
}

/** Rights by the principals that travel with calls. */
export class RightsTable {
  readonly #known = new RecentMap<string, { readonly rights: Rights | undefined }>(REMEMBERED_PRINCIPALS);

  /** The rights of a call's principal; undefined when it is not restricted. A principal that cannot be read is nobody. */
  of(header: { get(name: string): string | null }): Rights | undefined {
    const encoded = header.get(PRINCIPAL_METADATA);
    if (encoded === null) return undefined;
    let found = this.#known.get(encoded);
    if (found === undefined) {
      found = { rights: readRights(header) };
      this.#known.set(encoded, found);
    }
    return found.rights;
  }
}

function readRights(header: { get(name: string): string | null }): Rights | undefined {
  try {
    return rightsOf(principalOf(header));
  } catch {
    return NOBODYS;
  }
}

/** The rights of a principal; undefined when it is not restricted. */
export function rightsOf(principal: Principal | undefined): Rights | undefined {
  if (isAdmin(principal)) return undefined;
  const { kind, username, grants } = principal!;
  if (kind === Principal_Kind.ANONYMOUS || kind === Principal_Kind.UNSPECIFIED) return NOBODYS;
  if (kind === Principal_Kind.SYSTEM) return SYSTEMS;
  const own = grants.filter(({ service }) => service === SERVICE || service === "*");
  const span = ({ prefix }: { prefix: string }) => {
    const bytes = encoder.encode(prefix);
    return spanOf(bytes, prefixRange(bytes));
  };
  return new Rights(username, {
    read: new KeySpans(own.map(span)),
    write: new KeySpans(own.filter(({ write }) => write).map(span)),
  });
}
