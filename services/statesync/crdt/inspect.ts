/** What an update would do to a document, and whether Yjs can apply it whole, found without applying it: the structs are
 *  walked in an order in which Yjs can integrate them, so that each one's place follows from those before it. */
import { StateSyncError } from "../errors.ts";
import type { DocumentType } from "../records.ts";
import { type IdRange, OBJECT_TEXT, type TextTouch, type Touch } from "./touch.ts";
import * as Y from "./yjs.ts";

/** What a client's update would do. */
export interface Inspection {
  /** It builds on edits that are not here: the client is to be asked for all it has. Its touch is empty then. */
  readonly isMissing: boolean;
  readonly touch: Touch;
  /** Its new structs, in the order in which Yjs integrates them. */
  readonly structs: readonly (Y.Item | Y.GC)[];
}

/** Levels of shared types in one another. Yjs removes them by recursion; editors make a few dozens. */
export const MAX_TYPE_DEPTH = 64;

/** Says what an update (which was checked) would do to a document that has not got it.
 *  @throws {StateSyncError} `hostile` for one that Yjs would fail at. */
export function inspectUpdate(doc: Y.Doc, type: DocumentType, update: Uint8Array): Inspection {
  return new Inspector(doc, type, update).ahead();
}

/** Says what an update that the document has did to it. */
export function touchOfApplied(doc: Y.Doc, type: DocumentType, update: Uint8Array): Touch {
  return new Inspector(doc, type, update).behind();
}

type Struct = Y.Item | Y.GC | Y.Skip;

/** Where a struct is. `key` is its key in a map; `depth` counts the shared types that it is in, below the root. */
interface Place {
  readonly root: string;
  readonly key: string | null;
  readonly depth: number;
}

/** The structs of one client, and how far they are walked. */
interface Group {
  readonly client: number;
  readonly structs: Struct[];
  readonly places: (Place | undefined)[];
  next: number;
  /** Clocks of this client that are there. */
  state: number;
  isUnderWay: boolean;
}

/** A client whose structs are to be walked until one of that clock is there. */
interface Goal {
  readonly group: Group;
  readonly clock: number;
}

const NO_TOUCH: Touch = { properties: new Map(), texts: new Map(), hasOthers: false };

class Inspector {
  private readonly groups = new Map<number, Group>();
  private readonly removals: Y.Transaction["deleteSet"];
  private readonly properties = new Map<string, unknown>();
  private readonly texts = new Map<string, { inserted: IdRange[]; removed: IdRange[] }>();
  private readonly roots = new Map<unknown, string>();
  private readonly order: (Y.Item | Y.GC)[] = [];
  private hasOthers = false;

  constructor(
    private readonly doc: Y.Doc,
    private readonly type: DocumentType,
    update: Uint8Array,
  ) {
    const { structs, ds } = Y.decodeUpdate(update);
    this.removals = ds;
    let group: Group | undefined;
    for (const struct of structs) {
      if (group?.client !== struct.id.client) {
        const { client } = struct.id;
        group = {
          client,
          structs: [],
          places: [],
          next: 0,
          state: Y.getState(doc.store, client),
          isUnderWay: false,
        };
        this.groups.set(client, group);
      }
      group!.structs.push(struct);
    }
  }

  ahead(): Inspection {
    if (!this.walk() || !this.hasRemoved()) return { isMissing: true, touch: NO_TOUCH, structs: [] };
    for (const group of this.groups.values()) {
      const known = Y.getState(this.doc.store, group.client);
      group.structs.forEach((struct, i) => {
        if (struct instanceof Y.Skip || struct.id.clock + struct.length <= known) return;
        this.add(struct, group.places[i], known);
      });
    }
    this.addRemovals(true);
    return { isMissing: false, touch: this.touch(), structs: this.order };
  }

  behind(): Touch {
    for (const { structs } of this.groups.values()) {
      for (const struct of structs) {
        const place = struct instanceof Y.Item ? this.placeOf(struct.id) : undefined;
        if (place !== undefined) this.add(struct, place, 0);
      }
    }
    this.addRemovals(false);
    return this.touch();
  }

  private touch(): Touch {
    return { properties: this.properties, texts: this.texts, hasOthers: this.hasOthers };
  }

