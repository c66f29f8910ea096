/** Shows stored colours as the slide's ICC profile says, by the table that preparation made of it (slides/wsi/colour.py). */

/** What the descriptor says of the profile; null there: the file has none. */
export interface ColourFacts {
  profile: string;
  /** Whether any colour is shown differently; a profile of sRGB changes none. */
  changes: boolean;
}

const CELLS = 32;
const CELL = 256 / CELLS;

export class ColourTable {
  /** What is added to red, green and blue of the colours in a cell. */
  #change = new Int16Array(CELLS ** 3 * 3);

  /** `bytes`: the sRGB of the middle of each of 32 x 32 x 32 cells, red slowest. Throws on any other size. */
  constructor(bytes: Uint8Array) {
    if (bytes.length !== this.#change.length) throw new Error(`A table of colours has ${this.#change.length} bytes, not ${bytes.length}.`);
    for (let cell = 0; cell < CELLS ** 3; cell++) {
      const middle = [cell >> 10, (cell >> 5) & 31, cell & 31].map((step) => step * CELL + CELL / 2) as [number, number, number];
      for (let part = 0; part < 3; part++) this.#change[cell * 3 + part] = (bytes[cell * 3 + part] as number) - (middle[part] as number);
    }
  }

  /** In place, RGBA. */
  apply(rgba: Uint8ClampedArray): void {
    const change = this.#change;
    for (let at = 0; at < rgba.length; at += 4) {
      const [r, g, b] = [rgba[at] as number, rgba[at + 1] as number, rgba[at + 2] as number];
      const cell = (((r >> 3) << 10) | ((g >> 3) << 5) | (b >> 3)) * 3;
      rgba[at] = r + (change[cell] as number);
      rgba[at + 1] = g + (change[cell + 1] as number);
      rgba[at + 2] = b + (change[cell + 2] as number);
    }
  }
}

/** Applies the table to what is drawn on a canvas. */
export function recolour(context: CanvasRenderingContext2D, table: ColourTable): void {
  const { width, height } = context.canvas;
  const pixels = context.getImageData(0, 0, width, height);
  table.apply(pixels.data);
  context.putImageData(pixels, 0, 0);
}

/** How the slide's colours are shown, in words of the viewer. */
export function colourInWords(facts: ColourFacts | null, on: boolean): string {
  if (!facts) return "no colour profile in the file";
  if (!facts.changes) return `colour profile: the screen's own (${facts.profile})`;
  return `colour profile ${on ? "on" : "off"}: ${facts.profile}`;
}
