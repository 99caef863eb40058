/** What becomes of an operation that was made with an older version in view (SPEC §3). */
import { StateSyncError } from "../errors.ts";
import type { Content } from "./content.ts";
import { meetText, oldLength, type Segment, type TextDelta, transformDelta, withoutSteps } from "./delta.ts";
import { isSameJson } from "./json.ts";
import type { Edit } from "./operation.ts";
import { checkNeed, type Intent, intentOf, type Plan } from "./plan.ts";
import { diffTexts } from "./text_diff.ts";
import { composeEdits } from "./text_edits.ts";
import { OBJECT_TEXT, type TextTouch, type Touch } from "./touch.ts";

/** An edit that made a version since the one that the stale operation has in view. */
export interface LaterEdit {
  /** By `content.touchOf(entry.update)`. */
  readonly touch: Touch;
  /** Clock of its operation; of other edits the time of its entry × 65,536. */
  readonly hlc: bigint;
  /** Key of its operation, which orders equal clocks; without one it is the lower. */
  readonly key?: string | undefined;
}

/** A target that a stale operation and later edits touch. */
export interface Meeting {
  /** `<object>/<property>`, `<cell>/<property>`, `<comment>/<field>`, `<object>/text`, or `index:length` of a document's text as it
   *  was. What removes an object or comment meets others at its `kind` or `author`. */
  readonly target: string;
  /** Places of the edits among the later ones, ascending. */
  readonly edits: readonly number[];
}

/** What a stale operation meets and what it can do. */
export interface Stale {
  /** Empty: it meets nothing, and `force` and `merge` are the same. */
  readonly meetings: readonly Meeting[];
  /** What to do under `merge`, or when it meets nothing (SPEC §3.2). Where clocks are equal, keys decide. */
  merge(hlc: bigint, key?: string): Plan;
  /** What to do under `lww` (SPEC §3.3): the targets that it loses are left out. A change of what was removed loses, whatever its
   *  clock: what was removed cannot come back from it. A move that loses one target loses all. */
  lww(hlc: bigint, key?: string): Decision;
  /** What to do when somebody decides for it: everything, over what is there. */
  force(): Plan;
}

/** How a stale operation fares under `lww`. */
export interface Decision {
  readonly plan: Plan;
  readonly won: readonly Meeting[];
  readonly lost: readonly Meeting[];
}

/** Looks at a stale operation beside the edits since, which are all those that made versions after the one in view, in their
 *  order. Takes time that grows with what they touched and, for a text, with its structs.
 *  @throws {StateSyncError} as planEdit, of the content that it had in view. */
export function meetLater(content: Content, edit: Edit, later: readonly LaterEdit[]): Stale {
  const intent = intentOf(content, edit);
  const segments = intent.text === undefined
    ? []
    : content.segments(intent.text.root, textTouches(later, intent.text.root));
  for (const need of intent.needs) {
    if (need.mark === "content") {
      if (oldLength(segments) > 0) throw new StateSyncError("exists", need.name);
    } else if (!later.some(({ touch }) => touch.properties.has(need.mark))) {
      checkNeed(content, need);
    }
  }
  return new StaleEdit(content, intent, later, segments);
}

/** A meeting with what it is for the operation. */
interface Found extends Meeting {
  /** `write`: of one property. `gone`: what it changes was removed. `removal`: what it removes was changed. `step`: of a text. */
  readonly kind: "write" | "gone" | "removal" | "step";
  /** The property's target, or the place of the step. */
  readonly key: string | number;
}

class StaleEdit implements Stale {
  readonly meetings: readonly Found[];
  private readonly delta: TextDelta | undefined;

  constructor(
    private readonly content: Content,
    private readonly intent: Intent,
    private readonly later: readonly LaterEdit[],
    /** Of the text that it edits. */
    private readonly segments: readonly Segment[],
  ) {
    this.delta = this.oldDelta();
    this.meetings = [...this.meetPlaces(), ...this.meetProperties(), ...this.meetSteps()];
  }

  merge(hlc: bigint, key = ""): Plan {
    return this.plan(this.meetings.filter((meeting) => {
      if (meeting.kind === "gone") return !this.isMadeAgain();
      return meeting.kind === "write" && !this.wins(meeting, hlc, key);
    }));
  }

  lww(hlc: bigint, key = ""): Decision {
    const lost = this.meetings.filter((meeting) => meeting.kind === "gone" || !this.wins(meeting, hlc, key));
    return { plan: this.plan(lost), lost, won: this.meetings.filter((meeting) => !lost.includes(meeting)) };
  }

