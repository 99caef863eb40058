/** A stroke of the pen: as few points as show the same line. */

/** Points of a path lie in 0 to this, across its width and height: so it stretches with its object. */
export const PATH_SCALE = 1_000;
/** Points of a path, at most. */
export const PATH_POINTS_MAX = 2_000;

/** A place on the paper. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/** A stroke as an object's properties have it. */
export interface Stroke {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  /** x and y in turn, in parts of `PATH_SCALE` of width and height. */
  readonly points: readonly number[];
}

/** How far a point may lie from the line that leaves it out, in units of the paper. */
const TOLERANCE = 0.8;

/** The stroke through the given places. */
export function strokeOf(places: readonly Point[]): Stroke {
  const kept = simplified(places, TOLERANCE).slice(0, PATH_POINTS_MAX);
  const xs = kept.map(({ x }) => x);
  const ys = kept.map(({ y }) => y);
  const x = Math.min(...xs);
  const y = Math.min(...ys);
  // A straight line is as thin as can be, and still has a box that can be stretched.
  const width = Math.max(1, Math.max(...xs) - x);
  const height = Math.max(1, Math.max(...ys) - y);
  const scaled = (at: number, from: number, length: number) => Math.round((at - from) / length * PATH_SCALE);
  return {
    x: Math.round(x),
    y: Math.round(y),
    width: Math.round(width),
    height: Math.round(height),
    points: kept.flatMap((place) => [scaled(place.x, x, width), scaled(place.y, y, height)]),
  };
}

/** Leaves out the places that lie near the line between their neighbours (Douglas and Peucker). */
function simplified(places: readonly Point[], tolerance: number): Point[] {
  if (places.length < 3) return [...places];
  const keep = new Set([0, places.length - 1]);
  const spans: [number, number][] = [[0, places.length - 1]];
  for (let span = spans.pop(); span !== undefined; span = spans.pop()) {
    const [from, to] = span;
    let farthest = -1;
    let distance = tolerance;
    for (let i = from + 1; i < to; i++) {
      const away = distanceTo(places[i]!, places[from]!, places[to]!);
      if (away > distance) [farthest, distance] = [i, away];
    }
    if (farthest < 0) continue;
    keep.add(farthest);
    spans.push([from, farthest], [farthest, to]);
  }
  return places.filter((_, i) => keep.has(i));
}

function distanceTo(place: Point, from: Point, to: Point): number {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const length = Math.hypot(dx, dy);
  if (length === 0) return Math.hypot(place.x - from.x, place.y - from.y);
  return Math.abs(dy * (place.x - from.x) - dx * (place.y - from.y)) / length;
}
