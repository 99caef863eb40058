/** etcdserverpb.Maintenance and Cluster on the wire. Which answers have a header, and what is in it, is as etcd has it. */
import {
  type AlarmMember,
  AlarmRequest_AlarmAction,
  type AlarmResponse,
  AlarmType,
  type Cluster,
  type DefragmentResponse,
  DowngradeRequest_DowngradeAction,
  type DowngradeResponse,
  type HashKVResponse,
  type HashResponse,
  type Maintenance as MaintenanceService,
  type Member,
  type MemberListResponse,
  type MemberUpdateResponse,
  type MoveLeaderResponse,
  type ResponseHeader,
  type SnapshotResponse,
  type StatusResponse,
} from "$proto/etcdserverpb/rpc_pb.ts";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { Alarm, Alarms } from "./alarms.ts";
import { ETCD_VERSION, type Maintenance } from "./maintenance.ts";
import { mapped, mappedAsync, toConnectError } from "../rpc_errors.ts";
import type { KvService } from "../service.ts";

/** What the handlers work on. */
export interface MaintenanceHandlerDeps {
  readonly service: KvService;
  readonly alarms: Alarms;
  readonly maintenance: Maintenance;
  /** Makes an answer's header for a revision. */
  readonly header: (revision: number) => ResponseHeader;
}

/** The implementation of Maintenance. */
export function createMaintenanceHandlers(
  deps: MaintenanceHandlerDeps,
): ServiceImpl<typeof MaintenanceService> {
  const { service, alarms, maintenance, header } = deps;
  return {
    alarm: (request): Promise<AlarmResponse> =>
      mappedAsync(async () => ({
        $typeName: "etcdserverpb.AlarmResponse",
        header: undefined,
        alarms:
          (await act(service, alarms, request.action, { memberId: request.memberID, kind: request.alarm }))
            .map(alarmMessage),
      })),
    status: (): StatusResponse => statusMessage(maintenance, header),
    defragment: (): Promise<DefragmentResponse> =>
      mappedAsync(async () => {
        await maintenance.defragment();
        return { $typeName: "etcdserverpb.DefragmentResponse", header: undefined };
      }),
    hash: (): Promise<HashResponse> =>
      mappedAsync(async () => {
        const { hash, revision } = await maintenance.hash();
        return { $typeName: "etcdserverpb.HashResponse", header: header(revision), hash };
      }),
    hashKV: (request): Promise<HashKVResponse> =>
      mappedAsync(async () => {
        const { hash, revision, hashRevision, compactRevision } = await maintenance.hashKeys(
          Number(request.revision),
        );
        return {
          $typeName: "etcdserverpb.HashKVResponse",
          header: header(revision),
          hash,
          compactRevision: BigInt(compactRevision),
          hashRevision: BigInt(hashRevision),
        };
      }),
    snapshot: (_request, context) => snapshot(maintenance, context.signal),
    moveLeader: (request): MoveLeaderResponse =>
      mapped(() => {
        maintenance.moveLeader(request.targetID);
        return { $typeName: "etcdserverpb.MoveLeaderResponse", header: undefined };
      }),
    downgrade: ({ action, version }): Promise<DowngradeResponse> =>
      mappedAsync(async () => ({
        $typeName: "etcdserverpb.DowngradeResponse",
        version: await downgrade(maintenance, action, version),
        header: header(service.revision),
      })),
  };
}

/** The implementation of Cluster. */
export function createClusterHandlers(deps: MaintenanceHandlerDeps): ServiceImpl<typeof Cluster> {
  const { maintenance, header } = deps;
  const members = (): Member[] => {
    const { id, name, clientUrls } = maintenance.member;
    return [{
      $typeName: "etcdserverpb.Member",
      ID: id,
      name,
      peerURLs: [],
      clientURLs: [...clientUrls],
      isLearner: false,
    }];
  };
  return {
    memberAdd: ({ peerURLs }) => mapped(() => maintenance.addMember(peerURLs)),
    memberRemove: ({ ID }) => mapped(() => maintenance.removeMember(ID)),
    memberUpdate: ({ ID, peerURLs }): MemberUpdateResponse =>
      mapped(() => {
        maintenance.updateMember(ID, peerURLs);
        return { $typeName: "etcdserverpb.MemberUpdateResponse", header: header(0), members: members() };
      }),
    memberList: (): MemberListResponse => ({
      $typeName: "etcdserverpb.MemberListResponse",
      header: header(0),
      members: members(),
    }),
    memberPromote: ({ ID }) => mapped(() => maintenance.promoteMember(ID)),
  };
}

