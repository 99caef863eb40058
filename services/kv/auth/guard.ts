/** The one place where calls are checked: a table from RPC to what it takes, applied to every service of the worker.
 *
 *      call ─► guard ── authentication disabled ─────────────────────► handler
 *                │
 *                └ enabled: shape of the request (as etcd, first), then who calls, then the rule ─► handler
 *
 *  A check and what it lets pass happen in one turn, so no change of users or roles comes between them. A method that the
 *  table does not know cannot be served. */
import {
  type AlarmRequest,
  AlarmRequest_AlarmAction,
  type AuthRoleGetRequest,
  type AuthUserGetRequest,
  type DeleteRangeRequest,
  type LeaseKeepAliveRequest,
  type LeaseRevokeRequest,
  type LeaseTimeToLiveRequest,
  type PutRequest,
  type RangeRequest,
  type TxnRequest,
} from "$proto/etcdserverpb/rpc_pb.ts";
import type {
  CampaignRequest,
  LeaderRequest,
  ProclaimRequest,
  ResignRequest,
} from "$proto/v3electionpb/v3election_pb.ts";
import type { LockRequest, UnlockRequest } from "$proto/v3lockpb/v3lock_pb.ts";
import type { DescService } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Caller } from "../api.ts";
import type { Access, AuthStore } from "./auth.ts";
import { KvError } from "../errors.ts";
import { type KeyRange, prefixRange, rangeOf } from "../key.ts";
import { FIRST_NAME, isFromFirst, isOwnName, namesOwn } from "./own_names.ts";
import { spanOf } from "./permissions.ts";
import { type Rights, RightsTable } from "./rights.ts";
import { toDelete, toPut, toRange, toTxn } from "../rpc.ts";
import { mapped } from "../rpc_errors.ts";
import type { Tokens } from "./tokens.ts";
import {
  checkPut,
  checkRange,
  checkTxn,
  type Compare,
  type DeleteOp,
  type Op,
  type PutOp,
  type Txn,
} from "../txn.ts";

/** A caller without credentials. */
export const NOBODY: GuardedCaller = { user: undefined };

/** A caller, and what the principal of its call restricts it to. */
export interface GuardedCaller extends Caller {
  readonly rights?: Rights | undefined;
  /** Who it is to the store, where that is not the caller itself. */
  readonly store?: Caller;
}

/** Which keys are attached to which lease. */
export interface LeaseKeys {
  /** Keys of a lease; none when there is no such lease, undefined when they are not known. */
  keysOf(id: bigint): readonly Uint8Array[] | undefined;
  ids(): readonly bigint[];
}

/** What the guard asks. */
export interface GuardDeps {
  readonly auth: AuthStore;
  readonly tokens: Tokens;
  readonly leases: LeaseKeys;
}

/** Part of a call that says who calls. */
export interface Call {
  readonly requestHeader: Headers;
}

/** Checks callers. */
export class Guard {
  readonly auth: AuthStore;
  readonly tokens: Tokens;
  readonly leases: LeaseKeys;
  /** What the principals of calls may do. */
  readonly rights = new RightsTable();

  constructor({ auth, tokens, leases }: GuardDeps) {
    this.auth = auth;
    this.tokens = tokens;
    this.leases = leases;
  }

  /** Who the metadata of a call says the caller is. A token of the store is not read while the store has no
   *  authentication, nor for a principal with rights of its own.
   *  @throws {KvError} `invalidAuthToken`. */
  callerOf(call: Call): GuardedCaller {
    const rights = this.rights.of(call.requestHeader);
    if (rights === undefined) return this.#storeCallerOf(call);
    const store = rights.isNobody ? this.#storeCallerOf(call) : NOBODY;
    return { user: store.user, rights, store };
  }

