import { describe, expect, test } from "vitest";
import { colourInWords, ColourTable } from "../src/viewer/colour";

/** A table of what `shown` does to the middle of each cell. */
function tableOf(shown: (r: number, g: number, b: number) => [number, number, number]): ColourTable {
  const bytes = new Uint8Array(32 ** 3 * 3);
  let at = 0;
  for (let r = 4; r < 256; r += 8) for (let g = 4; g < 256; g += 8) for (let b = 4; b < 256; b += 8) for (const part of shown(r, g, b)) bytes[at++] = part;
  return new ColourTable(bytes);
}

const applied = (table: ColourTable, ...rgba: number[]) => {
  const pixels = Uint8ClampedArray.from(rgba);
  table.apply(pixels);
  return [...pixels];
};

describe("table of colours", () => {
  test("that changes nothing leaves every value as it is", () => {
    const same = tableOf((r, g, b) => [r, g, b]);
    for (let value = 0; value < 256; value++) expect(applied(same, value, 255 - value, (value * 7) % 256, value)).toEqual([value, 255 - value, (value * 7) % 256, value]);
  });

  test("red is slowest, blue fastest, and opacity stays", () => {
    const marked = tableOf((r, g, b) => [r + (r === 100 && g === 20 && b === 204 ? 50 : 0), g, b]);
    expect(applied(marked, 97, 22, 207, 9)).toEqual([147, 22, 207, 9]);
    expect(applied(marked, 207, 22, 97, 255)).toEqual([207, 22, 97, 255]);
  });

  test("follows a tone curve within a grey level or two", () => {
    const curve = (value: number) => 255 * (value / 255) ** 0.8;
    const bent = tableOf((r, g, b) => [Math.round(curve(r)), Math.round(curve(g)), Math.round(curve(b))]);
    for (let value = 8; value < 256; value++) expect(Math.abs((applied(bent, value, value, value, 255)[0] as number) - curve(value))).toBeLessThan(2.5);
  });

  test("goes neither below black nor above white", () => {
    expect(applied(tableOf((r) => [Math.max(0, r - 60), 255, 0]), 1, 254, 3, 255)).toEqual([0, 255, 0, 255]);
  });

  test("of another size is refused", () => {
    expect(() => new ColourTable(new Uint8Array(10))).toThrow("98304 bytes, not 10");
  });
});

test("the words say whether there is a profile and whether it is used", () => {
  expect(colourInWords(null, false)).toBe("no colour profile in the file");
  expect(colourInWords({ profile: "sRGB", changes: false }, false)).toBe("colour profile: the screen's own (sRGB)");
  expect(colourInWords({ profile: "GT450", changes: true }, true)).toBe("colour profile on: GT450");
  expect(colourInWords({ profile: "GT450", changes: true }, false)).toBe("colour profile off: GT450");
});
