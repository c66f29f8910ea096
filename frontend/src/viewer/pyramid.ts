/** Geometry of the tile pyramid, free of any viewer: what the descriptor of the tile store means. */

import type { ColourFacts } from "./colour";

export interface DescriptorLevel {
  level: number;
  width: number;
  height: number;
  downsample: number;
  tile_width: number;
  tile_height: number;
  cols: number;
  rows: number;
}

export interface Descriptor {
  width: number;
  height: number;
  mpp_x: number | null;
  mpp_y: number | null;
  levels: DescriptorLevel[];
  missing_tiles: number;
  background: string;
  colour: ColourFacts | null;
}

/** Levels from coarse to fine, as a zooming viewer counts them. Throws on a descriptor that cannot be drawn. */
export function coarseToFine(descriptor: Descriptor): DescriptorLevel[] {
  const levels = [...descriptor.levels].sort((a, b) => b.downsample - a.downsample);
  if (levels.length === 0 || levels.at(-1)?.downsample !== 1) {
    throw new Error("The slide has no full-resolution level: it has to be prepared again.");
  }
  return levels;
}

/** Exactly 1/downsample. Width ratios would shift far tiles, because level sizes are rounded. */
export function levelScale(level: DescriptorLevel): number {
  return 1 / level.downsample;
}

/** Size of a tile inside the slide, in pixels of its level: tiles of the last column and row are clipped. */
export function clippedTile(level: DescriptorLevel, col: number, row: number): { x: number; y: number; width: number; height: number } {
  const x = col * level.tile_width;
  const y = row * level.tile_height;
  return { x, y, width: Math.min(level.tile_width, level.width - x), height: Math.min(level.tile_height, level.height - y) };
}

/** The tile of a level-0 point, kept inside the level. */
export function tileAt(level: DescriptorLevel, x0: number, y0: number): { col: number; row: number } {
  const inside = (value: number, count: number) => Math.max(0, Math.min(count - 1, value));
  return {
    col: inside(Math.floor(x0 / level.downsample / level.tile_width), level.cols),
    row: inside(Math.floor(y0 / level.downsample / level.tile_height), level.rows),
  };
}

/** The level that OpenSeadragon draws at a scale (CSS pixels per level-0 pixel): the finest one whose pixels are at least
 * `minPixelRatio` screen pixels large, else the coarsest. */
export function wantedLevel(fromCoarseToFine: readonly DescriptorLevel[], scale: number, minPixelRatio: number): DescriptorLevel {
  const found = fromCoarseToFine.findLast((level) => level.downsample * scale >= minPixelRatio);
  return found ?? (fromCoarseToFine[0] as DescriptorLevel);
}

export function tilePath(level: DescriptorLevel, col: number, row: number): string {
  return `${level.level}/${col}_${row}.jpg`;
}
