/** Magnification and scale bar, from um per pixel alone: the objective named in a file is often wrong. */

/** um per pixel at a nominal magnification: 40x is 0.25. */
const UM_TIMES_MAGNIFICATION = 10;

/** Keys 1 to 5. */
export const PRESETS = [2.5, 5, 10, 20, 40] as const;
/** What keys 1 to 5 mean on a slide without scale: level-0 pixels per screen pixel. */
export const PRESETS_WITHOUT_SCALE = [16, 8, 4, 2, 1] as const;

/** "20x" on this screen; `scale` is CSS pixels per level-0 pixel. Null without scale. */
export function magnification(scale: number, mpp: number | null): number | null {
  return mpp === null ? null : (scale * UM_TIMES_MAGNIFICATION) / mpp;
}

export function scaleForMagnification(mag: number, mpp: number): number {
  return (mag * mpp) / UM_TIMES_MAGNIFICATION;
}

/** CSS pixels per level-0 pixel of preset `index` (0 to 4). */
export function presetScale(index: number, mpp: number | null): number {
  const mag = PRESETS[index] ?? 40;
  return mpp === null ? 1 / (PRESETS_WITHOUT_SCALE[index] ?? 1) : scaleForMagnification(mag, mpp);
}

export function magnificationInWords(scale: number, mpp: number | null): string {
  const mag = magnification(scale, mpp);
  if (mag === null) return scale >= 1 ? `${round(scale)}:1` : `1:${round(1 / scale)}`;
  return `${mag < 1 ? mag.toFixed(2) : mag < 10 ? mag.toFixed(1) : Math.round(mag)}\u00d7`;
}

/** Above one screen pixel per slide pixel nothing more is seen, only larger pixels. */
export function isDigitalZoom(scale: number): boolean {
  return scale > 1.005;
}

export interface ScaleBar {
  /** CSS pixels. */
  width: number;
  words: string;
}

/** The longest 1-2-5 length that fits into `widest` CSS pixels. Null without scale. */
export function scaleBar(scale: number, mpp: number | null, widest = 140): ScaleBar | null {
  if (mpp === null || !(scale > 0)) return null;
  const widestUm = (widest * mpp) / scale;
  const power = 10 ** Math.floor(Math.log10(widestUm));
  const um = ([5, 2, 1].find((step) => step * power <= widestUm) ?? 1) * power;
  return { width: (um * scale) / mpp, words: um >= 1000 ? `${round(um / 1000)} mm` : `${round(um)} \u00b5m` };
}

function round(value: number): string {
  return String(Number(value.toPrecision(value < 10 ? 2 : 3)));
}

/** The next stop of the magnifications above or below; a slide without scale doubles. */
export function nextStop(scale: number, mpp: number | null, direction: 1 | -1): number {
  if (mpp === null) return scale * 2 ** direction;
  const stops = [0.3, 0.6, 1.25, ...PRESETS, 80].map((mag) => scaleForMagnification(mag, mpp));
  const found = direction > 0 ? stops.find((stop) => stop > scale * 1.02) : stops.findLast((stop) => stop < scale * 0.98);
  return found ?? scale * 2 ** direction;
}