  /** Walks all structs, each after those it builds on; false if some cannot be. Each is looked at once, and once more where it
   *  had to wait for another client's. Like Yjs, it begins with the highest client id. */
  private walk(): boolean {
    for (const group of [...this.groups.values()].sort((a, b) => b.client - a.client)) {
      const stack: Goal[] = [{ group, clock: Infinity }];
      group.isUnderWay = true;
      for (let goal = stack.at(-1); goal !== undefined; goal = stack.at(-1)) {
        const needed = this.advance(goal);
        if (needed === undefined) {
          goal.group.isUnderWay = false;
          stack.pop();
          continue;
        }
        const other = needed.client === goal.group.client ? undefined : this.groups.get(needed.client);
        if (other === undefined || other.isUnderWay || other.next === other.structs.length) return false;
        other.isUnderWay = true;
        stack.push({ group: other, clock: needed.clock });
      }
    }
    return true;
  }

  /** Walks on in one client's structs until the goal is reached or there are no more; returns the id that is needed for the
   *  next step, if one is. */
  private advance({ group, clock }: Goal): { readonly client: number; readonly clock: number } | undefined {
    for (; group.next < group.structs.length && group.state <= clock; group.next++) {
      const struct = group.structs[group.next]!;
      if (struct instanceof Y.Skip) continue;
      if (struct.id.clock > group.state) return struct.id;
      if (struct instanceof Y.Item) {
        const needed = this.neededBy(struct);
        if (needed !== undefined) return needed;
        group.places[group.next] = this.resolve(struct);
      }
      const end = struct.id.clock + struct.length;
      if (end <= group.state) continue;
      group.state = end;
      this.order.push(struct);
    }
    return undefined;
  }

  private neededBy(item: Y.Item): Y.ID | undefined {
    const parent = item.parent instanceof Y.ID ? item.parent : null;
    for (const id of [item.origin, item.rightOrigin, parent]) {
      if (id === null) continue;
      if (id.client === item.id.client) {
        if (id.clock >= item.id.clock) {
          throw new StateSyncError("hostile", "a struct that builds on a later one");
        }
      } else if (id.clock >= this.stateOf(id.client)) {
        return id;
      }
    }
    return undefined;
  }

  private stateOf(client: number): number {
    return this.groups.get(client)?.state ?? Y.getState(this.doc.store, client);
  }

  /** Where Yjs will put a struct; undefined if it will only be collected. */
  private resolve(item: Y.Item): Place | undefined {
    const left = item.origin === null ? null : this.placeOf(item.origin);
    const right = item.rightOrigin === null ? null : this.placeOf(item.rightOrigin);
    if (left === undefined || right === undefined) return undefined;
    const beside = left ?? right;
    let place: Place | undefined;
    if (beside !== null) place = beside;
    else if (item.parent instanceof Y.ID) place = this.within(item.parent, item.parentSub);
    else place = { root: String(item.parent), key: item.parentSub, depth: 0 };
    if (place !== undefined && place.depth >= MAX_TYPE_DEPTH && item.content instanceof Y.ContentType) {
      throw new StateSyncError("hostile", `shared types deeper than ${MAX_TYPE_DEPTH}`);
    }
    return place;
  }

  private within(parent: Y.ID, key: string | null): Place | undefined {
    const place = this.placeOf(parent);
    const struct = this.structAt(parent);
    if (place === undefined || !(struct instanceof Y.Item && struct.content instanceof Y.ContentType)) {
      return undefined;
    }
    return { root: place.root, key, depth: place.depth + 1 };
  }

  /** Where the struct with that id is, in the document or among those that were walked. */
  private placeOf(id: Y.ID): Place | undefined {
    if (id.clock < Y.getState(this.doc.store, id.client)) {
      const struct = Y.getItem(this.doc.store, id);
      return struct instanceof Y.Item ? this.placeOfItem(struct) : undefined;
    }
    const group = this.groups.get(id.client)!;
    return group.places[indexOf(group.structs, id.clock)];
  }

  private structAt(id: Y.ID): Struct {
    if (id.clock < Y.getState(this.doc.store, id.client)) return Y.getItem(this.doc.store, id);
    const { structs } = this.groups.get(id.client)!;
    return structs[indexOf(structs, id.clock)]!;
  }

