/** `aetherflow session …`: who is connected. */
import { complain, printLine } from "../output.ts";
import { attempt, type AuthOptions, pages, usageError, withApi } from "./client.ts";

/** A session, as the server tells of one. */
interface Session {
  readonly sessionId: string;
  readonly userId: string;
  readonly clientIp?: string;
  readonly state?: string;
  readonly createdAt?: string;
  readonly lastActiveAt?: string;
  readonly expiresAt?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Which sessions. */
export interface ListOptions extends AuthOptions {
  /** User id. */
  readonly of?: string;
  readonly mine?: boolean;
}

/** Prints sessions, oldest first. */
export function list(options: ListOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      if (options.mine && options.of !== undefined) throw usageError("either --mine or --of is expected");
      const of = options.of === undefined ? "" : `&userId=${encodeURIComponent(options.of)}`;
      const path = options.mine
        ? "/api/v1/auth/sessions?pageSize=1000"
        : `/api/v1/sessions?pageSize=1000${of}`;
      for await (const session of pages<Session>(api, path, "sessions")) {
        if (options.json) printLine(JSON.stringify(session));
        else {printLine(
            [session.sessionId, session.userId, stateOf(session), session.clientIp ?? ""].join("\t"),
          );}
      }
    })
  );
}

/** Prints one session. */
export function show(sessionId: string, options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { session } = await api.call<{ session: Session }>("GET", pathOf(sessionId));
      if (options.json) return printLine(JSON.stringify(session));
      printLine(`id\t${session.sessionId}`);
      printLine(`user\t${session.userId}`);
      printLine(`state\t${stateOf(session)}`);
      printLine(`client\t${session.clientIp ?? ""}`);
      printLine(`created\t${session.createdAt ?? ""}`);
      printLine(`last active\t${session.lastActiveAt ?? ""}`);
      printLine(`expires\t${session.expiresAt ?? ""}`);
      for (const [name, value] of Object.entries(session.metadata ?? {})) {
        printLine(`metadata\t${name}=${value}`);
      }
    })
  );
}

/** Ends a session. One that is not there is no error. */
export function end(sessionId: string, options: AuthOptions & { readonly reason?: string }): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const reason = options.reason === undefined ? "" : `?reason=${encodeURIComponent(options.reason)}`;
      const { deleted = false } = await api.call<{ deleted?: boolean }>("DELETE", pathOf(sessionId) + reason);
      if (options.json) printLine(JSON.stringify({ deleted }));
      else if (!deleted) complain(`there was no session ${sessionId}`);
    })
  );
}

/** Prints how many sessions there are. */
export function count(options: AuthOptions): Promise<number> {
  return attempt(() =>
    withApi(options, async (api) => {
      const { total = "0", byState = {} } = await api.call<
        { total?: string; byState?: Record<string, string> }
      >(
        "GET",
        "/api/v1/sessions:count",
      );
      if (options.json) {
        const states = Object.entries(byState).map(([state, count]) => [state, Number(count)]);
        return printLine(JSON.stringify({ total: Number(total), byState: Object.fromEntries(states) }));
      }
      printLine(total);
      for (const [state, count] of Object.entries(byState)) printLine(`${state}\t${count}`);
    })
  );
}

function pathOf(sessionId: string): string {
  return `/api/v1/sessions/${encodeURIComponent(sessionId)}`;
}

function stateOf({ state = "" }: Session): string {
  return state.replace(/^SESSION_STATE_/, "").toLowerCase();
}
