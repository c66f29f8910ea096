/** The heatmap: one 8-bit grid for the whole slide, coloured once per threshold or palette, painted every frame. */

import { visibleBox, type Frame, type Level0Point } from "./geometry";
import { cutOf, lookUpTable, type PaletteName } from "./palettes";

export interface HeatGrid {
  /** rows x cols, row by row; value = round(255 * probability). */
  values: Uint8Array;
  rows: number;
  cols: number;
  x0: number;
  y0: number;
  cellX0: number;
  cellY0: number;
}

/** One straight border between a cell at or above the threshold and one below, in grid units. */
export type Edge = readonly [col1: number, row1: number, col2: number, row2: number];

/** Checks that the bytes are the grid that was announced. */
export function heatGrid(bytes: Uint8Array, meta: Omit<HeatGrid, "values">): HeatGrid {
  if (bytes.length !== meta.rows * meta.cols) {
    throw new Error(`The heatmap has ${bytes.length} cells, expected ${meta.rows} x ${meta.cols}.`);
  }
  return { values: bytes, ...meta };
}

/** Probability (0 to 1) of the cell under a point; null outside the grid. */
export function valueAt(grid: HeatGrid, [x0, y0]: Level0Point): number | null {
  const col = Math.floor((x0 - grid.x0) / grid.cellX0);
  const row = Math.floor((y0 - grid.y0) / grid.cellY0);
  if (col < 0 || row < 0 || col >= grid.cols || row >= grid.rows) return null;
  return (grid.values[row * grid.cols + col] ?? 0) / 255;
}

/** Borders of the region at or above the threshold; runs along a row or a column are joined. */
export function contourEdges(grid: HeatGrid, threshold: number): Edge[] {
  const cut = cutOf(threshold);
  const { rows, cols, values } = grid;
  const isIn = (row: number, col: number) => row >= 0 && col >= 0 && row < rows && col < cols && (values[row * cols + col] as number) >= cut;
  const edges: Edge[] = [];
  for (let row = 0; row <= rows; row++) {
    for (let col = 0, start = -1; col <= cols; col++) {
      const border = col < cols && isIn(row, col) !== isIn(row - 1, col);
      if (border && start < 0) start = col;
      if (!border && start >= 0) {
        edges.push([start, row, col, row]);
        start = -1;
      }
    }
  }
  for (let col = 0; col <= cols; col++) {
    for (let row = 0, start = -1; row <= rows; row++) {
      const border = row < rows && isIn(row, col) !== isIn(row, col - 1);
      if (border && start < 0) start = row;
      if (!border && start >= 0) {
        edges.push([col, start, col, row]);
        start = -1;
      }
    }
  }
  return edges;
}

export class HeatLayer {
  visible = false;
  contourVisible = true;
  opacity = 0.5;
  threshold: number;
  palette: PaletteName = "viridis";
  #image: HTMLCanvasElement;
  #pixels: ImageData;
  #contour: Path2D | null = null;

  constructor(
    readonly grid: HeatGrid,
    threshold: number,
  ) {
    this.threshold = threshold;
    this.#image = document.createElement("canvas");
    [this.#image.width, this.#image.height] = [grid.cols, grid.rows];
    this.#pixels = new ImageData(grid.cols, grid.rows);
    this.recolour();
  }

  /** After a change of threshold or palette. A change of opacity needs a repaint only. */
  recolour(): void {
    const table = lookUpTable(this.palette, this.threshold);
    const words = new Uint32Array(this.#pixels.data.buffer);
    const { values } = this.grid;
    for (let i = 0; i < words.length; i++) words[i] = table[values[i] as number] as number;
    this.#image.getContext("2d")?.putImageData(this.#pixels, 0, 0);
    this.#contour = null;
  }

  paint(context: CanvasRenderingContext2D, frame: Frame): void {
    if (!this.visible) return;
    const { grid } = this;
    const view = visibleBox(frame);
    // Only the cells in view: a destination of millions of pixels would be slow, or refused.
    const col1 = Math.max(0, Math.floor((view.x0 - grid.x0) / grid.cellX0));
    const row1 = Math.max(0, Math.floor((view.y0 - grid.y0) / grid.cellY0));
    const col2 = Math.min(grid.cols, Math.ceil((view.x0 + view.width0 - grid.x0) / grid.cellX0));
    const row2 = Math.min(grid.rows, Math.ceil((view.y0 + view.height0 - grid.y0) / grid.cellY0));
    if (col2 <= col1 || row2 <= row1) return;
    const x = (grid.x0 + col1 * grid.cellX0) * frame.scale + frame.dx;
    const y = (grid.y0 + row1 * grid.cellY0) * frame.scale + frame.dy;
    context.imageSmoothingEnabled = false; // honest cells: no value is made up between two
    context.globalAlpha = this.opacity;
    context.drawImage(this.#image, col1, row1, col2 - col1, row2 - row1, x, y, (col2 - col1) * grid.cellX0 * frame.scale, (row2 - row1) * grid.cellY0 * frame.scale);
    context.globalAlpha = 1;
    if (this.contourVisible) this.#paintContour(context, frame);
  }

  #paintContour(context: CanvasRenderingContext2D, frame: Frame): void {
    this.#contour ??= pathOf(contourEdges(this.grid, this.threshold));
    const { grid } = this;
    const line = new Path2D();
    line.addPath(this.#contour, new DOMMatrix([grid.cellX0 * frame.scale, 0, 0, grid.cellY0 * frame.scale, grid.x0 * frame.scale + frame.dx, grid.y0 * frame.scale + frame.dy]));
    context.lineJoin = context.lineCap = "round";
    // Thinner where cells are a pixel or two: a ragged border would else close to a black band.
    const core = Math.max(0.5, Math.min(1.3, (grid.cellX0 * frame.scale) / 4));
    context.strokeStyle = "rgb(255 255 255 / 85%)";
    context.lineWidth = core * 2.5;
    context.stroke(line);
    context.strokeStyle = "#1b1f21";
    context.lineWidth = core;
    context.stroke(line);
  }
}

function pathOf(edges: Edge[]): Path2D {
  const path = new Path2D();
  for (const [col1, row1, col2, row2] of edges) {
    path.moveTo(col1, row1);
    path.lineTo(col2, row2);
  }
  return path;
}
