/** Ranges of binary strings and who is interested in each: finds all that cover a key in O(log n + found).
 *
 *  A treap ordered by (start, end); every node also knows the largest end below it, so that subtrees that end before a
 *  key are skipped. Equal ranges share one node. */

interface Node<T> {
  readonly start: string;
  /** Undefined is "no end", larger than every string. */
  readonly end: string | undefined;
  readonly members: Set<T>;
  readonly priority: number;
  left: Node<T> | undefined;
  right: Node<T> | undefined;
  endMax: string | undefined;
}

/** Members and the ranges they are interested in. */
export class IntervalTree<T> {
  #root: Node<T> | undefined;
  #seed = 0x9e3779b9;

  get isEmpty(): boolean {
    return this.#root === undefined;
  }

  /** Adds `member` to the range `start <= key < end`. */
  add(start: string, end: string | undefined, member: T): void {
    const node = this.#find(start, end);
    if (node !== undefined) {
      node.members.add(member);
      return;
    }
    const fresh: Node<T> = {
      start,
      end,
      members: new Set([member]),
      priority: this.#nextPriority(),
      left: undefined,
      right: undefined,
      endMax: end,
    };
    const [left, right] = split(this.#root, start, end);
    this.#root = merge(merge(left, fresh), right);
  }

  /** Takes `member` away from the range. */
  remove(start: string, end: string | undefined, member: T): void {
    const node = this.#find(start, end);
    if (node === undefined) return;
    node.members.delete(member);
    if (node.members.size === 0) this.#root = without(this.#root, node);
  }

  /** Calls `visit` with every member of every range that covers `key`. */
  cover(key: string, visit: (member: T) => void): void {
    coverIn(this.#root, key, visit);
  }

  #find(start: string, end: string | undefined): Node<T> | undefined {
    let node = this.#root;
    while (node !== undefined) {
      const order = compareRanges(start, end, node);
      if (order === 0) return node;
      node = order < 0 ? node.left : node.right;
    }
    return undefined;
  }

  /** Priorities need only look unlike the order of insertion; nobody can aim at them for gain: the depth costs the
   *  one who made it as much as others. */
  #nextPriority(): number {
    this.#seed ^= this.#seed << 13;
    this.#seed ^= this.#seed >>> 17;
    this.#seed ^= this.#seed << 5;
    return this.#seed;
  }
}

function coverIn<T>(node: Node<T> | undefined, key: string, visit: (member: T) => void): void {
  if (node === undefined || !isBefore(key, node.endMax)) return;
  coverIn(node.left, key, visit);
  if (key < node.start) return;
  if (isBefore(key, node.end)) {
    for (const member of node.members) visit(member);
  }
  coverIn(node.right, key, visit);
}

function isBefore(key: string, end: string | undefined): boolean {
  return end === undefined || key < end;
}

function compareRanges<T>(start: string, end: string | undefined, node: Node<T>): number {
  if (start !== node.start) return start < node.start ? -1 : 1;
  if (end === node.end) return 0;
  if (end === undefined) return 1;
  return isBefore(end, node.end) ? -1 : 1;
}

/** Ranges before (start, end), and those after it; the range itself is in neither since it is not there. */
function split<T>(
  node: Node<T> | undefined,
  start: string,
  end: string | undefined,
): [Node<T> | undefined, Node<T> | undefined] {
  if (node === undefined) return [undefined, undefined];
  if (compareRanges(start, end, node) > 0) {
    const [left, right] = split(node.right, start, end);
    node.right = left;
    updateEnd(node);
    return [node, right];
  }
  const [left, right] = split(node.left, start, end);
  node.left = right;
  updateEnd(node);
  return [left, node];
}

function merge<T>(a: Node<T> | undefined, b: Node<T> | undefined): Node<T> | undefined {
  if (a === undefined) return b;
  if (b === undefined) return a;
  if (a.priority > b.priority) {
    a.right = merge(a.right, b);
    updateEnd(a);
    return a;
  }
  b.left = merge(a, b.left);
  updateEnd(b);
  return b;
}

function without<T>(node: Node<T> | undefined, gone: Node<T>): Node<T> | undefined {
  if (node === undefined) return undefined;
  if (node === gone) return merge(node.left, node.right);
  if (compareRanges(gone.start, gone.end, node) < 0) node.left = without(node.left, gone);
  else node.right = without(node.right, gone);
  updateEnd(node);
  return node;
}

function updateEnd<T>(node: Node<T>): void {
  node.endMax = node.end;
  for (const child of [node.left, node.right]) {
    if (node.endMax === undefined) return;
    if (child !== undefined && !isBefore(child.endMax ?? "", node.endMax)) node.endMax = child.endMax;
    if (child !== undefined && child.endMax === undefined) node.endMax = undefined;
  }
}
