/** Drawing a lesion: drag for a freehand line, or click (or press Enter at the cross) for corners; Enter or a double click closes. */

import { listen } from "../dom";
import { crossesItself, level0FromStage, ringArea, simplify, stageFromLevel0, type Frame, type Level0Point, type StagePoint } from "./geometry";
import type { SlideView } from "./slide-view";

/** Smaller than this on the screen was a slip of the hand, not a lesion. */
const SMALLEST_AREA_PX = 25;
const FREEHAND_TOLERANCE_PX = 1.2;
const CLOSE_PX = 10;

export interface DrawResult {
  ring: Level0Point[];
}

export class RingDrawing {
  #points: Level0Point[] = [];
  #cursor: Level0Point | null = null;
  #dragging = false;
  #stop: (() => void)[] = [];
  problem = "";

  constructor(
    readonly view: SlideView,
    readonly onDone: (ring: Level0Point[]) => void,
    readonly onChange: () => void,
  ) {
    const { stage } = view;
    stage.classList.add("is-drawing");
    view.setMouseNavigation(false);
    this.#stop = [
      view.addPainter((context, frame) => this.#paint(context, frame)),
      listen(stage, "pointerdown", (event) => this.#down(event), { capture: true }),
      listen(window, "pointermove", (event) => this.#move(event as PointerEvent), { capture: true }),
      listen(window, "pointerup", (event) => this.#up(event as PointerEvent), { capture: true }),
      listen(stage, "dblclick", () => this.finish(), { capture: true }),
    ];
  }

  get points(): number {
    return this.#points.length;
  }

  stop(): void {
    for (const remove of this.#stop) remove();
    this.#stop = [];
    this.view.stage.classList.remove("is-drawing");
    this.view.setMouseNavigation(true);
  }

  /** Adds a corner in the middle of the stage: drawing by keyboard, panning with the arrows between corners. */
  addAtCentre(): void {
    this.#points.push(this.view.centre());
    this.#changed();
  }

  undoPoint(): void {
    this.#points.pop();
    this.#changed();
  }

  finish(): void {
    this.problem = problemOf(this.#points, this.view.frame().scale);
    if (this.problem) return this.#changed();
    const ring = this.#points;
    this.stop();
    this.onDone(ring);
  }

  #down(event: PointerEvent): void {
    if (event.button !== 0 || (event.target as Element).closest("button, .minimap, .stage-banner")) return;
    event.preventDefault();
    event.stopPropagation();
    const at = this.#level0(event);
    const first = this.#points[0];
    if (first && this.#points.length > 2 && this.#near(event, first)) return this.finish();
    this.#dragging = true;
    this.#points.push(at);
    this.#changed();
  }

  #move(event: PointerEvent): void {
    this.#cursor = this.#level0(event);
    if (this.#dragging) this.#points.push(this.#cursor);
    this.view.repaint();
  }

  #up(event: PointerEvent): void {
    if (!this.#dragging) return;
    this.#dragging = false;
    const scale = this.view.frame().scale;
    const before = this.#points.length;
    this.#points = simplify(this.#points, FREEHAND_TOLERANCE_PX / scale);
    // A drag of some length was a freehand line: letting go closes it. A click was one corner.
    const first = this.#points[0];
    if (before > 12 && first && (this.#points.length > 5 || this.#near(event, first))) this.finish();
    else this.#changed();
  }

  #near(event: PointerEvent, point: Level0Point): boolean {
    const [x, y] = stageFromLevel0(this.view.frame(), point);
    const [ex, ey] = this.#stagePoint(event);
    return Math.hypot(x - ex, y - ey) <= CLOSE_PX;
  }

  #stagePoint(event: PointerEvent): StagePoint {
    const box = this.view.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top] as StagePoint;
  }

  #level0(event: PointerEvent): Level0Point {
    return level0FromStage(this.view.frame(), this.#stagePoint(event));
  }

  #changed(): void {
    this.view.repaint();
    this.onChange();
  }

  #paint(context: CanvasRenderingContext2D, frame: Frame): void {
    const points = [...this.#points, ...(this.#cursor && !this.#dragging && this.#points.length ? [this.#cursor] : [])];
    context.beginPath();
    points.forEach((point, i) => {
      const [x, y] = stageFromLevel0(frame, point);
      if (i === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    });
    context.lineJoin = "round";
    context.strokeStyle = "rgb(255 255 255 / 90%)";
    context.lineWidth = 5;
    context.stroke();
    context.strokeStyle = "#8f4700";
    context.lineWidth = 2;
    context.stroke();
    if (!this.#dragging) for (const point of this.#points) paintCorner(context, stageFromLevel0(frame, point));
    paintCross(context, frame);
  }
}

/** Why this line is no outline; empty if it is one. */
export function problemOf(points: readonly Level0Point[], scale: number): string {
  if (points.length < 3) return "An outline needs at least three corners.";
  if (ringArea(points) * scale * scale < SMALLEST_AREA_PX) return "The outline is too small: zoom in, or draw it larger.";
  if (crossesItself(points)) return "The outline crosses itself: undo a corner or start again.";
  return "";
}

function paintCorner(context: CanvasRenderingContext2D, [x, y]: StagePoint): void {
  context.beginPath();
  context.arc(x, y, 4, 0, 2 * Math.PI);
  context.fillStyle = "#fff";
  context.fill();
  context.strokeStyle = "#8f4700";
  context.lineWidth = 1.5;
  context.stroke();
}

/** Where a corner set by keyboard would go. */
function paintCross(context: CanvasRenderingContext2D, frame: Frame): void {
  const [x, y] = [frame.width / 2, frame.height / 2];
  for (const [colour, width] of [["#fff", 3], ["#8f4700", 1]] as const) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x - 9, y);
    context.lineTo(x + 9, y);
    context.moveTo(x, y - 9);
    context.lineTo(x, y + 9);
    context.stroke();
  }
}
