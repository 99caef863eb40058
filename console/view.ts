/** What views have in common: who looks at them, how long they live, and how they speak up. */
import { ApiError, wasLeft, wordsOf } from "./api.ts";
import { el, say } from "./dom.ts";

/** Who is signed in. */
export interface Me {
  readonly userId: string;
  readonly name: string;
  readonly isAdmin: boolean;
  /** Whether nobody signs in here: there are no users. */
  readonly isDeveloper: boolean;
}

/** What a view gets. */
export interface Scope {
  readonly me: Me;
  /** Ends when the view is left: listeners, timers, calls and streams end with it. */
  readonly signal: AbortSignal;
  setTitle(title: string): void;
  /** Leaves the view and makes it anew. */
  reopen(): void;
}

/** Makes the element of a view; `parameter` is what the address has behind the view's name. */
export type View = (scope: Scope, parameter: string) => HTMLElement | Promise<HTMLElement>;

/** Calls `action` now and `ms` after each end of it, until the signal ends, with a pause while nobody looks at the page. It
 *  ends as well when the caller may not do it. */
export function every(ms: number, signal: AbortSignal, action: () => Promise<void>): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  async function round(): Promise<void> {
    if (signal.aborted) return;
    if (!document.hidden) {
      try {
        await action();
      } catch (error) {
        report(error);
        if (error instanceof ApiError && error.status === 403) return;
      }
    }
    if (!signal.aborted) timer = setTimeout(round, ms);
  }
  signal.addEventListener("abort", () => clearTimeout(timer));
  round();
}

/** Calls `action` at most every `ms`, the last call included. */
export function throttled(ms: number, action: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let lastMs = -Infinity;
  return () => {
    if (timer !== undefined) return;
    const waitMs = Math.max(0, lastMs + ms - performance.now());
    timer = setTimeout(() => {
      timer = undefined;
      lastMs = performance.now();
      action();
    }, waitMs);
  };
}

/** How long a notice stays, in ms. */
const NOTICE_MS = 6_000;
/** Notices that are shown at once; older ones make room. */
const NOTICES_MAX = 4;

const notices = el("div", { class: "notices", role: "status", "aria-live": "polite" });
const alerts = el("div", { class: "notices", role: "alert" });

/** Where notices are shown. */
export function noticeArea(): HTMLElement {
  return el("div", { class: "notice-area" }, notices, alerts);
}

/** Tells of something that was done. */
export function notice(text: string): void {
  show(notices, text, "notice");
}

/** Tells of something that went wrong; nothing for what was left. */
export function report(error: unknown): void {
  if (wasLeft(error)) return;
  // Signing in anew is asked for where that is the matter.
  if (error instanceof ApiError && error.status === 401) return;
  show(alerts, wordsOf(error), "notice bad");
}

function show(area: HTMLElement, text: string, kind: string): void {
  const shown = [...area.children].find((child) => child.textContent === text);
  shown?.remove();
  while (area.childElementCount >= NOTICES_MAX) area.firstElementChild!.remove();
  const element = el("p", { class: kind }, text);
  area.append(element);
  setTimeout(() => element.remove(), NOTICE_MS);
}

/** Runs what a control does, with the control disabled meanwhile. Tells of what goes wrong. */
export async function act(
  control: HTMLButtonElement | HTMLElement,
  action: () => Promise<unknown>,
): Promise<void> {
  const isButton = control instanceof HTMLButtonElement;
  if (isButton) control.disabled = true;
  try {
    await action();
  } catch (error) {
    report(error);
  } finally {
    if (isButton) control.disabled = false;
  }
}

/** Asks in a dialog; resolves to whether it was confirmed. */
export function confirmed(question: string, yes: string): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog = el(
      "dialog",
      {
        "aria-label": question,
        onclose: () => {
          dialog.remove();
          resolve(dialog.returnValue === "yes");
        },
      },
      el(
        "form",
        { method: "dialog", class: "stack" },
        el("p", {}, question),
        el(
          "div",
          { class: "row end" },
          el("button", { value: "no" }, "Cancel"),
          el("button", { value: "yes", class: "primary" }, yes),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A line that says that something is loading, or that there is nothing. */
export function emptyLine(text: string): HTMLElement {
  const element = el("p", { class: "empty" });
  say(element, text);
  return element;
}