  private placeOfItem(item: Y.Item): Place {
    let parent = item.parent as Y.AbstractType<unknown>;
    let depth = 0;
    while (parent._item !== null) {
      parent = parent._item.parent as Y.AbstractType<unknown>;
      depth++;
    }
    return { root: this.rootName(parent), key: item.parentSub, depth };
  }

  private rootName(root: Y.AbstractType<unknown>): string {
    let name = this.roots.get(root);
    if (name === undefined) {
      for (const known of ROOTS) if (this.doc.share.get(known) === root) name = known;
      name ??= Y.findRootTypeKey(root);
      this.roots.set(root, name);
    }
    return name;
  }

  /** Whether all that is removed is there once the structs are. */
  private hasRemoved(): boolean {
    for (const [client, ranges] of this.removals.clients) {
      const last = ranges.at(-1);
      if (last !== undefined && last.clock + last.len > this.stateOf(client)) return false;
    }
    return true;
  }

  /** Notes what a new struct touches; one that is only collected touches something of which nothing is known. In a map, one that
   *  comes removed still takes the place of what was there. */
  private add(struct: Struct, place: Place | undefined, known: number): void {
    if (!(struct instanceof Y.Item) || place === undefined) {
      this.hasOthers = true;
      return;
    }
    const { client, clock } = struct.id;
    const isRemoved = struct.content instanceof Y.ContentDeleted;
    if (this.isTextRoot(place)) {
      if (isRemoved) return;
      this.textOf(place.root).inserted.push({
        client,
        from: Math.max(clock, known),
        to: clock + struct.length,
      });
    } else if (this.isMapRoot(place)) {
      const target = `${place.root}/${place.key}`;
      if (!isRemoved && !Y.isDeleted(this.removals, Y.createID(client, clock + struct.length - 1))) {
        this.properties.set(target, struct.content.getContent().at(-1));
      } else if (!this.properties.has(target)) {
        this.properties.set(target, undefined);
      }
    } else {
      this.hasOthers = true;
    }
  }

  private addRemovals(isAhead: boolean): void {
    for (const [client, ranges] of this.removals.clients) {
      const structs = this.doc.store.clients.get(client);
      if (structs === undefined) continue;
      const state = Y.getState(this.doc.store, client);
      const own = this.groups.get(client);
      const ownFrom = own === undefined || isAhead ? Infinity : own.structs[0]!.id.clock;
      for (const { clock, len } of ranges) {
        const end = Math.min(clock + len, state, ownFrom);
        if (clock >= end) continue;
        for (let i = Y.findIndexSS(structs, clock); i < structs.length && structs[i]!.id.clock < end; i++) {
          const item = structs[i]!;
          if (!(item instanceof Y.Item) || (isAhead && item.deleted)) continue;
          this.remove(item, Math.max(clock, item.id.clock), Math.min(end, item.id.clock + item.length));
        }
      }
    }
  }

  private remove(item: Y.Item, from: number, to: number): void {
    const place = this.placeOfItem(item);
    if (this.isTextRoot(place)) {
      this.textOf(place.root).removed.push({ client: item.id.client, from, to });
    } else if (this.isMapRoot(place)) {
      const target = `${place.root}/${place.key}`;
      if (!this.properties.has(target)) this.properties.set(target, undefined);
    } else {
      this.hasOthers = true;
    }
  }

  private textOf(root: string): { inserted: IdRange[]; removed: IdRange[] } {
    let touch = this.texts.get(root);
    if (touch === undefined) this.texts.set(root, touch = { inserted: [], removed: [] } satisfies TextTouch);
    return touch;
  }

  private isTextRoot({ root, key, depth }: Place): boolean {
    if (key !== null || depth > 0) return false;
    if (this.type === "text") return root === "content";
    return this.type !== "sheet" && root.startsWith(OBJECT_TEXT);
  }

  private isMapRoot({ root, key, depth }: Place): boolean {
    if (key === null || depth > 0) return false;
    if (root === "comments") return true;
    if (this.type === "sheet") return root === "cells";
    return this.type !== "text" && root === "objects";
  }
}

const ROOTS = ["content", "objects", "cells", "comments"];

/** Place of the struct with that clock. */
function indexOf(structs: readonly Struct[], clock: number): number {
  let low = 0, high = structs.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (structs[middle]!.id.clock <= clock) low = middle;
    else high = middle - 1;
  }
  return low;
}
