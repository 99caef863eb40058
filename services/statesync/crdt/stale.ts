/** What becomes of an operation that was made with an older version in view (SPEC §3). */
import { StateSyncError } from "../errors.ts";
import type { Content } from "./content.ts";
import type { Edit } from "./operation.ts";
import type { Plan } from "./plan.ts";
import type { Touch } from "./touch.ts";

/** An edit that made a version since the one that the stale operation has in view. */
export interface LaterEdit {
  /** By `content.touchOf(entry.update)`. */
  readonly touch: Touch;
  /** Clock of its operation; of other edits the time of its entry × 65,536. */
  readonly hlc: bigint;
}

/** A target that a stale operation and later edits touch. */
export interface Meeting {
  /** `<object>/<property>`, `<cell>/<property>`, `<comment>/<field>`, `index:length` of a text as it was. */
  readonly target: string;
  /** Places of the edits among the later ones, ascending. */
  readonly edits: readonly number[];
}

/** What a stale operation meets and what it can do. */
export interface Stale {
  /** Empty: it meets nothing. */
  readonly meetings: readonly Meeting[];
  /** What to do under `merge`, or when it meets nothing (SPEC §3.2); `later` decides by clocks. */
  merge(hlc: bigint): Plan;
  /** What to do under `lww` (SPEC §3.3): the targets that it loses are left out. */
  lww(
    hlc: bigint,
  ): { readonly plan: Plan; readonly lost: readonly Meeting[]; readonly won: readonly Meeting[] };
  /** What to do when somebody decides for it: everything, over what is there. */
  force(): Plan;
}

/** Looks at a stale operation beside the edits since, which are all those that made versions after the one in view, in their
 *  order.
 *  @throws {StateSyncError} as planEdit, of the content that it had in view. */
export function meetLater(_content: Content, _edit: Edit, _later: readonly LaterEdit[]): Stale {
  throw new StateSyncError("invalid");
}
