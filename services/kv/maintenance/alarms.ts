/** Alarms: trouble that somebody has to look at before it ends, kept over restarts.
 *
 *                write does not fit into the quota                    Alarm DEACTIVATE
 *      none ───────────────────────────────────────► NOSPACE ──────────────────────────► none
 *
 *  While NOSPACE stands, puts and new leases are refused, even when there is room again: deletes, compaction and
 *  everything that reads go on. CORRUPT, which operators raise, refuses every write. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AlarmMemberSchema } from "$proto/etcdserverpb/rpc_pb.ts";
import { KvError } from "../errors.ts";
import type { EntryOwner, KvService, WriteGuard } from "../service.ts";

/** Kinds of alarms, with the numbers of the wire. Others are kept and listed, but stop nothing. */
export const ALARM_NO_SPACE = 1;
export const ALARM_CORRUPT = 2;

/** One alarm of one member. */
export interface Alarm {
  readonly memberId: bigint;
  readonly kind: number;
}

/** Where alarms are among the named entries: the name's rest says which, the value is that of etcd's file. */
const PREFIX = "alarm/";
/** Most alarms kept. There is one member with two kinds; more come only from whoever makes up member ids. */
export const ALARMS_MAX = 100;

/** The alarms of a store, and what they refuse. */
export class Alarms implements EntryOwner, WriteGuard {
  readonly #service: KvService;
  readonly #alarms = new Map<string, Alarm>();

  /** Takes the alarms the store has, and guards its writes from now on. */
  constructor(service: KvService) {
    this.#service = service;
    service.ownEntries(PREFIX, this);
    service.useGuard(this);
  }

  load(name: string, value: Uint8Array | undefined): void {
    if (value === undefined) this.#alarms.delete(name);
    else this.#alarms.set(name, decodeAlarm(value));
  }

  /** Alarms of a kind; of every kind for 0. */
  list(kind: number): Alarm[] {
    return [...this.#alarms.values()].filter((alarm) => kind === 0 || alarm.kind === kind);
  }

  /** Raises an alarm; resolves when that is durable. An alarm that stands stays.
   *  @throws {KvError} `tooManyRequests` when ALARMS_MAX stand. */
  async activate(alarm: Alarm): Promise<void> {
    const value = encodeAlarm(alarm);
    const name = nameOf(value);
    if (this.#alarms.has(name)) return await this.#service.settled();
    if (this.#alarms.size >= ALARMS_MAX) throw new KvError("tooManyRequests", "too many alarms");
    await this.#service.mutate((log) => log.meta(name, value), true);
  }

  /** Ends an alarm; resolves to whether it stood, when that is durable. */
  async deactivate(alarm: Alarm): Promise<boolean> {
    const name = nameOf(encodeAlarm(alarm));
    if (!this.#alarms.has(name)) {
      await this.#service.settled();
      return false;
    }
    await this.#service.mutate((log) => log.meta(name, undefined), true);
    return true;
  }

  checkWrite(): void {
    if (this.#alarms.size > 0 && this.#stands(ALARM_CORRUPT)) throw new KvError("corrupt");
  }

  get isFull(): boolean {
    return this.#alarms.size > 0 && this.#stands(ALARM_NO_SPACE);
  }

  onNoSpace(): Promise<void> {
    // A write that an alarm refused says nothing about the space: raising another would outlive the end of the first.
    if (this.#stands(ALARM_NO_SPACE)) return Promise.resolve();
    return this.activate({ memberId: this.#service.identity.memberId, kind: ALARM_NO_SPACE });
  }

  #stands(kind: number): boolean {
    for (const alarm of this.#alarms.values()) if (alarm.kind === kind) return true;
    return false;
  }
}

/** An alarm's value: the message that etcd keeps. */
function encodeAlarm({ memberId, kind }: Alarm): Uint8Array {
  return toBinary(AlarmMemberSchema, create(AlarmMemberSchema, { memberID: memberId, alarm: kind }));
}

function decodeAlarm(value: Uint8Array): Alarm {
  const { memberID, alarm } = fromBinary(AlarmMemberSchema, value);
  return { memberId: memberID, kind: alarm };
}

/** The name says no more than the value; it makes the two one. */
function nameOf(value: Uint8Array): string {
  let name = PREFIX;
  for (const byte of value) name += byte.toString(16).padStart(2, "0");
  return name;
}
