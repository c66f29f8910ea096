import { describe, expect, test } from "vitest";
import { isDigitalZoom, magnification, magnificationInWords, nextStop, presetScale, scaleBar } from "../src/viewer/scale";

describe("magnification", () => {
  test("a 0.25 um/px slide at one to one is 40x, whatever its file says of the objective", () => {
    expect(magnification(1, 0.25)).toBe(40);
    expect(magnificationInWords(1, 0.25)).toBe("40\u00d7");
  });

  test("key 4 gives 20x on any scanner", () => {
    expect(magnification(presetScale(3, 0.25), 0.25)).toBeCloseTo(20);
    expect(magnification(presetScale(3, 0.499), 0.499)).toBeCloseTo(20);
  });

  test("without scale the presets are pixel ratios and no magnification is claimed", () => {
    expect(magnification(1, null)).toBeNull();
    expect([0, 1, 2, 3, 4].map((key) => presetScale(key, null))).toEqual([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]);
    expect(magnificationInWords(0.25, null)).toBe("1:4");
  });

  test("digital zoom begins above one to one", () => {
    expect(isDigitalZoom(1)).toBe(false);
    expect(isDigitalZoom(1.1)).toBe(true);
  });

  test("zooming by stops passes through every preset and back", () => {
    let scale = presetScale(0, 0.25);
    const up = [1, 2, 3, 4].map(() => (scale = nextStop(scale, 0.25, 1)));
    expect(up).toEqual([1, 2, 3, 4].map((key) => presetScale(key, 0.25)));
    expect(nextStop(presetScale(4, 0.25), 0.25, -1)).toBe(presetScale(3, 0.25));
  });
});

describe("scale bar", () => {
  test("has a length of 1, 2 or 5 times a power of ten that fits, and its words fit its width", () => {
    expect(scaleBar(1, 0.25, 140)).toEqual({ width: 80, words: "20 \u00b5m" });
    expect(scaleBar(0.02, 0.25, 140)).toEqual({ width: 80, words: "1 mm" });
  });

  test.each([0.001, 0.013, 0.4, 1, 3.9])("is never wider than allowed nor shorter than a third of it at scale %f", (scale) => {
    const bar = scaleBar(scale, 0.243, 140)!;
    expect(bar.width).toBeLessThanOrEqual(140);
    expect(bar.width).toBeGreaterThan(140 / 3);
  });

  test("there is none without scale", () => {
    expect(scaleBar(1, null)).toBeNull();
  });
});
