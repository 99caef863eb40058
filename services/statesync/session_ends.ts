/** Follows the ends of sessions: locks end with the session that they were acquired in. */
import { SessionEventType, type SessionService } from "$proto/aetherflow/session/v1/session_pb.ts";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { StatesyncService } from "./service.ts";

/** What it needs. */
export interface SessionEndsDeps {
  readonly sessions: Client<typeof SessionService>;
  readonly service: Pick<StatesyncService, "endSession" | "sessionsWithLocks">;
  /** Resolves after a while, earlier when the signal aborts. */
  readonly pause: (signal: AbortSignal) => Promise<void>;
  readonly log: { debug(text: string, fields?: Record<string, unknown>): void };
}

/** Follows them until the signal aborts: from the event after the last one seen, or where those are not kept any more, by asking
 *  for each session that holds locks. */
export async function followSessionEnds(deps: SessionEndsDeps, signal: AbortSignal): Promise<void> {
  let next = 0n;
  while (!signal.aborted) {
    try {
      for await (const event of deps.sessions.watchSessions({ startOffset: next }, { signal })) {
        // The first message has no session; behind it nothing is missed.
        if (event.session === undefined && next === 0n) await endThoseThatAreGone(deps, signal);
        next = event.offset + 1n;
        const isEnd = event.type === SessionEventType.ENDED || event.type === SessionEventType.EXPIRED;
        if (isEnd && event.session !== undefined) await deps.service.endSession(event.session.sessionId);
      }
    } catch (error) {
      if (signal.aborted) return;
      deps.log.debug("sessions cannot be followed", { error });
      if (ConnectError.from(error).code === Code.OutOfRange) {
        next = 0n;
        continue;
      }
    }
    await deps.pause(signal);
  }
}

async function endThoseThatAreGone(
  { sessions, service }: SessionEndsDeps,
  signal: AbortSignal,
): Promise<void> {
  for (const sessionId of service.sessionsWithLocks()) {
    try {
      await sessions.getSession({ sessionId }, { signal });
    } catch (error) {
      const { code } = ConnectError.from(error);
      if (code === Code.NotFound) await service.endSession(sessionId);
      // A lock may name what is no session of ours: it ends by its time.
      else if (code !== Code.InvalidArgument) throw error;
    }
  }
}
