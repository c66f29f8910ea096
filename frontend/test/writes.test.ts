import { describe, expect, test } from "vitest";
import { ApiError, LoggedOut, Unreachable } from "../src/http";
import { WriteQueue, type SaveState, type Write } from "../src/review/writes";

interface State {
  version: number;
}
type Answer = State | Error;

/** A server that gives the answers listed, and remembers what it was sent; a memory in place of the browser's storage. */
function setUp(answers: Answer[], kept: Record<string, string> = {}) {
  const sent: { path: string; body: Record<string, unknown>; key: string }[] = [];
  const seen = { states: [] as number[], save: [] as SaveState[], lost: [] as string[], refused: [] as string[], stale: [] as (State | null)[] };
  let keys = 0;
  const queue = new WriteQueue<State>({
    version: 7,
    send: async (path, body, key) => {
      sent.push({ path, body, key });
      const answer = answers.shift();
      if (!answer) throw new Error("the test gave no answer");
      if (answer instanceof Error) throw answer;
      return answer;
    },
    onState: (state) => seen.states.push(state.version),
    onSaveState: (state) => seen.save.push(state),
    onStale: (current, lost: readonly Write[]) => {
      seen.stale.push(current);
      seen.lost.push(...lost.map((write) => write.words));
    },
    onRefused: (write) => seen.refused.push(write.words),
    storage: { getItem: (name) => kept[name] ?? null, setItem: (name, value) => void (kept[name] = value), removeItem: (name) => void delete kept[name] },
    storageKey: "writes",
    newKey: () => `key-${++keys}`,
    wait: () => Promise.resolve(),
  });
  return { queue, sent, seen, kept };
}

describe("write queue", () => {
  test("sends one after the other, each with the version the answer before it gave", async () => {
    const { queue, sent, seen } = setUp([{ version: 8 }, { version: 9 }]);
    queue.push("calls/", { call: "negative" }, "call");
    queue.push("lock/", { confirm: true }, "lock");
    await queue.settled();
    expect(sent.map(({ path, body }) => [path, body["expected_version"]])).toEqual([["calls/", 7], ["lock/", 8]]);
    expect(seen.states).toEqual([8, 9]);
    expect(seen.save.at(-1)).toBe("saved");
  });

  test("an unreachable server is tried again with the same key and the same body, in order", async () => {
    const { queue, sent, seen } = setUp([new Unreachable("away"), new Unreachable("away"), { version: 8 }, { version: 9 }]);
    queue.push("decisions/", { lesion: "a" }, "accept 1");
    queue.push("decisions/", { lesion: "b" }, "accept 2");
    await queue.settled();
    expect(sent.map(({ key }) => key)).toEqual(["key-1", "key-1", "key-1", "key-2"]);
    expect(new Set(sent.slice(0, 3).map(({ body }) => JSON.stringify(body))).size).toBe(1);
    expect(seen.save).toContain("waiting");
  });

  test("a server fault (500) is tried again, nothing is lost", async () => {
    const { queue, seen } = setUp([new ApiError(500, "", "fault", {}), { version: 8 }]);
    queue.push("undo/", {}, "undo");
    await queue.settled();
    expect(seen.states).toEqual([8]);
    expect(seen.refused).toEqual([]);
  });

  test("a stale version drops what waits, says what was not done, and goes on from the present state", async () => {
    const stale = new ApiError(409, "stale", "changed", { current: { version: 20 } });
    const { queue, sent, seen } = setUp([stale, { version: 21 }]);
    queue.push("decisions/", {}, "accept 1");
    queue.push("decisions/", {}, "accept 2");
    await queue.settled();
    expect(seen.lost).toEqual(["accept 1", "accept 2"]);
    expect(seen.stale).toEqual([{ version: 20 }]);
    queue.push("decisions/", {}, "accept 3");
    await queue.settled();
    expect(sent.at(-1)?.body["expected_version"]).toBe(20);
  });

  test("a refusal drops that write alone", async () => {
    const { queue, seen } = setUp([new ApiError(400, "invalid", "no reason", {}), { version: 8 }]);
    queue.push("decisions/", {}, "reject 1");
    queue.push("decisions/", {}, "accept 2");
    await queue.settled();
    expect(seen.refused).toEqual(["reject 1"]);
    expect(seen.states).toEqual([8]);
  });

  test("after the session ended it waits until told to go on", async () => {
    const { queue, sent, seen } = setUp([new LoggedOut("over"), { version: 8 }]);
    queue.push("calls/", {}, "call");
    await new Promise((resolve) => setTimeout(resolve));
    expect(sent).toHaveLength(1);
    expect(seen.save.at(-1)).toBe("logged_out");
    queue.resume();
    await queue.settled();
    expect(sent.map(({ key }) => key)).toEqual(["key-1", "key-1"]);
  });

  test("what was not sent survives the page and is sent by the next one with its old key", async () => {
    const first = setUp([new LoggedOut("over")]);
    first.queue.push("calls/", { call: "micro" }, "call");
    await new Promise((resolve) => setTimeout(resolve));
    const second = setUp([{ version: 8 }], first.kept);
    await second.queue.settled();
    expect(second.sent).toEqual([{ path: "calls/", body: { call: "micro", expected_version: 7 }, key: "key-1" }]);
    expect(second.kept).toEqual({});
  });

  test("unreadable storage is no reason to fail", async () => {
    const { queue } = setUp([{ version: 8 }], { writes: "{not json" });
    queue.push("undo/", {}, "undo");
    await queue.settled();
    expect(queue.pending).toEqual([]);
  });
});
