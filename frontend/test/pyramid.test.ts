import { describe, expect, test } from "vitest";
import { clippedTile, coarseToFine, levelScale, tileAt, tilePath, wantedLevel, type Descriptor } from "../src/viewer/pyramid";

// A slide whose size is a multiple of nothing: native 240 px tiles at full resolution, 512 px below.
const descriptor: Descriptor = {
  width: 20013,
  height: 14007,
  mpp_x: 0.25,
  mpp_y: 0.25,
  missing_tiles: 0,
  background: "#ffffff",
  colour: null,
  levels: [
    { level: 0, width: 20013, height: 14007, downsample: 1, tile_width: 240, tile_height: 240, cols: 84, rows: 59 },
    { level: 1, width: 10007, height: 7004, downsample: 2, tile_width: 512, tile_height: 512, cols: 20, rows: 14 },
    { level: 2, width: 5004, height: 3502, downsample: 4, tile_width: 512, tile_height: 512, cols: 10, rows: 7 },
  ],
};

describe("pyramid", () => {
  test("levels are counted from coarse to fine, whatever their order in the descriptor", () => {
    const levels = coarseToFine({ ...descriptor, levels: [...descriptor.levels].reverse() });
    expect(levels.map((level) => level.level)).toEqual([2, 1, 0]);
  });

  test("a descriptor without full resolution is refused", () => {
    expect(() => coarseToFine({ ...descriptor, levels: descriptor.levels.slice(1) })).toThrow("full-resolution");
    expect(() => coarseToFine({ ...descriptor, levels: [] })).toThrow("full-resolution");
  });

  test("scale is exactly 1/downsample, not the ratio of the rounded widths", () => {
    const [coarse] = coarseToFine(descriptor);
    expect(levelScale(coarse!)).toBe(0.25);
    expect(levelScale(coarse!)).not.toBe(coarse!.width / descriptor.width);
  });

  test("tiles of the last column and row are clipped, others are whole", () => {
    const [full] = descriptor.levels;
    expect(clippedTile(full!, 0, 0)).toEqual({ x: 0, y: 0, width: 240, height: 240 });
    expect(clippedTile(full!, 83, 58)).toEqual({ x: 19920, y: 13920, width: 93, height: 87 });
  });

  test.each([
    [0, 0, 0, 0, 0],
    [0, 20012.9, 14006.9, 83, 58],
    [1, 1023.9, 1024, 0, 1],
    [1, 1024, 1023.9, 1, 0],
    [2, -5, 1e9, 0, 6],
  ])("level %i: the point (%f, %f) lies in tile %i, %i", (level, x0, y0, col, row) => {
    expect(tileAt(descriptor.levels[level]!, x0, y0)).toEqual({ col, row });
  });

  test("every tile's own corner is found in that tile", () => {
    for (const level of descriptor.levels) {
      for (const [col, row] of [[0, 0], [level.cols - 1, level.rows - 1], [3, 5]] as const) {
        const tile = clippedTile(level, col, row);
        expect(tileAt(level, (tile.x + 0.5) * level.downsample, (tile.y + 0.5) * level.downsample)).toEqual({ col, row });
      }
    }
  });

  test("a view wants the finest level whose pixels are not much smaller than the screen's", () => {
    const levels = coarseToFine(descriptor);
    expect([0.01, 0.25, 0.35, 0.36, 0.5, 0.8, 1, 3].map((scale) => wantedLevel(levels, scale, 0.7).downsample)).toEqual([4, 4, 2, 2, 2, 1, 1, 1]);
  });

  test("the address names the level of the store, the column and the row", () => {
    expect(tilePath(descriptor.levels[1]!, 3, 4)).toBe("1/3_4.jpg");
  });
});
