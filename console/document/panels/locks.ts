/** Locks: who holds them, and until when. */
import { call, documentPath } from "../../api.ts";
import { button, el } from "../../dom.ts";
import { time } from "../../format.ts";
import type { LockRecord } from "../../records.ts";
import { nameOfUser } from "../../users.ts";
import { act, emptyLine, report } from "../../view.ts";
import { type Desk, mayAtLeast, type Panel } from "../desk.ts";

/** How long a lock of this page lasts, in ms. */
const TTL_MS = 300_000;
/** A lock that has run out is asked for this much later: its event may be on the way, in ms. */
const GRACE_MS = 500;

/** Makes the panel. */
export function locksPanel(desk: Desk): Panel {
  const { record, access, me, signal } = desk;
  const list = el("ul", { class: "plain stack", "aria-label": "Locks" });
  const whole = button("Lock the document", () => void act(whole, () => acquire("")));
  const part = button("Lock what is selected", () => void act(part, () => acquire(desk.selected() ?? "")));
  const isText = record.type === "text";
  const mayLock = mayAtLeast(access, "edit");
  let timer: ReturnType<typeof setTimeout> | undefined;
  signal.addEventListener("abort", () => clearTimeout(timer));

  const isMine = ({ userId }: LockRecord) => userId === me.userId || userId === me.name;
  const lockPath = (lock: LockRecord, verb = "") =>
    documentPath(record.id, `/locks/${encodeURIComponent(lock.id)}${verb}`);

  async function acquire(objectId: string): Promise<void> {
    await call("POST", documentPath(record.id, "/locks"), { body: { objectId, ttlMs: TTL_MS } });
    await refresh();
  }

  async function refresh(): Promise<void> {
    const { locks = [] } = await call<{ locks?: LockRecord[] }>("GET", documentPath(record.id, "/locks"), {
      signal,
    });
    const others = locks.filter((lock) => !isMine(lock));
    const wholeHolder = others.find(({ objectId }) => !objectId);
    desk.onLocks(
      wholeHolder && nameOfUser(wholeHolder.userId),
      new Map(others.flatMap(({ objectId, userId }) => objectId ? [[objectId, nameOfUser(userId)]] : [])),
    );
    list.replaceChildren(
      ...locks.length === 0 ? [el("li", {}, emptyLine("Nothing is locked."))] : locks.map(row),
    );
    wakeAtEnd(locks);
  }

  /** A lock that runs out sends an event; should it be lost, the page asks by itself. */
  function wakeAtEnd(locks: readonly LockRecord[]): void {
    clearTimeout(timer);
    const ends = locks.map(({ expiresAt }) => new Date(expiresAt ?? "").getTime()).filter(Number.isFinite);
    if (ends.length === 0) return;
    const waitMs = Math.max(0, Math.min(...ends) - Date.now()) + GRACE_MS;
    timer = setTimeout(() => refresh().catch(report), waitMs);
  }

  function row(lock: LockRecord): HTMLElement {
    const extend = button("Extend", () =>
      void act(extend, async () => {
        await call("POST", lockPath(lock, ":extend"), { body: { ttlMs: TTL_MS } });
        await refresh();
      }));
    const release = button("Release", () =>
      void act(release, async () => {
        await call("DELETE", lockPath(lock));
        await refresh();
      }));
    return el(
      "li",
      { class: "card stack" },
      el("p", {}, lock.objectId ? el("code", {}, lock.objectId) : "The whole document"),
      el(
        "p",
        { class: "small muted" },
        `held by ${isMine(lock) ? "you" : nameOfUser(lock.userId)} until ${time(lock.expiresAt)}`,
      ),
      el(
        "div",
        { class: "row" },
        isMine(lock) && extend,
        (isMine(lock) || mayAtLeast(access, "manage")) && release,
      ),
    );
  }

  return {
    title: "Locks",
    element: el(
      "div",
      { class: "stack" },
      mayLock && el("div", { class: "row wrap" }, whole, !isText && part),
      list,
    ),
    refresh,
    concerns: ({ type }) => type.startsWith("lock_"),
    isAlwaysFresh: true,
  };
}
