import { describe, expect, test } from "vitest";
import { limit, probability, scoreBeside } from "../src/numbers";

describe("a threshold", () => {
  test.each([
    [0.5, "0.50"],
    [0.805, "0.805"],
    [0.8395, "0.8395"],
    [1, "1.00"],
  ])("%s is shown as %s", (threshold, words) => expect(limit(threshold)).toBe(words));
});

describe("a score beside its threshold", () => {
  test.each([
    [0.8395, 0.836, "0.836"],
    [0.8395, 0.8394, "0.839"],
    [0.8395, 0.8395, "0.84"],
    [0.8395, 0.31, "0.31"],
    [0.843, 0.8449, "0.845"],
    [0.5, 0.4999, "0.4999"],
    [0.5, 0.999, ">0.99"],
  ])("beside %s, %s is shown as %s", (threshold, score, words) => expect(scoreBeside(threshold, score)).toBe(words));

  test("reads as lying on the side on which it lies", () => {
    for (const threshold of [0.5, 0.6231, 0.8059, 0.8395]) {
      for (let step = -400; step <= 400; step += 1) {
        const score = threshold + step * 0.0001;
        const shown = Number(scoreBeside(threshold, score).replace(/[<>]/, ""));
        expect([score, shown >= Number(limit(threshold))]).toEqual([score, score >= threshold]);
      }
    }
  });
});

test("a probability is never rounded to certain", () => {
  expect([probability(0.999), probability(0.001), probability(1), probability(0)]).toEqual([">0.99", "<0.01", "1.00", "0.00"]);
});
