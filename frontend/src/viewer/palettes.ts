/** Palettes of the heatmap: lightness rises with probability, so that they also work in grey and for most colour vision. */

export type PaletteName = "viridis" | "cividis";
type Rgb = readonly [red: number, green: number, blue: number];

/** Anchors read at equal steps from the published tables (matplotlib, CC0); between them linear. */
const ANCHORS: Record<PaletteName, readonly Rgb[]> = {
  viridis: [
    [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
    [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
  ],
  cividis: [
    [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120],
    [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
  ],
};

export function colourAt(palette: PaletteName, p: number): Rgb {
  const anchors = ANCHORS[palette];
  const at = Math.max(0, Math.min(1, p)) * (anchors.length - 1);
  const low = Math.min(anchors.length - 2, Math.floor(at));
  const [a, b] = [anchors[low] as Rgb, anchors[low + 1] as Rgb];
  const mix = (i: 0 | 1 | 2) => Math.round(a[i] + (b[i] - a[i]) * (at - low));
  return [mix(0), mix(1), mix(2)];
}

/** Grid value from which a cell counts as at or above the threshold. */
export function cutOf(threshold: number): number {
  return Math.max(0, Math.min(256, Math.ceil(threshold * 255 - 1e-9)));
}

/** 256 colours as RGBA words in the byte order of ImageData on this machine; below the threshold fully transparent. */
export function lookUpTable(palette: PaletteName, threshold: number): Uint32Array {
  const bytes = new Uint8ClampedArray(256 * 4);
  for (let value = cutOf(threshold); value < 256; value++) {
    bytes.set([...colourAt(palette, value / 255), 255], value * 4);
  }
  return new Uint32Array(bytes.buffer);
}
