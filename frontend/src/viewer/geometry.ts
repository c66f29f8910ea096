/** Frames: level-0 pixels of the slide, and CSS pixels of the stage. A point carries its frame in its type. */

export type Level0Point = readonly [x0: number, y0: number] & { readonly frame?: "level0" };
export type StagePoint = readonly [x: number, y: number] & { readonly frame?: "stage" };
export type Ring = readonly Level0Point[];

export interface Box0 {
  readonly x0: number;
  readonly y0: number;
  readonly width0: number;
  readonly height0: number;
}

/** Where the slide lies on the stage: x = x0 * scale + dx. `scale` is CSS pixels per level-0 pixel. */
export interface Frame {
  readonly scale: number;
  readonly dx: number;
  readonly dy: number;
  readonly width: number;
  readonly height: number;
}

export function stageFromLevel0(frame: Frame, [x0, y0]: Level0Point): StagePoint {
  return [x0 * frame.scale + frame.dx, y0 * frame.scale + frame.dy] as StagePoint;
}

export function level0FromStage(frame: Frame, [x, y]: StagePoint): Level0Point {
  return [(x - frame.dx) / frame.scale, (y - frame.dy) / frame.scale] as Level0Point;
}

/** The part of the slide's plane that the stage shows. */
export function visibleBox(frame: Frame): Box0 {
  return {
    x0: -frame.dx / frame.scale,
    y0: -frame.dy / frame.scale,
    width0: frame.width / frame.scale,
    height0: frame.height / frame.scale,
  };
}

export function boxOf(rings: readonly Ring[]): Box0 {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of rings) {
    for (const [x, y] of ring) {
      left = Math.min(left, x);
      top = Math.min(top, y);
      right = Math.max(right, x);
      bottom = Math.max(bottom, y);
    }
  }
  return { x0: left, y0: top, width0: right - left, height0: bottom - top };
}

export function boxesTouch(a: Box0, b: Box0): boolean {
  return a.x0 <= b.x0 + b.width0 && b.x0 <= a.x0 + a.width0 && a.y0 <= b.y0 + b.height0 && b.y0 <= a.y0 + a.height0;
}

/** Even-odd rule over all rings, so a hole is outside. */
export function ringsContain(rings: readonly Ring[], [x, y]: Level0Point): boolean {
  let inside = false;
  for (const ring of rings) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
      const [xi, yi] = ring[i] as Level0Point;
      const [xj, yj] = ring[j] as Level0Point;
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
  }
  return inside;
}

/** Shoelace area in square level-0 pixels, always positive. */
export function ringArea(ring: Ring): number {
  let twice = 0;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [xi, yi] = ring[i] as Level0Point;
    const [xj, yj] = ring[j] as Level0Point;
    twice += xj * yi - xi * yj;
  }
  return Math.abs(twice) / 2;
}

/** Longest distance between two points of the ring, in level-0 pixels (x and y may have different um per px). */
export function longestDiameter(ring: Ring, mppX = 1, mppY = 1): number {
  let longest = 0;
  for (let i = 0; i < ring.length; i++) {
    for (let j = i + 1; j < ring.length; j++) {
      const [xi, yi] = ring[i] as Level0Point;
      const [xj, yj] = ring[j] as Level0Point;
      longest = Math.max(longest, Math.hypot((xi - xj) * mppX, (yi - yj) * mppY));
    }
  }
  return longest;
}

/** Drops points that lie closer than `tolerance0` to the line of their neighbours (Douglas-Peucker on an open line). */
export function simplify(points: Ring, tolerance0: number): Level0Point[] {
  if (points.length < 3) return [...points];
  const first = points[0] as Level0Point;
  const last = points[points.length - 1] as Level0Point;
  let [farthest, at] = [0, 0];
  for (let i = 1; i < points.length - 1; i++) {
    const distance = distanceToSegment(points[i] as Level0Point, first, last);
    if (distance > farthest) [farthest, at] = [distance, i];
  }
  if (farthest <= tolerance0) return [first, last];
  return [...simplify(points.slice(0, at + 1), tolerance0).slice(0, -1), ...simplify(points.slice(at), tolerance0)];
}

export function distanceToSegment([x, y]: Level0Point, [ax, ay]: Level0Point, [bx, by]: Level0Point): number {
  const length2 = (bx - ax) ** 2 + (by - ay) ** 2;
  const t = length2 === 0 ? 0 : Math.max(0, Math.min(1, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length2));
  return Math.hypot(x - (ax + t * (bx - ax)), y - (ay + t * (by - ay)));
}

/** True if two non-neighbouring edges of the closed ring cross: such an outline has no area one could mean. */
export function crossesItself(ring: Ring): boolean {
  const n = ring.length;
  for (let i = 0; i < n; i++) {
    for (let j = i + 2; j < n; j++) {
      if (i === 0 && j === n - 1) continue;
      if (segmentsCross(ring[i]!, ring[(i + 1) % n]!, ring[j]!, ring[(j + 1) % n]!)) return true;
    }
  }
  return false;
}

function segmentsCross(a: Level0Point, b: Level0Point, c: Level0Point, d: Level0Point): boolean {
  const side = (p: Level0Point, q: Level0Point, r: Level0Point) => Math.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]));
  return side(a, b, c) * side(a, b, d) < 0 && side(c, d, a) * side(c, d, b) < 0;
}
