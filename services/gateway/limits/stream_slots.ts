/** Places for streams of the HTTP port, whatever protocol they speak. */
import { GatewayError } from "../problem.ts";
import type { Slots } from "./slots.ts";

/** What a client is told while the gateway goes. */
export const DRAINING = "the gateway is draining";

/** Takes a place for a stream, which gives it back with `slots.leave()`.
 *  @throws {GatewayError} `unavailable` during a drain, `too_many_streams` when all are taken. */
export function takeStreamSlot(slots: Slots, isDraining: boolean): void {
  if (isDraining) throw new GatewayError("unavailable", DRAINING);
  if (slots.tryEnter()) return;
  throw new GatewayError(
    "too_many_streams",
    `${slots.max} streams are open (gateway.limits.concurrentStreams)`,
  );
}
