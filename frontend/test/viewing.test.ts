import { describe, expect, test } from "vitest";
import { bytesInWords, millimetres, percent, probability } from "../src/numbers";
import { createStore } from "../src/store";
import { ActiveTime } from "../src/viewer/active-time";
import { Coverage, tissueCells } from "../src/viewer/coverage";
import { chooseDrawer, isSoftwareRenderer } from "../src/viewer/software-webgl";

describe("coverage", () => {
  const frameAt = (scale: number, x0: number, y0: number) => ({ scale, dx: -x0 * scale, dy: -y0 * scale, width: 1000, height: 1000 });

  test("counts only what was seen at 10x or more", () => {
    const coverage = new Coverage(12000, 12000, 0.25);
    coverage.setTissue(new Uint8Array(coverage.cols * coverage.rows).fill(1));
    expect(coverage.see(frameAt(0.1, 0, 0))).toBe(false); // 4x
    expect(coverage.fraction()).toBe(0);
    expect(coverage.see(frameAt(0.25, 0, 0))).toBe(true); // 10x: 4000 x 4000 px of the slide
    expect(coverage.fraction()).toBeCloseTo((4000 / 12000) ** 2, 5);
    expect(coverage.see(frameAt(0.25, 0, 0))).toBe(false); // nothing new
  });

  test("glass does not count", () => {
    const coverage = new Coverage(12000, 12000, 0.25);
    const tissue = new Uint8Array(coverage.cols * coverage.rows);
    tissue[0] = tissue[tissue.length - 1] = 1;
    coverage.setTissue(tissue);
    coverage.see(frameAt(0.25, 0, 0));
    expect(coverage.fraction()).toBe(0.5);
  });

  test("survives a reload, and ignores what belongs to another slide", () => {
    const before = new Coverage(12000, 9000, 0.25);
    before.see(frameAt(0.5, 3000, 2000));
    const after = new Coverage(12000, 9000, 0.25);
    after.restore(before.save());
    expect(after.save()).toBe(before.save());
    const other = new Coverage(5000, 9000, 0.25);
    const empty = other.save();
    other.restore(before.save());
    other.restore("nonsense");
    other.restore(null);
    expect(other.save()).toBe(empty);
  });

  test("tissue is what is coloured in the thumbnail", () => {
    const rgba = Uint8ClampedArray.from([240, 240, 240, 255, 210, 120, 170, 255]); // glass, eosin
    expect([...tissueCells(rgba, 2, 1, 2, 1)]).toEqual([0, 1]);
  });
});

describe("active time", () => {
  const setUp = () => {
    let now = 0;
    const time = new ActiveTime(() => now);
    return { time, pass: (seconds: number) => (now += seconds * 1000) };
  };

  test("stops half a minute after the last act", () => {
    const { time, pass } = setUp();
    pass(10);
    time.act();
    pass(300);
    expect(time.take()).toBe(40);
    time.act();
    pass(5);
    expect(time.take()).toBe(5);
  });

  test("does not run while the page is in the back", () => {
    const { time, pass } = setUp();
    pass(4);
    time.pause();
    pass(100);
    expect(time.take()).toBe(4);
  });

  test("what could not be reported is reported later", () => {
    const { time, pass } = setUp();
    pass(12);
    time.giveBack(time.take());
    expect(time.take()).toBe(12);
  });
});

test("software WebGL gets the canvas drawer", () => {
  expect(isSoftwareRenderer("ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device (LLVM 10.0.0)))")).toBe(true);
  expect(isSoftwareRenderer("llvmpipe (LLVM 15.0.7, 256 bits)")).toBe(true);
  expect(isSoftwareRenderer("ANGLE (Microsoft, Microsoft Basic Render Driver)")).toBe(true);
  expect(chooseDrawer("ANGLE (NVIDIA, NVIDIA GeForce RTX 3060)", null)).toBe("webgl");
  expect(chooseDrawer(null, null)).toBe("canvas");
  expect(chooseDrawer("llvmpipe", "webgl")).toBe("webgl");
});

test("a store tells its listeners of real changes only, until they leave", () => {
  const store = createStore({ a: 1, b: 2 });
  const seen: number[] = [];
  const leave = store.subscribe((value) => seen.push(value.a));
  store.set({ a: 1 });
  store.set({ a: 5 });
  leave();
  store.set({ a: 6 });
  expect(seen).toEqual([5]);
  expect(store.get()).toEqual({ a: 6, b: 2 });
});

test("numbers are written as people read them", () => {
  expect([0.24, 2.41, 12.3].map(millimetres)).toEqual(["0.24 mm", "2.4 mm", "12 mm"]);
  expect(millimetres(null)).toBe("no scale");
  expect([0, 0.004, 0.5, 0.999, 1].map(percent)).toEqual(["0 %", "<1 %", "50 %", ">99 %", "100 %"]);
  expect([0, 0.003, 0.5, 0.999, 1].map(probability)).toEqual(["0.00", "<0.01", "0.50", ">0.99", "1.00"]);
  expect([512, 1024, 2.3 * 2 ** 20, 24 * 2 ** 30].map(bytesInWords)).toEqual(["512 bytes", "1.0 KB", "2.3 MB", "24.0 GB"]);
});