  #storeCallerOf(call: Call): Caller {
    if (!this.auth.isEnabled) return NOBODY;
    const token = call.requestHeader.get("token") ?? call.requestHeader.get("authorization");
    if (token === null) return NOBODY;
    const credential = this.tokens.find(token.replace(BEARER, ""));
    if (credential === undefined) throw new KvError("invalidAuthToken");
    return credential;
  }

  /** What a caller may do; of a call, who that is is looked up once, when it first matters. A stream has one permit from its
   *  beginning to its end: a token need not be used to stay good for it. */
  permitOf(source: GuardedCaller | Call): Permit {
    return new Permit(this, source);
  }

  /** The implementation of a service with every method checked.
   *  @throws {RangeError} if a method is not in the table. */
  wrap<S extends DescService>(service: S, impl: Partial<ServiceImpl<S>>): Partial<ServiceImpl<S>> {
    const handlers = impl as Record<string, Handler | undefined>;
    const checked: Record<string, Handler> = {};
    for (const method of service.methods) {
      const path = `${service.typeName}/${method.name}`;
      const rule = RULES[path];
      if (rule === undefined) throw new RangeError(`Cannot serve ${path}: no rule says who may call it`);
      const handler = handlers[method.localName]?.bind(impl);
      if (handler === undefined) continue;
      checked[method.localName] = rule === "handler" || rule === "anyone"
        ? handler
        : method.methodKind === "unary"
        ? this.#unary(rule, handler)
        : method.methodKind === "server_streaming"
        ? this.#answers(rule, handler as StreamHandler)
        : this.#requests(rule, handler as StreamHandler);
    }
    return checked as Partial<ServiceImpl<S>>;
  }

  #unary(rule: Rule, handler: Handler): Handler {
    return (request, context) => {
      const permit = this.permitOf(context);
      if (permit.isChecked) mapped(() => rule(permit, request as never));
      return handler(request, context);
    };
  }

  /** Checks at the start, and before each answer after users or roles changed. */
  #answers(rule: Rule, handler: StreamHandler): Handler {
    return (request, context) => {
      const permit = this.permitOf(context);
      if (!permit.isChecked) return handler(request, context);
      const check = () => mapped(() => rule(permit, request as never));
      check();
      return this.#watched(check, handler(request, context));
    };
  }

  async *#watched(check: () => void, answers: AsyncIterable<unknown>) {
    let revision = this.auth.revision;
    for await (const answer of answers) {
      if (this.auth.revision !== revision) {
        check();
        revision = this.auth.revision;
      }
      yield answer;
    }
  }

  /** Checks each request of a stream. */
  #requests(rule: Rule, handler: StreamHandler): Handler {
    return (requests, context) =>
      handler(this.#checkedRequests(rule, requests as AsyncIterable<unknown>, context), context);
  }

  async *#checkedRequests(rule: Rule, requests: AsyncIterable<unknown>, context: HandlerContext) {
    const permit = this.permitOf(context);
    for await (const request of requests) {
      if (permit.isChecked) mapped(() => rule(permit, request as never));
      yield request;
    }
  }
}

const BEARER = /^bearer +/i;

/** Codes as Go writes them, of what a check says. */
const GO_CODES: Readonly<Partial<Record<KvError["code"], string>>> = {
  invalid_argument: "InvalidArgument",
  unauthenticated: "Unauthenticated",
};

/** One caller's rights. Who that is, is looked up when it first matters: etcd looks at the shape of requests before. */
export class Permit {
  #caller: GuardedCaller | undefined;

  constructor(readonly guard: Guard, readonly source: GuardedCaller | Call) {}

  get caller(): GuardedCaller {
    return this.#caller ??= "requestHeader" in this.source ? this.guard.callerOf(this.source) : this.source;
  }