/** Alarms that an action concerns. To deactivate neither a member's nor a kind of alarm is to deactivate all. */
/** Alarms that are told are durable, or a crash could take back what was told. */
async function act(
  service: KvService,
  alarms: Alarms,
  action: AlarmRequest_AlarmAction,
  alarm: Alarm,
): Promise<Alarm[]> {
  switch (action) {
    case AlarmRequest_AlarmAction.GET: {
      const told = alarms.list(alarm.kind);
      await service.settled();
      return told;
    }
    case AlarmRequest_AlarmAction.ACTIVATE:
      await alarms.activate(alarm);
      return [alarm];
    case AlarmRequest_AlarmAction.DEACTIVATE: {
      const wanted = alarm.memberId === 0n && alarm.kind === AlarmType.NONE ? alarms.list(0) : [alarm];
      const ended: Alarm[] = [];
      for (const each of wanted) if (await alarms.deactivate(each)) ended.push(each);
      return ended;
    }
    default:
      throw new ConnectError("kv: unknown alarm action", Code.InvalidArgument);
  }
}

function downgrade(
  maintenance: Maintenance,
  action: DowngradeRequest_DowngradeAction,
  version: string,
): string | Promise<string> {
  switch (action) {
    case DowngradeRequest_DowngradeAction.VALIDATE:
      return maintenance.validateDowngrade(version);
    case DowngradeRequest_DowngradeAction.ENABLE:
      return maintenance.enableDowngrade(version);
    case DowngradeRequest_DowngradeAction.CANCEL:
      return maintenance.cancelDowngrade();
    default:
      throw new ConnectError("kv: unknown downgrade action", Code.InvalidArgument);
  }
}

async function* snapshot(
  maintenance: Maintenance,
  signal: AbortSignal,
): AsyncGenerator<SnapshotResponse, void, void> {
  try {
    for await (const { bytes, remaining } of maintenance.backup(signal)) {
      yield {
        $typeName: "etcdserverpb.SnapshotResponse",
        header: undefined,
        remainingBytes: BigInt(remaining),
        blob: bytes,
        version: ETCD_VERSION,
      };
    }
  } catch (error) {
    throw toConnectError(error);
  }
}

function statusMessage(
  maintenance: Maintenance,
  header: (revision: number) => ResponseHeader,
): StatusResponse {
  const report = maintenance.status();
  const { downgradeTarget } = report;
  const top = header(report.revision);
  const errors = report.alarms.map(alarmText);
  if (report.failure !== undefined) errors.push(report.failure);
  return {
    $typeName: "etcdserverpb.StatusResponse",
    header: top,
    version: report.version,
    dbSize: BigInt(report.size),
    leader: maintenance.member.id,
    raftIndex: BigInt(report.index),
    raftTerm: top.raftTerm,
    raftAppliedIndex: BigInt(report.index),
    errors,
    dbSizeInUse: BigInt(report.sizeInUse),
    isLearner: false,
    storageVersion: "",
    dbSizeQuota: BigInt(report.quota),
    downgradeInfo: downgradeTarget === undefined ? undefined : {
      $typeName: "etcdserverpb.DowngradeInfo",
      enabled: true,
      targetVersion: downgradeTarget,
    },
  };
}

function alarmMessage({ memberId, kind }: Alarm): AlarmMember {
  return { $typeName: "etcdserverpb.AlarmMember", memberID: memberId, alarm: kind };
}

/** As etcd writes an alarm in words. */
function alarmText({ memberId, kind }: Alarm): string {
  const member = memberId === 0n ? "" : `memberID:${memberId} `;
  return `${member}${kind === 0 ? "" : `alarm:${AlarmType[kind] ?? kind} `}`;
}
