/** What the people of the demo do, a step at a time: functions of the document, of chance, and of nothing else. */
import type { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";
import { NOTES, SENTENCES } from "./examples.ts";

/** Somebody at work in a document. */
export interface Bot {
  /** Does the next thing. Returns how long until the one after it, in ms. */
  step(): number;
}

/** What a bot works with. */
export interface BotDeps {
  readonly doc: Y.Doc;
  readonly awareness: Awareness;
  /** Gives numbers in [0, 1). */
  chance(): number;
}

/** A text longer than this, in UTF-16 code units, loses its oldest lines: what runs for days must not grow for days. */
export const TEXT_LENGTH_MAX = 4_000;
/** As many objects as people can tell apart; then each new one takes the place of another. */
export const OBJECTS_MAX = 40;
/** Rows of the sheet that are filled. */
const SHEET_ROWS = 6;
/** Where things stand on a board. */
const BOARD = { width: 960, height: 400 } as const;
/** Length of the heading that tidying leaves alone, in lines. */
const HEADING_LINES = 3;

const FILLS = ["#fde68a", "#bbf7d0", "#bfdbfe", "#fbcfe8", "#ddd6fe", "#fed7aa"] as const;

/** Makes the bot for a type of document. */
export function createBot(type: "text" | "whiteboard" | "canvas" | "sheet", deps: BotDeps): Bot {
  switch (type) {
    case "text":
      return createWriter(deps);
    case "sheet":
      return createClerk(deps);
    default:
      return createDrawer(deps);
  }
}

/** Types sentences letter by letter, goes back now and then and writes a word again. */
function createWriter({ doc, awareness, chance }: BotDeps): Bot {
  const text = doc.getText("content");
  const pick = picker(chance);
  let rest = "";
  let at = positionAt(text.length);

  /** A place that stays behind the letter before it, so that two who write at one place do not mix their letters. */
  function positionAt(index: number): Y.RelativePosition {
    return Y.createRelativePositionFromTypeIndex(text, index, -1);
  }

  /** Where the cursor is now: others may have moved it. */
  function index(): number {
    return Y.createAbsolutePositionFromRelativePosition(at, doc)?.index ?? text.length;
  }

  function place(anchor: number, head: number): void {
    at = positionAt(head);
    awareness.setLocalStateField("cursor", { anchor: positionAt(anchor), head: at });
  }

  function type(): number {
    const letters = rest.slice(0, 1 + Math.floor(chance() * 2));
    rest = rest.slice(letters.length);
    const from = index();
    text.insert(from, letters);
    place(from + letters.length, from + letters.length);
    return rest === "" ? 800 + chance() * 2_500 : 60 + chance() * 140;
  }

  /** Opens a line of its own somewhere below the heading, so that nobody writes into the sentence of another. */
  function begin(): number {
    const string = text.toString();
    const starts = [...string.matchAll(/\n/g)].map(({ index }) => index + 1)
      .filter((index) => index >= headingLength(string));
    const start = starts.length === 0 ? text.length : pick(starts);
    text.insert(start, "\n");
    place(start, start);
    rest = pick(SENTENCES);
    return 300 + chance() * 700;
  }

  /** Takes the oldest lines below the heading away. */
  function tidy(): number {
    const kept = headingLength(text.toString());
    const end = text.toString().indexOf("\n", kept + TEXT_LENGTH_MAX / 4);
    if (kept < text.length) text.delete(kept, (end < 0 ? text.length : end + 1) - kept);
    place(Math.min(kept, text.length), Math.min(kept, text.length));
    return 1_500;
  }

  /** Selects a word; the next step takes it away, and those after it write it again. */
  let doomed: { readonly from: Y.RelativePosition; readonly length: number } | undefined;
  function select(): number {
    const string = text.toString();
    const words = [...string.matchAll(/[a-z]{4,12}/g)].filter(({ index }) => index >= headingLength(string));
    const word = words.length === 0 ? undefined : words[Math.floor(chance() * words.length)];
    if (word === undefined) return 500;
    place(word.index, word.index + word[0].length);
    doomed = { from: Y.createRelativePositionFromTypeIndex(text, word.index), length: word[0].length };
    return 900;
  }

  function replace(from: Y.RelativePosition, length: number): number {
    doomed = undefined;
    const start = Y.createAbsolutePositionFromRelativePosition(from, doc)?.index ?? text.length;
    const end = Math.min(start + length, text.length);
    rest = text.toString().slice(start, end);
    text.delete(start, end - start);
    place(start, start);
    return 400;
  }

  return {
    step() {
      if (text.length > TEXT_LENGTH_MAX) return tidy();
      if (doomed !== undefined) return replace(doomed.from, doomed.length);
      if (rest !== "") return type();
      if (chance() < 0.2) return select();
      return begin();
    },
  };
}

/** Puts notes and shapes on a board, pulls them about, colours them. */
function createDrawer({ doc, awareness, chance }: BotDeps): Bot {
  const objects = doc.getMap<unknown>("objects");
  const pick = picker(chance);
  let held: { readonly id: string; readonly toX: number; readonly toY: number; steps: number } | undefined;
  let pointer = { x: chance() * BOARD.width, y: chance() * BOARD.height };

  const numberOf = (id: string, name: string, otherwise: number) => {
    const value = objects.get(`${id}/${name}`);
    return typeof value === "number" ? value : otherwise;
  };

  function point(x: number, y: number): void {
    pointer = { x, y };
    awareness.setLocalStateField("pointer", { x: Math.round(x), y: Math.round(y) });
  }

  function ids(): string[] {
    return [...objects.keys()].filter((key) => key.endsWith("/kind")).map((key) =>
      key.slice(0, -"/kind".length)
    );
  }

  function make(count: number): number {
    const id = `demo-${doc.clientID.toString(36)}-${count.toString(36)}`;
    const x = Math.round(chance() * (BOARD.width - 140));
    const y = Math.round(chance() * (BOARD.height - 90));
    const kind = pick(["note", "note", "rectangle", "ellipse"]);
    doc.transact(() => {
      objects.set(`${id}/kind`, kind);
      const properties = {
        x,
        y,
        width: 120,
        height: kind === "note" ? 80 : 70,
        z: 1,
        "style.fill": pick(FILLS),
      };
      for (const [name, value] of Object.entries(properties)) objects.set(`${id}/${name}`, value);
      doc.getText(`text:${id}`).insert(0, pick(NOTES));
    });
    point(x + 60, y + 40);
    awareness.setLocalStateField("selected", id);
    return 1_200;
  }

  function remove(id: string): number {
    doc.transact(() => {
      for (const key of [...objects.keys()]) if (key.startsWith(`${id}/`)) objects.delete(key);
      const text = doc.getText(`text:${id}`);
      text.delete(0, text.length);
    });
    awareness.setLocalStateField("selected", null);
    return 500;
  }

  /** Pulls what is held a part of its way. */
  function pull(): number {
    const { id, toX, toY } = held!;
    const left = held!.steps--;
    const x = numberOf(id, "x", toX), y = numberOf(id, "y", toY);
    if (left <= 1 || !objects.has(`${id}/kind`)) held = undefined;
    if (!objects.has(`${id}/kind`)) return 300;
    const nextX = Math.round(x + (toX - x) / left), nextY = Math.round(y + (toY - y) / left);
    doc.transact(() => {
      objects.set(`${id}/x`, nextX);
      objects.set(`${id}/y`, nextY);
    });
    point(nextX + numberOf(id, "width", 0) / 2, nextY + numberOf(id, "height", 0) / 2);
    return left <= 1 ? 900 + chance() * 1_500 : 90;
  }

  function change(id: string): number {
    awareness.setLocalStateField("selected", id);
    point(numberOf(id, "x", 0) + 10, numberOf(id, "y", 0) + 10);
    const what = chance();
    if (what < 0.6) {
      held = {
        id,
        toX: Math.round(chance() * (BOARD.width - 140)),
        toY: Math.round(chance() * (BOARD.height - 90)),
        steps: 8 + Math.floor(chance() * 8),
      };
      return 300;
    }
    if (what < 0.8) objects.set(`${id}/style.fill`, pick(FILLS));
    else {
      doc.transact(() => {
        objects.set(`${id}/width`, Math.round(90 + chance() * 90));
        objects.set(`${id}/height`, Math.round(60 + chance() * 50));
      });
    }
    return 1_000 + chance() * 1_500;
  }

  let made = 0;
  return {
    step() {
      if (held !== undefined) return pull();
      // What the example began with stays where it is.
      const own = ids().filter((id) => id.startsWith("demo-"));
      if (own.length > OBJECTS_MAX) return remove(pick(own));
      if (own.length < 3 || chance() < 0.15) return make(made++);
      if (chance() < 0.3) {
        point(pointer.x + (chance() - 0.5) * 80, pointer.y + (chance() - 0.5) * 60);
        return 150;
      }
      return change(pick(own));
    },
  };
}

/** Goes from cell to cell and writes down what was spent. */
function createClerk({ doc, awareness, chance }: BotDeps): Bot {
  const cells = doc.getMap<unknown>("cells");
  let cell: string | undefined;
  return {
    step() {
      if (cell === undefined) {
        cell = `${chance() < 0.2 ? "B" : "C"}${2 + Math.floor(chance() * (SHEET_ROWS - 1))}`;
        awareness.setLocalStateField("cell", cell);
        return 700;
      }
      cells.set(`${cell}/value`, Math.round(chance() * 400) * 10);
      cell = undefined;
      return 1_500 + chance() * 2_000;
    },
  };
}

/** Where the heading of a text ends. */
function headingLength(text: string): number {
  return text.split("\n", HEADING_LINES).join("\n").length + 1;
}

function picker(chance: () => number): <T>(list: readonly T[]) => T {
  return (list) => list[Math.floor(chance() * list.length)]!;
}
