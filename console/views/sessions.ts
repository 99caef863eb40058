/** Who is connected: all sessions for administrators, one's own for everybody else. */
import { call } from "../api.ts";
import { button, el, field, table } from "../dom.ts";
import { ago, counted, time } from "../format.ts";
import { nameOfUser } from "../users.ts";
import { act, confirmed, notice, report, type Scope, throttled } from "../view.ts";

/** Sessions on a page of the list. */
const PAGE_SIZE = 50;
/** Pause between key strokes and the search, in ms. */
const SEARCH_MS = 300;

interface SessionRecord {
  readonly sessionId: string;
  readonly userId?: string;
  readonly clientIp?: string;
  readonly state?: string;
  readonly createdAt?: string;
  readonly lastActiveAt?: string;
  readonly expiresAt?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Makes the view. */
export function sessionsView({ me, setTitle, signal }: Scope): HTMLElement {
  setTitle("Sessions");
  const path = me.isAdmin ? "/api/v1/sessions" : "/api/v1/auth/sessions";
  const user = el("input", { type: "search", autocapitalize: "none", oninput: throttled(SEARCH_MS, reload) });
  const holder = el("div");
  const total = el("p", { class: "muted", role: "status" });
  const more = button("Show more", () => void act(more, () => load(next)));
  let shown: SessionRecord[] = [];
  let current = "";
  let next = "";
  let round = 0;

  function reload(): void {
    load("").catch(report);
  }

  async function load(pageToken: string): Promise<void> {
    const mine = ++round;
    const answer = await call<{
      sessions?: SessionRecord[];
      nextPageToken?: string;
      totalSize?: string;
      currentSessionId?: string;
    }>("GET", path, {
      query: { pageSize: PAGE_SIZE, pageToken, ...me.isAdmin ? { userId: user.value.trim() } : {} },
      signal,
    });
    if (mine !== round) return;
    shown = [...pageToken === "" ? [] : shown, ...answer.sessions ?? []];
    current = answer.currentSessionId ?? current;
    next = answer.nextPageToken ?? "";
    more.hidden = next === "";
    total.textContent = shown.length === 0
      ? "There are no sessions."
      : counted(Number(answer.totalSize ?? shown.length), "session");
    holder.replaceChildren(
      ...shown.length === 0
        ? []
        : [table("Sessions", ["User", "State", "From", "Opened", "Last active", "Ends", ""], shown.map(row))],
    );
  }

  function row(session: SessionRecord): HTMLTableRowElement {
    const { sessionId, userId, clientIp, state, createdAt, lastActiveAt, expiresAt, metadata } = session;
    const end = button("End", () =>
      void act(end, async () => {
        if (!await confirmed(`End the session of ${nameOfUser(userId)}?`, "End it")) return;
        await call("DELETE", `${path}/${encodeURIComponent(sessionId)}`);
        notice("The session is ended.");
        await load("");
      }), { "aria-label": `End the session ${sessionId}` });
    return el(
      "tr",
      {},
      el(
        "td",
        {},
        nameOfUser(userId),
        " ",
        sessionId === current && el("span", { class: "chip ok" }, "this one"),
      ),
      el("td", {}, (state ?? "").replace("SESSION_STATE_", "").toLowerCase()),
      el("td", { title: metadata?.user_agent }, clientIp ?? ""),
      el("td", {}, time(createdAt)),
      el("td", {}, ago(lastActiveAt)),
      el("td", {}, time(expiresAt)),
      el("td", {}, end),
    );
  }

  more.hidden = true;
  reload();
  return el(
    "div",
    { class: "page" },
    el("div", { class: "row between" }, el("h1", {}, "Sessions"), button("Reload", reload)),
    me.isAdmin && el("div", { class: "filters" }, field("User id", user)),
    total,
    holder,
    more,
  );
}
