import { expect, test } from "vitest";
import { storeOf } from "../src/viewer/tile-pass";

test("the tiles that a page holds are named by the last part of their address", () => {
  expect(storeOf("/tiles/0123456789abcdef/3f0c/tiles-1a2b3c4d-2/")).toBe("tiles-1a2b3c4d-2");
  expect(storeOf("")).toBe("");
});
