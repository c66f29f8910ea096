import { describe, expect, test } from "vitest";
import { decidedCount, mustBeDecided, neighbour, nextUndecided } from "../src/review/lesion-order";
import { lesionOutlines } from "../src/review/ai-view";
import { shownCall, shownDecisions } from "../src/review/read-mode";
import type { AiLesion, Decision } from "../src/review/types";

const lesion = (id: string, score = 0.9) => ({ id, score }) as AiLesion;
const lesions = [lesion("a"), lesion("b"), lesion("c", 0.4)];
const accepted: Decision = { verdict: "accepted", reason: "", text: "" };
const undone: Decision = { verdict: "undecided", reason: "", text: "" };

describe("which lesion comes next", () => {
  test("the next undecided in rank order, from the start again at the end", () => {
    expect(nextUndecided(lesions, {}, null)?.id).toBe("a");
    expect(nextUndecided(lesions, { b: accepted }, "a")?.id).toBe("c");
    expect(nextUndecided(lesions, { c: accepted }, "c")?.id).toBe("a");
    expect(nextUndecided(lesions, { a: accepted, b: accepted, c: accepted }, "a")).toBeNull();
    expect(nextUndecided([], {}, null)).toBeNull();
  });

  test("a decision that was undone is open again", () => {
    expect(decidedCount(lesions, { a: accepted, b: undone })).toBe(1);
    expect(nextUndecided(lesions, { a: undone, b: accepted, c: accepted }, "c")?.id).toBe("a");
  });

  test("stepping stops at both ends", () => {
    expect(neighbour(lesions, "c", 1)?.id).toBe("c");
    expect(neighbour(lesions, "a", -1)?.id).toBe("a");
    expect(neighbour(lesions, null, -1)?.id).toBe("c");
    expect(neighbour([], null, 1)).toBeNull();
  });

  test("only lesions at or above the threshold have to be decided", () => {
    expect(lesions.map((one) => mustBeDecided(one, 0.9))).toEqual([true, true, false]);
  });
});

describe("what is shown while a write is on its way", () => {
  const state = { phase: "unaided", decisions: { a: accepted }, unaided_call: { value: "negative", reason: "" }, final_call: null } as never;
  const write = (path: string, body: Record<string, unknown>) => ({ key: "k", path, body, words: "" });

  test("a pending decision lies over the server's", () => {
    const pending = [write("decisions/", { lesion: "a", verdict: "rejected", reason: "crush" })];
    expect(shownDecisions({ state, pending })).toEqual({ a: { verdict: "rejected", reason: "crush", text: "" } });
  });

  test("a pending call shows in its own half of the read only", () => {
    const pending = [write("calls/", { call: "micro", reason: "" })];
    expect(shownCall({ state, pending }, "unaided")?.value).toBe("micro");
    expect(shownCall({ state, pending }, "final")).toBeNull();
    expect(shownCall({ state, pending: [] }, "unaided")?.value).toBe("negative");
  });
});

describe("which outlines are drawn", () => {
  const shown = (decisions: Record<string, Decision>, selected: string | null) =>
    lesionOutlines(lesions, decisions, { threshold: 0.85, selected }).map((outline) => outline.id);

  test("those below the threshold only when decided or chosen", () => {
    expect(shown({}, null)).toEqual(["a", "b"]);
    expect(shown({}, "c")).toEqual(["a", "b", "c"]);
    expect(shown({ c: accepted }, null)).toEqual(["a", "b", "c"]);
    expect(shown({ c: undone }, null)).toEqual(["a", "b"]);
  });
});
