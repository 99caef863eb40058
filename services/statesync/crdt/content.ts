/** A document's content in memory: a Yjs document of one type (SPEC §1). */
import { StateSyncError } from "../errors.ts";
import type { DocumentType } from "../records.ts";
import type { ContentParts } from "../store.ts";
import type { Random } from "../../runtime/random.ts";
import type { Touch } from "./touch.ts";
import type { Plan } from "./plan.ts";

/** What a client's update would do. */
export interface Inspection {
  /** It builds on edits that are not here: the client is to be asked for all it has. Its touch is empty then. */
  readonly isMissing: boolean;
  readonly touch: Touch;
}

/** The content of one document. Its methods that change it return the Yjs update (v1) that they made, or undefined where
 *  nothing changed; whoever cannot keep that update lets the content go and loads it anew. */
export class Content {
  readonly type: DocumentType;

  private constructor(type: DocumentType) {
    this.type = type;
  }

  /** The content of a new document; `random` gives the client ids of edits made here. */
  static create(type: DocumentType, random: Random): Content {
    return Content.load(type, { snapshot: undefined, updates: [] }, random);
  }

  /** The content that was kept.
   *  @throws {StateSyncError} `hostile` if it is damaged. */
  static load(type: DocumentType, _parts: ContentParts, _random: Random): Content {
    return new Content(type);
  }

  /** The canonical form (SPEC §1.2). Walks through all of the content. */
  canonical(): Uint8Array {
    throw new StateSyncError("invalid");
  }

  /** Makes the content what the canonical form says, by the least edit. Empty bytes are empty content.
   *  @throws {StateSyncError} `invalid`, naming what is wrong; nothing is changed then. */
  setCanonical(_bytes: Uint8Array): Uint8Array | undefined {
    throw new StateSyncError("invalid");
  }

  /** Yjs state vector. */
  stateVector(): Uint8Array {
    throw new StateSyncError("invalid");
  }

  /** A Yjs update (v1) that makes the content from nothing. */
  encodeState(): Uint8Array {
    throw new StateSyncError("invalid");
  }

  /** What somebody with that state vector (which was checked) lacks, as a Yjs update (v1). */
  diff(_stateVector: Uint8Array): Uint8Array {
    throw new StateSyncError("invalid");
  }

  /** Says what a client's update (which was checked) would do, before it is applied.
   *  @throws {StateSyncError} `hostile` for one that would do harm. */
  inspect(_update: Uint8Array): Inspection {
    throw new StateSyncError("invalid");
  }

  /** Applies a client's update that was checked and inspected and is not missing anything. Returns what of it was new. */
  applyRemote(_update: Uint8Array): Uint8Array | undefined {
    throw new StateSyncError("invalid");
  }

  /** What an edit touched that is part of this content. */
  touchOf(_update: Uint8Array): Touch {
    throw new StateSyncError("invalid");
  }

  /** Carries out what was planned on this content, with no change of it between.
   *  @throws {StateSyncError} `invalid` where a text would be cut within a character; nothing is changed then. */
  apply(_plan: Plan): Uint8Array | undefined {
    throw new StateSyncError("invalid");
  }

  /** Whether an object is there (of a sheet: whether the cell has a value). */
  hasObject(_id: string): boolean {
    return false;
  }

  /** Who wrote a comment; undefined where there is none. */
  commentAuthor(_id: string): string | undefined {
    return undefined;
  }

  /** The comments that an edit, not applied yet, touches and that are not `userId`'s: written by another, or under another's
   *  name. */
  foreignComments(_touch: Touch, _userId: string): string[] {
    return [];
  }
}
