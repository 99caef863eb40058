/** The line that says whether everything is saved: on the server's disk, as the server has acknowledged. */
import { el, say, set } from "../dom.ts";
import type { SyncState } from "../sync_client.ts";

/** How long a state must last until it is spoken of, in ms: while one writes, it changes with every key. */
const SPEAK_AFTER_MS = 1_500;

/** What the line can say. */
const WORDS = {
  connecting: "Connecting…",
  saved: "Saved",
  saving: "Saving…",
  offline: "Offline",
  kept: "Offline, kept here",
  refused: "Not taken",
  denied: "Not connected",
} as const;

/** The line, and what shows a state on it. */
export function saveLine(): { readonly element: HTMLElement; show(state: SyncState): void } {
  const text = el("span", { class: "save-text" });
  const spoken = el("span", { class: "unseen", role: "status", "aria-live": "polite" });
  const element = el("span", { class: "save-line", "data-state": "connecting" }, text, spoken);
  let timer: ReturnType<typeof setTimeout> | undefined;

  return {
    element,
    show(state) {
      const name = nameOf(state);
      set(element, { "data-state": name });
      say(text, WORDS[name]);
      clearTimeout(timer);
      timer = setTimeout(() => say(spoken, WORDS[name]), SPEAK_AFTER_MS);
    },
  };
}

function nameOf({ denied, isOnline, isLoaded, isUnsaved, isRefused }: SyncState): keyof typeof WORDS {
  if (denied !== undefined) return "denied";
  if (!isOnline) return isUnsaved ? "kept" : isLoaded ? "offline" : "connecting";
  if (isRefused) return "refused";
  return isUnsaved ? "saving" : "saved";
}
