import { describe, expect, test } from "vitest";
import { boxOf, crossesItself, level0FromStage, longestDiameter, ringArea, ringsContain, simplify, stageFromLevel0, visibleBox, type Level0Point, type Ring } from "../src/viewer/geometry";
import { problemOf } from "../src/viewer/draw-ring";
import { hitOutline, isSmall, type Outline } from "../src/viewer/lesions";

const square = (x: number, y: number, side: number): Ring => [[x, y], [x + side, y], [x + side, y + side], [x, y + side]];
const frame = { scale: 0.5, dx: 100, dy: -20, width: 800, height: 600 };

describe("frames", () => {
  test("there and back gives the same point", () => {
    expect(level0FromStage(frame, stageFromLevel0(frame, [123, 456]))).toEqual([123, 456]);
  });

  test("the visible box is the stage in level-0 pixels", () => {
    expect(visibleBox(frame)).toEqual({ x0: -200, y0: 40, width0: 1600, height0: 1200 });
  });
});

describe("rings", () => {
  test("a hole is outside", () => {
    const rings = [square(0, 0, 100), square(40, 40, 20)];
    expect(ringsContain(rings, [10, 10])).toBe(true);
    expect(ringsContain(rings, [50, 50])).toBe(false);
    expect(ringsContain(rings, [101, 50])).toBe(false);
  });

  test("area and longest diameter do not depend on the direction of the ring", () => {
    const ring = square(3, 4, 30);
    expect(ringArea(ring)).toBe(900);
    expect(ringArea([...ring].reverse())).toBe(900);
    expect(longestDiameter(ring)).toBeCloseTo(30 * Math.SQRT2);
    expect(longestDiameter(ring, 0.5, 0)).toBe(15);
  });

  test("a bow tie crosses itself, a square does not", () => {
    expect(crossesItself([[0, 0], [10, 10], [10, 0], [0, 10]])).toBe(true);
    expect(crossesItself(square(0, 0, 10))).toBe(false);
  });

  test("simplifying keeps corners and drops what lies on the line", () => {
    const line: Level0Point[] = [[0, 0], [5, 0.1], [10, 0], [10, 5], [10, 10]];
    expect(simplify(line, 0.5)).toEqual([[0, 0], [10, 0], [10, 10]]);
  });

  test("an outline of a slip, of two corners or that crosses itself is refused with words", () => {
    expect(problemOf([[0, 0], [9, 9]], 1)).toContain("three corners");
    expect(problemOf(square(0, 0, 3), 1)).toContain("too small");
    expect(problemOf([[0, 0], [90, 90], [100, 0], [0, 80]], 1)).toContain("crosses itself");
    expect(problemOf(square(0, 0, 30), 1)).toBe("");
  });
});

describe("hit test", () => {
  const outline = (id: string, rings: Ring[]): Outline & { box: ReturnType<typeof boxOf> } => ({ id, label: id, rings, state: "open", box: boxOf(rings) });
  const large = outline("large", [square(1000, 1000, 400)]);
  const inner = outline("inner", [square(1100, 1100, 60)]);
  const tiny = outline("tiny", [square(2000, 2000, 4)]);
  const at = (x0: number, y0: number) => stageFromLevel0(frame, [x0, y0]);

  test("the smallest outline under the pointer wins", () => {
    expect(hitOutline([large, inner], frame, at(1120, 1120))).toBe("inner");
    expect(hitOutline([large, inner], frame, at(1300, 1300))).toBe("large");
    expect(hitOutline([large, inner], frame, at(1600, 1600))).toBeNull();
  });

  test("a click a little beside the line still counts", () => {
    expect(hitOutline([large], frame, at(990, 1200))).toBe("large");
    expect(hitOutline([large], frame, at(980, 1200))).toBeNull();
  });

  test("a lesion of two screen pixels is a marker, and the marker can be clicked", () => {
    expect(isSmall(tiny.box, frame)).toBe(true);
    expect(hitOutline([tiny], frame, at(2010, 2002))).toBe("tiny");
  });

  test("a click into a hole is no hit on the lesion around it", () => {
    const ring = outline("ring", [square(0, 0, 400), square(100, 100, 200)]);
    expect(hitOutline([ring], frame, at(200, 200))).toBeNull();
    expect(hitOutline([ring], frame, at(50, 50))).toBe("ring");
  });
});