  force(): Plan {
    return this.plan([]);
  }

  private wins({ edits }: Meeting, hlc: bigint, key: string): boolean {
    return edits.every((place) => {
      const other = this.later[place]!;
      return hlc > other.hlc || (hlc === other.hlc && key > (other.key ?? ""));
    });
  }

  /** Everything without what is lost. */
  private plan(lost: readonly Found[]): Plan {
    const { intent } = this;
    const isNothing = lost.some(({ kind }) => kind === "gone" || kind === "removal") ||
      (intent.isAtomic && lost.length > 0);
    if (isNothing) return { properties: new Map(), texts: new Map(), emptied: [] };
    const properties = new Map(intent.properties);
    const steps = new Set<number>();
    for (const { kind, key } of lost) {
      if (kind === "write") properties.delete(key as string);
      else if (kind === "step") steps.add(key as number);
    }
    const texts = new Map<string, TextDelta>();
    if (intent.text !== undefined) {
      texts.set(intent.text.root, transformDelta(withoutSteps(this.delta!, steps), this.segments));
    }
    return { properties, texts, emptied: intent.emptied };
  }

  /** The change of the text in the version in view. */
  private oldDelta(): TextDelta | undefined {
    const { content, intent: { text } } = this;
    if (text === undefined) return undefined;
    const whole = text.edits[0]?.isWhole === true ? text.edits[0].insert : undefined;
    return whole === undefined
      ? composeEdits(oldLength(this.segments), text.edits)
      : diffTexts(content.textBefore(text.root, textTouches(this.later, text.root)), whole);
  }

  private *meetSteps(): Iterable<Found> {
    const { text } = this.intent;
    if (text === undefined) return;
    for (const { step, index, length, edits } of meetText(this.delta!, this.segments)) {
      const target = text.root.startsWith(OBJECT_TEXT)
        ? `${text.root.slice(OBJECT_TEXT.length)}/text`
        : `${index}:${length}`;
      yield { kind: "step", key: step, target, edits };
    }
  }

  private *meetProperties(): Iterable<Found> {
    if (this.intent.removed !== undefined) return;
    for (const [target, value] of this.intent.properties) {
      const edits = this.places(({ properties }) =>
        properties.has(target) && !isSameJson(properties.get(target), value)
      );
      if (edits.length > 0) yield { kind: "write", key: target, target: nameOf(target), edits };
    }
  }

  /** Where what it changes was removed, or what it removes was changed. */
  private *meetPlaces(): Iterable<Found> {
    const { changed, removed } = this.intent;
    if (changed !== undefined) {
      const mark = markOf(changed);
      const edits = this.places(({ properties }) =>
        properties.has(mark) && properties.get(mark) === undefined
      );
      if (edits.length > 0) yield { kind: "gone", key: mark, target: nameOf(mark), edits };
    }
    if (removed === undefined) return;
    const mark = markOf(removed);
    const edits = this.places(({ properties, texts }) => {
      if (properties.has(mark) && properties.get(mark) === undefined) return false;
      if (removed.startsWith("objects/") && texts.has(OBJECT_TEXT + removed.slice("objects/".length))) {
        return true;
      }
      return [...properties].some(([target, value]) =>
        target.startsWith(`${removed}/`) && value !== undefined
      );
    });
    if (edits.length > 0) yield { kind: "removal", key: mark, target: nameOf(mark), edits };
  }

  /** Whether what was removed since is there again, or is made by the operation itself over something that is. */
  private isMadeAgain(): boolean {
    const { changed } = this.intent;
    return changed !== undefined && (this.content.value(markOf(changed)) ?? null) !== null;
  }

  private places(isMet: (touch: Touch) => boolean): number[] {
    const places: number[] = [];
    this.later.forEach(({ touch }, place) => {
      if (isMet(touch)) places.push(place);
    });
    return places;
  }
}

/** The target by which an object or a comment is there. */
function markOf(place: string): string {
  return place.startsWith("objects/") ? `${place}/kind` : `${place}/author`;
}

/** A target as people are told: without its root. */
function nameOf(target: string): string {
  return target.slice(target.indexOf("/") + 1);
}

const NO_TOUCH: TextTouch = { inserted: [], removed: [] };

function textTouches(later: readonly LaterEdit[], root: string): TextTouch[] {
  return later.map(({ touch }) => touch.texts.get(root) ?? NO_TOUCH);
}
