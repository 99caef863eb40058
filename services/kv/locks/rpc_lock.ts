/** v3lockpb.Lock and v3electionpb.Election on the wire. */
import type { ResponseHeader } from "$proto/etcdserverpb/rpc_pb.ts";
import type {
  CampaignResponse,
  Election,
  LeaderKey,
  LeaderRequest,
  LeaderResponse,
  ProclaimResponse,
  ResignResponse,
} from "$proto/v3electionpb/v3election_pb.ts";
import type { Lock, LockResponse, UnlockResponse } from "$proto/v3lockpb/v3lock_pb.ts";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import type { KvApi, KvBackend } from "../api.ts";
import { campaign, type Leader, leaderOf, type Leadership, observe, proclaim, resign } from "./election.ts";
import { keyValueMessage } from "../key_value_message.ts";
import { KvError } from "../errors.ts";
import { lock, type SessionDeps, unlock } from "./lock.ts";
import { toConnectError } from "../rpc_errors.ts";

/** What the handlers are made of. */
export interface LockHandlersDeps extends SessionDeps {
  readonly backend: KvBackend;
  /** Makes an answer's header for a revision. */
  header(revision: number): ResponseHeader;
}

/** The implementations of the two services. */
export interface LockHandlers {
  readonly lock: ServiceImpl<typeof Lock>;
  readonly election: ServiceImpl<typeof Election>;
}

/** Makes the handlers. */
export function createLockHandlers(deps: LockHandlersDeps): LockHandlers {
  const { backend, header } = deps;

  async function as<T>(context: HandlerContext, call: (api: KvApi) => Promise<T>): Promise<T> {
    try {
      return await call(backend.as(await backend.callerOf(context)));
    } catch (error) {
      throw toRecipeError(error);
    }
  }

  return {
    lock: {
      lock: (request, context): Promise<LockResponse> =>
        as(context, async (api) => {
          const held = await lock(deps, api, request.name, request.lease, context.signal);
          return { $typeName: "v3lockpb.LockResponse", header: header(held.revision), key: held.key };
        }),
      unlock: (request, context): Promise<UnlockResponse> =>
        as(context, async (api) => ({
          $typeName: "v3lockpb.UnlockResponse",
          header: header(await unlock(api, request.key)),
        })),
    },
    election: {
      campaign: (request, context): Promise<CampaignResponse> =>
        as(context, async (api) => {
          const won = await campaign(deps, api, request, context.signal);
          return {
            $typeName: "v3electionpb.CampaignResponse",
            header: header(won.revision),
            leader: {
              $typeName: "v3electionpb.LeaderKey",
              name: request.name,
              key: won.key,
              rev: BigInt(won.rev),
              lease: won.lease,
            },
          };
        }),
      proclaim: (request, context): Promise<ProclaimResponse> =>
        as(context, async (api) => ({
          $typeName: "v3electionpb.ProclaimResponse",
          header: header(await proclaim(api, toLeadership(request.leader), request.value)),
        })),
      leader: (request, context): Promise<LeaderResponse> =>
        as(context, async (api) => leaderMessage(await leaderOf(api, request.name), header)),
      observe: (request, context) => observeMessages(deps, request, context),
      resign: (request, context): Promise<ResignResponse> =>
        as(context, async (api) => ({
          $typeName: "v3electionpb.ResignResponse",
          header: header(await resign(api, toLeadership(request.leader))),
        })),
    },
  };
}

async function* observeMessages(
  deps: LockHandlersDeps,
  { name }: LeaderRequest,
  context: HandlerContext,
): AsyncGenerator<LeaderResponse, void, void> {
  const { backend, header } = deps;
  try {
    const api = backend.as(await backend.callerOf(context));
    for await (const leader of observe(deps, api, name, context.signal)) yield leaderMessage(leader, header);
  } catch (error) {
    throw toRecipeError(error);
  }
}

/** An outcome as etcd's Lock and Election tell it: they are clients of the store themselves, and hand on the text of what
 *  it said without its code. What may succeed later keeps the code that says so. */
function toRecipeError(error: unknown): unknown {
  if (!(error instanceof KvError) || error.code === "unavailable" || error.code === "deadline_exceeded") {
    return toConnectError(error);
  }
  return new ConnectError(error.message, Code.Unknown, undefined, undefined, error);
}

function toLeadership(leader: LeaderKey | undefined): Leadership {
  if (leader === undefined) throw new KvError("missingLeaderKey");
  return { key: leader.key, rev: Number(leader.rev), lease: leader.lease };
}

function leaderMessage({ kv, revision }: Leader, header: LockHandlersDeps["header"]): LeaderResponse {
  return {
    $typeName: "v3electionpb.LeaderResponse",
    header: header(revision),
    kv: keyValueMessage(kv),
  };
}
