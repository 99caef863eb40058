/** Who has a document open: told by each client of itself, so that nothing of it is taken for granted. */
import type { Awareness } from "y-protocols/awareness";
import { asRecord } from "../unknown_value.ts";
import { learnIfUnknown } from "../users.ts";
import type { Me } from "../view.ts";

/** One client of a document. */
export interface Person {
  readonly clientId: number;
  readonly name: string;
  /** `#rrggbb` */
  readonly color: string;
  readonly isMe: boolean;
  /** What it says besides: cursors. */
  readonly state: Readonly<Record<string, unknown>>;
}

/** Colours that names and cursors have; each is legible under white. */
const COLORS = [
  "#c2410c",
  "#a16207",
  "#4d7c0f",
  "#047857",
  "#0e7490",
  "#1d4ed8",
  "#6d28d9",
  "#a21caf",
  "#be123c",
  "#475569",
] as const;

/** Longest name that is shown, in characters. */
const NAME_CHARS_MAX = 40;
/** People that are shown at once: a document may be open in hundreds of browsers. */
export const PEOPLE_MAX = 50;

/** Says who we are. */
export function introduce(awareness: Awareness, me: Me): void {
  const color = COLORS[hashOf(me.isDeveloper ? String(awareness.clientID) : me.userId) % COLORS.length]!;
  // As other clients of Yjs have it.
  awareness.setLocalStateField("user", { id: me.userId, name: me.name, color, colorLight: `${color}33` });
}

/** Who is there, we first, then by name; at most `PEOPLE_MAX`. */
export function peopleOf(awareness: Awareness): Person[] {
  const people: Person[] = [];
  for (const [clientId, state] of awareness.getStates()) {
    const { id, name, color } = asRecord(state.user);
    if (typeof id === "string" && typeof name === "string") learnIfUnknown(id, name.slice(0, NAME_CHARS_MAX));
    people.push({
      clientId,
      name: (typeof name === "string" ? name.trim() : "").slice(0, NAME_CHARS_MAX) || "Somebody",
      color: typeof color === "string" && /^#[0-9a-f]{6}$/i.test(color)
        ? color
        : COLORS[clientId % COLORS.length]!,
      isMe: clientId === awareness.clientID,
      state,
    });
  }
  people.sort((a, b) =>
    Number(b.isMe) - Number(a.isMe) || a.name.localeCompare(b.name) || a.clientId - b.clientId
  );
  return people.slice(0, PEOPLE_MAX);
}

/** First letters of a name, for a round picture. */
export function initialsOf(name: string): string {
  const words = name.split(/[\s._@-]+/).filter((word) => word !== "");
  const letters = words.length > 1 ? [words[0]!, words.at(-1)!] : [name];
  return letters.map((word) => [...word][0] ?? "").join("").toUpperCase();
}

function hashOf(text: string): number {
  let hash = 0;
  for (let i = 0; i < text.length; i++) hash = (hash * 31 + text.charCodeAt(i)) >>> 0;
  return hash;
}
