/** Which part of the tissue was seen at 10x or more during this read: a grid of small squares over the slide. */

import { visibleBox, type Frame } from "./geometry";
import { magnification } from "./scale";

/** Cells along the longer side of the slide. */
const CELLS = 120;
const ENOUGH_MAGNIFICATION = 10;
/** On a slide without scale: at most two slide pixels per screen pixel. */
const ENOUGH_SCALE = 0.5;
/** A glance shorter than this is passing by, not seeing. */
export const DWELL_MS = 400;

export class Coverage {
  readonly cols: number;
  readonly rows: number;
  readonly cell0: number;
  #seen: Uint8Array;
  #tissue: Uint8Array | null = null;

  constructor(
    readonly width0: number,
    readonly height0: number,
    readonly mpp: number | null,
  ) {
    this.cell0 = Math.max(width0, height0) / CELLS;
    this.cols = Math.ceil(width0 / this.cell0);
    this.rows = Math.ceil(height0 / this.cell0);
    this.#seen = new Uint8Array(this.cols * this.rows);
  }

  /** Cells that hold tissue, `cols` x `rows`, from the thumbnail. Without it nothing can be counted. */
  setTissue(tissue: Uint8Array): void {
    this.#tissue = tissue;
  }

  /** What counts as seen, in words. */
  get rule(): string {
    return this.mpp === null ? "seen at 1:2" : `seen at ${ENOUGH_MAGNIFICATION}\u00d7`;
  }

  isEnough(frame: Frame): boolean {
    const mag = magnification(frame.scale, this.mpp);
    return mag === null ? frame.scale >= ENOUGH_SCALE : mag >= ENOUGH_MAGNIFICATION * 0.98;
  }

  /** Marks the cells whose middle is in view. True if a cell is new. */
  see(frame: Frame): boolean {
    if (!this.isEnough(frame)) return false;
    const view = visibleBox(frame);
    const first = (start: number) => Math.max(0, Math.ceil(start / this.cell0 - 0.5));
    const last = (end: number, count: number) => Math.min(count - 1, Math.floor(end / this.cell0 - 0.5));
    let isNew = false;
    for (let row = first(view.y0); row <= last(view.y0 + view.height0, this.rows); row++) {
      for (let col = first(view.x0); col <= last(view.x0 + view.width0, this.cols); col++) {
        const at = row * this.cols + col;
        if (!this.#seen[at]) isNew = true;
        this.#seen[at] = 1;
      }
    }
    return isNew;
  }

  isSeen(col: number, row: number): boolean {
    return this.#seen[row * this.cols + col] === 1;
  }

  /** Share of the tissue cells seen, 0 to 1; null while the tissue is not known. */
  fraction(): number | null {
    if (!this.#tissue) return null;
    let [seen, tissue] = [0, 0];
    for (let i = 0; i < this.#seen.length; i++) {
      if (!this.#tissue[i]) continue;
      tissue += 1;
      seen += this.#seen[i] as number;
    }
    return tissue === 0 ? null : seen / tissue;
  }

  save(): string {
    return `${this.cols}x${this.rows}:${[...this.#seen].join("").replace(/(.)\1*/g, (run, digit: string) => `${digit}${run.length.toString(36)},`)}`;
  }

  /** Takes up what an earlier visit of the same read saw; anything that does not fit is ignored. */
  restore(saved: string | null): void {
    const [size, runs] = (saved ?? "").split(":");
    if (size !== `${this.cols}x${this.rows}` || !runs) return;
    let at = 0;
    for (const run of runs.split(",")) {
      if (!run) continue;
      const length = parseInt(run.slice(1), 36);
      if (run[0] === "1") this.#seen.fill(1, at, at + length);
      at += length;
    }
  }
}

/** Tissue cells from the thumbnail's pixels (RGBA): what is coloured, or darker than glass. */
export function tissueCells(rgba: Uint8ClampedArray, width: number, height: number, cols: number, rows: number): Uint8Array {
  const sums = new Uint32Array(cols * rows);
  const counts = new Uint32Array(cols * rows);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 4;
      const [r, g, b] = [rgba[at] as number, rgba[at + 1] as number, rgba[at + 2] as number];
      const cell = Math.min(rows - 1, Math.floor((y / height) * rows)) * cols + Math.min(cols - 1, Math.floor((x / width) * cols));
      counts[cell] = (counts[cell] as number) + 1;
      if (Math.max(r, g, b) - Math.min(r, g, b) > 18 && Math.max(r, g, b) > 40) sums[cell] = (sums[cell] as number) + 1;
    }
  }
  return Uint8Array.from(sums, (sum, i) => (sum * 4 >= Math.max(1, counts[i] as number) ? 1 : 0));
}

/** Mean colour of the bright, colourless pixels of the thumbnail (RGBA); null where there is hardly any glass. */
export function glassColour(rgba: Uint8ClampedArray): string | null {
  let [red, green, blue, count] = [0, 0, 0, 0];
  for (let at = 0; at < rgba.length; at += 4) {
    const [r, g, b] = [rgba[at] as number, rgba[at + 1] as number, rgba[at + 2] as number];
    if (Math.min(r, g, b) < 215 || Math.max(r, g, b) - Math.min(r, g, b) > 12) continue;
    red += r;
    green += g;
    blue += b;
    count += 1;
  }
  if (count * 20 * 4 < rgba.length) return null;
  return `rgb(${Math.round(red / count)} ${Math.round(green / count)} ${Math.round(blue / count)})`;
}