  get #storeCaller(): Caller {
    const { caller } = this;
    return caller.store ?? caller;
  }

  /** Whether anything is checked at all: the store has users, or the principal is restricted. */
  get isChecked(): boolean {
    return this.guard.auth.isEnabled || this.#principalRights !== undefined;
  }

  /** What decides in place of the store's users; undefined when these do. Nobody may be one of them. */
  get rights(): Rights | undefined {
    const rights = this.#principalRights;
    return rights?.isNobody === true && this.guard.auth.isEnabled ? undefined : rights;
  }

  get #principalRights(): Rights | undefined {
    if (this.#isRead) return this.#known;
    this.#isRead = true;
    const { source } = this;
    return this.#known = "requestHeader" in source
      ? this.guard.rights.of(source.requestHeader)
      : source.rights;
  }
  #known: Rights | undefined;
  #isRead = false;

  /** @throws {KvError} `userEmpty`, `invalidAuthToken`; of a restricted principal `noCredentials`. */
  user(): void {
    const { rights } = this;
    if (rights === undefined) this.guard.auth.checkUser(this.#storeCaller);
    else rights.user();
  }

  /** This and what follows: @throws {KvError} `userEmpty`, `invalidAuthToken`, `permissionDenied`, `noCredentials`. */
  root(): void {
    const { rights } = this;
    if (rights === undefined) this.guard.auth.checkRoot(this.#storeCaller);
    else rights.refuse();
  }

  /** Whether it may do everything. */
  get isRoot(): boolean {
    return this.rights === undefined && this.guard.auth.isRoot(this.#storeCaller);
  }

  keys(access: Access, key: Uint8Array, range: KeyRange | "single"): void {
    const { rights } = this;
    if (rights === undefined) this.guard.auth.checkKeys(this.#storeCaller, access, key, range);
    else rights.keys(access, spanOf(key, range));
    if (namesOwn(key, range) && !this.#meetsOwn) throw new KvError("permissionDenied");
  }

  /** Whether the product's own keys are the caller's to use. */
  get #meetsOwn(): boolean {
    return this.rights?.isSystem ?? this.isRoot;
  }

  /** The range as the caller sees it: one of everything begins after the product's own keys. */
  seen(range: KeyRange | "single"): KeyRange | "single" {
    if (range === "single" || !isFromFirst(range) || this.#meetsOwn) return range;
    return { start: FIRST_NAME, end: range.end };
  }

  /** The same of a request, in place. */
  narrow(request: { key: Uint8Array; readonly rangeEnd: Uint8Array }): void {
    const range = rangeOf(request.key, request.rangeEnd);
    if (range !== "single" && this.seen(range) !== range) request.key = FIRST_NAME;
  }

  /** As etcd: whoever adds a key to a lease could not revoke it without the right to write all its keys. */
  put(op: Pick<PutOp, "key" | "lease" | "prevKv">): void {
    this.keys("write", op.key, "single");
    if (op.lease !== 0n) this.leased("write", op.lease);
    if (op.prevKv) this.keys("read", op.key, "single");
  }

  delete(op: Pick<DeleteOp, "key" | "range" | "prevKv">): void {
    this.keys("write", op.key, op.range);
    if (op.prevKv) this.keys("read", op.key, op.range);
  }

  /** Everything in it, whichever branches will be chosen. */
  txn({ compares, success, failure }: Txn): void {
    // etcd lets a transaction without comparisons and operations pass, but not with a token that is none.
    if (compares.length + success.length + failure.length === 0) {
      void this.caller;
      this.rights?.user();
    }
    for (const compare of compares) this.compare(compare);
    for (const op of success) this.#op(op);
    for (const op of failure) this.#op(op);
  }

  compare({ key, range }: Pick<Compare, "key" | "range">): void {
    this.keys("read", key, range);
  }

  #op(op: Op | undefined): void {
    if (op === undefined) return;
    if (op.kind === "txn") this.txn(op.txn);
    else if (op.kind === "put") this.put(op);
    else if (op.kind === "delete") this.delete(op);
    else this.keys("read", op.query.key, op.query.range);
  }

  /** Access to every key that is attached to a lease. */
  leased(access: Access, lease: bigint): void {
    if (this.isRoot) return;
    const keys = this.guard.leases.keysOf(lease);
    if (keys === undefined && this.rights?.hasAll(access) !== true) throw new KvError("permissionDenied");
    for (const key of keys ?? []) this.keys(access, key, "single");
  }

  /** Reading every key that is attached to any lease, but for the product's own. */
  allLeased(): void {
    if (this.isRoot || this.rights?.hasAll("read") === true) return;
    const { leases } = this.guard;
    for (const id of leases.ids()) {
      const keys = leases.keysOf(id);
      if (keys === undefined) throw new KvError("permissionDenied");
      for (const key of keys) if (!isOwnName(key)) this.keys("read", key, "single");
    }
  }

  /** Reading every key of a range as it changes. The empty key stands for the first one. */
  watch(key: Uint8Array, range: KeyRange | "single"): void {
    this.keys("read", key.length === 0 ? FIRST_KEY : key, range);
  }

  /** Why a watch may not be created, as etcd says it in `cancel_reason`; undefined when it may. */
  watchRefusal(key: Uint8Array, range: KeyRange | "single"): string | undefined {
    if (!this.isChecked) return undefined;
    try {
      this.watch(key, range);
      return undefined;
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      return `rpc error: code = ${GO_CODES[error.code] ?? "PermissionDenied"} desc = ${error.message}`;
    }
  }

  /** @throws {KvError} as `root`, for whoever does not have the role. */
  role(name: string): void {
    const { rights } = this;
    if (rights === undefined) this.guard.auth.checkRole(this.#storeCaller, name);
    else rights.refuse();
  }
}

const FIRST_KEY = new Uint8Array(1);

type Handler = (request: unknown, context: HandlerContext) => unknown;
type StreamHandler = (request: unknown, context: HandlerContext) => AsyncIterable<unknown>;

/** What a call takes; throws if the caller may not. Of a stream of requests it is asked for each one. */
type Rule = (permit: Permit, request: never) => void;

const user: Rule = (permit) => permit.user();
const root: Rule = (permit) => permit.root();
/** About the store as a whole: for any of its own users, and of the product's for administrators. */
const operator: Rule = (permit) => permit.rights === undefined ? permit.user() : permit.root();
/** As `user`, with the outcome that is a 401 over HTTP. */
const client: Rule = (permit) => {
  if (permit.rights === undefined && permit.caller.user === undefined) throw new KvError("noCredentials");
  permit.user();
};

/** Every RPC that the worker can serve. "anyone": needs no rights. "handler": its handler asks for each request or
 *  command what the rest asks here, because the answer is not an error of the call. */
const RULES: Readonly<Record<string, Rule | "anyone" | "handler">> = {
  "etcdserverpb.KV/Range": range,
  "etcdserverpb.KV/RangeStream": range,
  "etcdserverpb.KV/Put": put,
  "etcdserverpb.KV/DeleteRange": (permit, request: DeleteRangeRequest) => {
    const op = toDelete(request);
    if (op.key.length === 0) throw new KvError("emptyKey");
    permit.delete(op);
    permit.narrow(request);
  },
  "etcdserverpb.KV/Txn": (permit, request: TxnRequest) => {
    const txn = toTxn(request);
    checkTxn(txn);
    permit.txn(txn);
    narrowTxn(permit, request);
  },
  // It takes history from everybody. etcd before 3.4.42 lets anyone.
  "etcdserverpb.KV/Compact": root,

  // A refusal is an answer to the watch's creation: Permit.watchRefusal.
  "etcdserverpb.Watch/Watch": "handler",

  "etcdserverpb.Lease/LeaseGrant": user,
  "etcdserverpb.Lease/LeaseRevoke": (permit, { ID }: LeaseRevokeRequest) => {
    permit.user();
    permit.leased("write", ID);
  },
  "etcdserverpb.Lease/LeaseKeepAlive": (permit, { ID }: LeaseKeepAliveRequest) => {
    permit.user();
    permit.leased("write", ID);
  },
  "etcdserverpb.Lease/LeaseTimeToLive": (permit, { ID, keys }: LeaseTimeToLiveRequest) => {
    permit.user();
    if (keys) permit.leased("read", ID);
  },
  "etcdserverpb.Lease/LeaseLeases": (permit) => {
    permit.user();
    permit.allLeased();
  },

  "etcdserverpb.Cluster/MemberAdd": root,
  "etcdserverpb.Cluster/MemberRemove": root,
  "etcdserverpb.Cluster/MemberUpdate": root,
  "etcdserverpb.Cluster/MemberPromote": root,
  "etcdserverpb.Cluster/MemberList": operator,

  "etcdserverpb.Maintenance/Alarm": (permit, { action }: AlarmRequest) =>
    action === AlarmRequest_AlarmAction.GET ? operator(permit, undefined as never) : permit.root(),
  "etcdserverpb.Maintenance/Status": root,
  "etcdserverpb.Maintenance/Defragment": root,
  "etcdserverpb.Maintenance/Hash": root,
  "etcdserverpb.Maintenance/HashKV": root,
  "etcdserverpb.Maintenance/Snapshot": root,
  "etcdserverpb.Maintenance/MoveLeader": root,
  "etcdserverpb.Maintenance/Downgrade": root,

  "etcdserverpb.Auth/Authenticate": "anyone",
  "etcdserverpb.Auth/AuthEnable": root,
  "etcdserverpb.Auth/AuthDisable": root,
  "etcdserverpb.Auth/AuthStatus": root,
  "etcdserverpb.Auth/UserAdd": root,
  "etcdserverpb.Auth/UserGet": (permit, { name }: AuthUserGetRequest) => {
    permit.user();
    if (permit.caller.user !== name) permit.root();
  },
  "etcdserverpb.Auth/UserList": root,
  "etcdserverpb.Auth/UserDelete": root,
  "etcdserverpb.Auth/UserChangePassword": root,
  "etcdserverpb.Auth/UserGrantRole": root,
  "etcdserverpb.Auth/UserRevokeRole": root,
  "etcdserverpb.Auth/RoleAdd": root,
  "etcdserverpb.Auth/RoleGet": (permit, { role }: AuthRoleGetRequest) => permit.role(role),
  "etcdserverpb.Auth/RoleList": root,
  "etcdserverpb.Auth/RoleDelete": root,
  "etcdserverpb.Auth/RoleGrantPermission": root,
  "etcdserverpb.Auth/RoleRevokePermission": root,

  // Locks and elections are keys under "<name>/", named after the lease; what their recipes do with those is what it takes.
  "v3lockpb.Lock/Lock": (permit, { name, lease }: LockRequest) => candidate(permit, name, lease),
  "v3lockpb.Lock/Unlock": (permit, { key }: UnlockRequest) => permit.keys("write", key, "single"),
  "v3electionpb.Election/Campaign": (permit, { name, lease }: CampaignRequest) =>
    candidate(permit, name, lease),
  "v3electionpb.Election/Proclaim": (permit, { leader }: ProclaimRequest) => {
    permit.user();
    if (leader === undefined) return;
    permit.compare({ key: leader.key, range: "single" });
    permit.put({ key: leader.key, lease: leader.lease, prevKv: false });
  },
  "v3electionpb.Election/Leader": (permit, { name }: LeaderRequest) => candidates(permit, name),
  "v3electionpb.Election/Observe": (permit, { name }: LeaderRequest) => candidates(permit, name),
  "v3electionpb.Election/Resign": (permit, { leader }: ResignRequest) => {
    permit.user();
    if (leader === undefined) return;
    permit.compare({ key: leader.key, range: "single" });
    permit.keys("write", leader.key, "single");
  },

  // What keys it takes is asked where these work through KvApi: guarded_api.ts.
  "aetherflow.kv.v1.KeyValueService/Get": client,
  "aetherflow.kv.v1.KeyValueService/Put": client,
  "aetherflow.kv.v1.KeyValueService/Delete": client,
  "aetherflow.kv.v1.KeyValueService/List": client,
  "aetherflow.kv.v1.KeyValueService/History": client,
  "aetherflow.kv.v1.KeyValueService/BatchGet": client,
  "aetherflow.kv.v1.KeyValueService/BatchPut": client,
  "aetherflow.kv.v1.KeyValueService/Txn": client,
  "aetherflow.kv.v1.KeyValueService/PutText": client,
  "aetherflow.kv.v1.KeyValueService/GetText": client,
  "aetherflow.kv.v1.KeyValueService/DeleteText": client,
  "aetherflow.kv.v1.KeyValueService/Watch": client,
  "aetherflow.kv.v1.RedisService/Serve": "handler",
};

function range(permit: Permit, request: RangeRequest): void {
  const op = toRange(request);
  checkRange(op);
  permit.keys("read", op.query.key, op.query.range);
  permit.narrow(request);
}

function narrowTxn(permit: Permit, { compare, success, failure }: TxnRequest): void {
  for (const each of compare) permit.narrow(each);
  for (const { request } of [...success, ...failure]) {
    if (request.case === "requestRange" || request.case === "requestDeleteRange") {
      permit.narrow(request.value);
    } else if (request.case === "requestTxn") narrowTxn(permit, request.value);
  }
}

function put(permit: Permit, request: PutRequest): void {
  const op = toPut(request);
  checkPut(op);
  permit.put(op);
}

const encoder = new TextEncoder();

/** Reading the candidates of a lock or election, writing one of them. */
function candidate(permit: Permit, name: Uint8Array, lease: bigint): void {
  candidates(permit, name);
  const prefix = withSlash(name);
  // Without a lease one is made, and the key is not known yet.
  if (lease === 0n) return permit.keys("write", prefix, prefixRange(prefix));
  const key = concat(prefix, encoder.encode(lease.toString(16)));
  permit.put({ key, lease, prevKv: false });
}

function candidates(permit: Permit, name: Uint8Array): void {
  const prefix = withSlash(name);
  permit.keys("read", prefix, prefixRange(prefix));
}

function withSlash(name: Uint8Array): Uint8Array {
  return concat(name, Uint8Array.of(0x2f));
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}
