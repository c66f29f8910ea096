/** Outlines on the slide: halo and core so that they show on pink, on nuclei and on glass; the dash tells the state. */

import { boxesTouch, boxOf, ringsContain, visibleBox, type Box0, type Frame, type Level0Point, type Ring, type StagePoint } from "./geometry";

export type OutlineState = "open" | "accepted" | "rejected" | "own" | "other";

export interface Outline {
  id: string;
  label: string;
  rings: readonly Ring[];
  state: OutlineState;
}

interface Prepared extends Outline {
  box: Box0;
  path: Path2D;
}

const CORE: Record<OutlineState, string> = {
  open: "#00707d",
  accepted: "#0f6b3a",
  rejected: "#4f4f4f",
  own: "#8f4700",
  other: "#5a4a9c",
};
const DASH: Record<OutlineState, number[]> = { open: [], accepted: [14, 4, 2, 4], rejected: [4, 5], own: [10, 4], other: [2, 4] };

/** Below this size on the screen a marker stands in for the outline, so that nothing is lost at low zoom. */
export const SMALLEST_PX = 14;
const MARKER_RADIUS = 7;
const CLICK_TOLERANCE_PX = 8;

export class OutlineLayer {
  visible = true;
  selected: string | null = null;
  #outlines: Prepared[] = [];

  set(outlines: readonly Outline[]): void {
    this.#outlines = outlines.map((outline) => ({ ...outline, box: boxOf(outline.rings), path: pathOf(outline.rings) }));
  }

  get(id: string): Prepared | undefined {
    return this.#outlines.find((outline) => outline.id === id);
  }

  paint(context: CanvasRenderingContext2D, frame: Frame): void {
    if (!this.visible) return;
    const view = visibleBox(frame);
    const inView = this.#outlines.filter((outline) => boxesTouch(outline.box, withMargin(view, MARKER_RADIUS / frame.scale)));
    // The selected one last: it lies on top of its neighbours.
    for (const outline of inView) if (outline.id !== this.selected) paintOutline(context, frame, outline, false);
    for (const outline of inView) if (outline.id === this.selected) paintOutline(context, frame, outline, true);
  }

  /** The smallest outline or marker under a point of the stage. */
  hit(frame: Frame, at: StagePoint): string | null {
    if (!this.visible) return null;
    return hitOutline(this.#outlines, frame, at);
  }
}

export function hitOutline(outlines: readonly (Outline & { box: Box0 })[], frame: Frame, [x, y]: StagePoint): string | null {
  const at0 = [(x - frame.dx) / frame.scale, (y - frame.dy) / frame.scale] as Level0Point;
  const tolerance0 = CLICK_TOLERANCE_PX / frame.scale;
  let best: { id: string; area: number } | null = null;
  for (const outline of outlines) {
    const { box } = outline;
    const inBox = boxesTouch(withMargin(box, tolerance0), { x0: at0[0], y0: at0[1], width0: 0, height0: 0 });
    if (!inBox) continue;
    const isMarker = isSmall(box, frame);
    if (!isMarker && !ringsContain(outline.rings, at0) && !nearOutline(outline.rings, at0, tolerance0)) continue;
    const area = box.width0 * box.height0;
    if (best === null || area < best.area) best = { id: outline.id, area };
  }
  return best?.id ?? null;
}

function nearOutline(rings: readonly Ring[], [x, y]: Level0Point, tolerance0: number): boolean {
  return rings.some((ring) =>
    ring.some((point, i) => {
      const next = ring[(i + 1) % ring.length] as Level0Point;
      const length2 = (next[0] - point[0]) ** 2 + (next[1] - point[1]) ** 2;
      const t = length2 === 0 ? 0 : Math.max(0, Math.min(1, ((x - point[0]) * (next[0] - point[0]) + (y - point[1]) * (next[1] - point[1])) / length2));
      return Math.hypot(x - point[0] - t * (next[0] - point[0]), y - point[1] - t * (next[1] - point[1])) <= tolerance0;
    }),
  );
}

export function isSmall(box: Box0, frame: Frame): boolean {
  return Math.max(box.width0, box.height0) * frame.scale < SMALLEST_PX;
}

function withMargin(box: Box0, margin: number): Box0 {
  return { x0: box.x0 - margin, y0: box.y0 - margin, width0: box.width0 + 2 * margin, height0: box.height0 + 2 * margin };
}

function pathOf(rings: readonly Ring[]): Path2D {
  const path = new Path2D();
  for (const ring of rings) {
    ring.forEach(([x, y], i) => (i === 0 ? path.moveTo(x, y) : path.lineTo(x, y)));
    path.closePath();
  }
  return path;
}

function paintOutline(context: CanvasRenderingContext2D, frame: Frame, outline: Prepared, isSelected: boolean): void {
  if (isSmall(outline.box, frame)) paintMarker(context, frame, outline, isSelected);
  else {
    const path = new Path2D();
    path.addPath(outline.path, new DOMMatrix([frame.scale, 0, 0, frame.scale, frame.dx, frame.dy]));
    strokeTwice(context, path, outline.state, isSelected);
  }
  if (isSelected || isSmall(outline.box, frame)) paintLabel(context, frame, outline);
}

function strokeTwice(context: CanvasRenderingContext2D, path: Path2D, state: OutlineState, isSelected: boolean): void {
  context.lineJoin = "round";
  context.setLineDash([]);
  context.strokeStyle = "rgb(255 255 255 / 90%)";
  context.lineWidth = isSelected ? 6.5 : 4.5;
  context.stroke(path);
  context.setLineDash(DASH[state]);
  context.strokeStyle = CORE[state];
  context.lineWidth = isSelected ? 3.5 : 2;
  context.stroke(path);
  context.setLineDash([]);
}

function paintMarker(context: CanvasRenderingContext2D, frame: Frame, outline: Prepared, isSelected: boolean): void {
  const { box } = outline;
  const x = (box.x0 + box.width0 / 2) * frame.scale + frame.dx;
  const y = (box.y0 + box.height0 / 2) * frame.scale + frame.dy;
  const path = new Path2D();
  path.arc(x, y, MARKER_RADIUS, 0, 2 * Math.PI);
  strokeTwice(context, path, outline.state === "rejected" ? "rejected" : outline.state === "open" ? "open" : outline.state, isSelected);
}

function paintLabel(context: CanvasRenderingContext2D, frame: Frame, outline: Prepared): void {
  const x = (outline.box.x0 + outline.box.width0) * frame.scale + frame.dx + (isSmall(outline.box, frame) ? MARKER_RADIUS : 2) + 3;
  const y = outline.box.y0 * frame.scale + frame.dy + 4;
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.strokeStyle = "rgb(255 255 255 / 92%)";
  context.lineWidth = 4;
  context.strokeText(outline.label, x, y);
  context.fillStyle = CORE[outline.state];
  context.fillText(outline.label, x, y);
}
