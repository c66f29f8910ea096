import { describe, expect, test } from "vitest";
import { keyInWords, nameOfPress, problemOfKey, type Command, type KeyContext, type KeyPress } from "../src/keys";

const press = (key: string, more: Partial<KeyPress> = {}): KeyPress => ({ key, code: "", ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, repeat: false, isComposing: false, ...more });
const free: KeyContext = { isTyping: false, isDialogOpen: false, ownsArrows: false, isPressable: false, singleKeysOff: false };

describe("which key a press is", () => {
  test("letters count by their label, large or small", () => {
    expect(nameOfPress(press("a", { code: "KeyQ" }), free)).toBe("a"); // AZERTY
    expect(nameOfPress(press("A", { shiftKey: true }), free)).toBe("a");
    expect(nameOfPress(press("?", { shiftKey: true }), free)).toBe("?");
  });

  test("where the label is not Latin the position counts", () => {
    expect(nameOfPress(press("\u0444", { code: "KeyA" }), free)).toBe("a");
  });

  test("nothing while typing, in a dialog, while composing, or with Alt", () => {
    expect(nameOfPress(press("a"), { ...free, isTyping: true })).toBeNull();
    expect(nameOfPress(press("a"), { ...free, isDialogOpen: true })).toBeNull();
    expect(nameOfPress(press("a", { isComposing: true }), free)).toBeNull();
    expect(nameOfPress(press("Process"), free)).toBeNull();
    expect(nameOfPress(press("a", { altKey: true }), free)).toBeNull();
  });

  test("Ctrl+A is not A", () => {
    expect(nameOfPress(press("a", { ctrlKey: true }), free)).toBe("Ctrl+a");
    expect(nameOfPress(press("z", { metaKey: true }), free)).toBe("Ctrl+z");
  });

  test("arrows stay with the slider that has the focus", () => {
    expect(nameOfPress(press("ArrowLeft"), free)).toBe("ArrowLeft");
    expect(nameOfPress(press("ArrowLeft", { shiftKey: true }), free)).toBe("Shift+ArrowLeft");
    expect(nameOfPress(press("ArrowLeft"), { ...free, ownsArrows: true })).toBeNull();
    expect(nameOfPress(press("h"), { ...free, ownsArrows: true })).toBe("h");
  });

  test("Enter and Space stay with a focused button", () => {
    expect(nameOfPress(press("Enter"), { ...free, isPressable: true })).toBeNull();
    expect(nameOfPress(press(" "), { ...free, isPressable: true })).toBeNull();
    expect(nameOfPress(press("a"), { ...free, isPressable: true })).toBe("a");
  });

  test("switched off, single keys are silent; arrows, Escape and Ctrl+Z are not", () => {
    const off = { ...free, singleKeysOff: true };
    expect(nameOfPress(press("a"), off)).toBeNull();
    expect(nameOfPress(press("?"), off)).toBeNull();
    expect(nameOfPress(press("ArrowUp"), off)).toBe("ArrowUp");
    expect(nameOfPress(press("Escape"), off)).toBe("Escape");
    expect(nameOfPress(press("z", { ctrlKey: true }), off)).toBe("Ctrl+z");
  });
});

describe("moving a command to another key", () => {
  const command = (id: string, key: string): Command => ({ id, key, words: `do ${id}`, group: "Look", run: () => {} });
  const commands = [command("accept", "a"), command("reject", "x")];
  const keyOf = (one: Command) => one.key;

  test("a taken key is refused with the name of who has it", () => {
    expect(problemOfKey("x", "accept", commands, keyOf)).toBe("X is taken by: do reject");
    expect(problemOfKey("a", "accept", commands, keyOf)).toBe("");
    expect(problemOfKey("z", "accept", commands, keyOf)).toBe("");
  });

  test("only letters, digits and signs may be chosen", () => {
    expect(problemOfKey("F5", "accept", commands, keyOf)).not.toBe("");
    expect(problemOfKey(" ", "accept", commands, keyOf)).not.toBe("");
  });
});

test("keys are written as they are printed on the keyboard", () => {
  expect(["a", "ArrowLeft", "Shift+ArrowUp", "Ctrl+z", "Escape", "+"].map(keyInWords)).toEqual(["A", "\u2190", "Shift+\u2191", "Ctrl+Z", "Esc", "+"]);
});
