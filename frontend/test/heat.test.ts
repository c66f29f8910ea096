import { describe, expect, test } from "vitest";
import { contourEdges, heatGrid, valueAt, type HeatGrid } from "../src/viewer/heat";
import { colourAt, cutOf, lookUpTable } from "../src/viewer/palettes";

const grid = (rows: string[]): HeatGrid =>
  heatGrid(Uint8Array.from(rows.join("").split("").map((digit) => Number(digit) * 25)), { rows: rows.length, cols: rows[0]!.length, x0: 100, y0: 50, cellX0: 32, cellY0: 16 });

describe("look-up table", () => {
  const alpha = (table: Uint32Array, value: number) => new Uint8Array(table.buffer)[value * 4 + 3];

  test("is transparent below the threshold and opaque from it on", () => {
    const table = lookUpTable("viridis", 0.5);
    expect(alpha(table, 127)).toBe(0);
    expect(alpha(table, 128)).toBe(255);
    expect(alpha(table, 255)).toBe(255);
  });

  test("threshold 0 shows everything, threshold 1 only what is certain", () => {
    expect(alpha(lookUpTable("viridis", 0), 0)).toBe(255);
    expect(alpha(lookUpTable("viridis", 1), 254)).toBe(0);
    expect(alpha(lookUpTable("viridis", 1), 255)).toBe(255);
  });

  test("a value counts as at the threshold exactly when its probability is", () => {
    for (let value = 0; value < 256; value++) expect(value >= cutOf(value / 255)).toBe(true);
    for (let value = 1; value < 256; value++) expect(value - 1 >= cutOf(value / 255)).toBe(false);
  });

  test.each(["viridis", "cividis"] as const)("%s rises in lightness from 0 to 1", (palette) => {
    const light = Array.from({ length: 101 }, (_, i) => {
      const [r, g, b] = colourAt(palette, i / 100);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    });
    for (let i = 1; i < light.length; i++) expect(light[i]!).toBeGreaterThan(light[i - 1]! - 0.8); // rounding to whole bytes
    expect(light.at(-1)! - light[0]!).toBeGreaterThan(150);
  });
});

describe("grid", () => {
  test("bytes that are not rows times columns are refused", () => {
    expect(() => heatGrid(new Uint8Array(5), { rows: 2, cols: 3, x0: 0, y0: 0, cellX0: 1, cellY0: 1 })).toThrow("5 cells, expected 2 x 3");
  });

  test("the value under a point is that of its cell, and none outside", () => {
    const heat = grid(["09", "42"]);
    expect(valueAt(heat, [100, 50])).toBe(0);
    expect(valueAt(heat, [163.9, 65.9])).toBeCloseTo(225 / 255);
    expect(valueAt(heat, [100, 66])).toBeCloseTo(100 / 255);
    expect(valueAt(heat, [99.9, 50])).toBeNull();
    expect(valueAt(heat, [164, 50])).toBeNull();
  });
});

describe("contour", () => {
  test("goes once around a block, runs joined", () => {
    const edges = contourEdges(grid(["0000", "0990", "0990", "0000"]), 0.5);
    expect(edges).toHaveLength(4);
    expect(edges).toEqual(expect.arrayContaining([[1, 1, 3, 1], [1, 3, 3, 3], [1, 1, 1, 3], [3, 1, 3, 3]]));
  });

  test("closes at the border of the grid and around holes", () => {
    const edges = contourEdges(grid(["999", "909", "999"]), 0.5);
    expect(edges).toHaveLength(8);
    expect(edges).toEqual(expect.arrayContaining([[0, 0, 3, 0], [1, 1, 2, 1]]));
  });

  test("is empty where nothing reaches the threshold", () => {
    expect(contourEdges(grid(["11", "11"]), 0.5)).toEqual([]);
  });
});
