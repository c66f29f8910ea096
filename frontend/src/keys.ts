/** One registry of keys, one listener in the capture phase: keys work whatever part of the page has the focus, never while typing. */

import { isDialogOpen } from "./dialog";
import { isTextEntry, listen } from "./dom";
import { readKeySettings, writeKeySettings, type KeySettings } from "./keys-settings";

export interface Command {
  /** Stable name, under which a person's own key is remembered. */
  id: string;
  /** As `event.key`, letters lower-case; "Ctrl+z" with the control (or command) key. */
  key: string;
  /** What it does, in words for the list. */
  words: string;
  group: "Move" | "Look" | "Decide" | "Draw" | "Page";
  /** Whether the key means anything now; also decides whether it is listed. */
  isValid?: () => boolean;
  run: () => void;
  /** Only for keys that act while held. */
  release?: () => void;
  /** A held key may act again and again: moving may, deciding must not. */
  repeats?: boolean;
  /** A second key for what is listed already. */
  unlisted?: boolean;
  /** Shown in the foot of the page in this order; commands of one order share the words of the last. */
  foot?: { order: number; words: string };
}

export interface KeyPress {
  key: string;
  code: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  shiftKey: boolean;
  repeat: boolean;
  isComposing: boolean;
}

export interface KeyContext {
  isTyping: boolean;
  isDialogOpen: boolean;
  /** The focused thing uses arrows itself: a slider, a choice. */
  ownsArrows: boolean;
  /** The focused thing is a button or a link: Enter and the space bar are its own. */
  isPressable: boolean;
  singleKeysOff: boolean;
}

/** The name under which a press is looked up, or null where no command may have it. */
export function nameOfPress(press: KeyPress, context: KeyContext): string | null {
  if (press.isComposing || ["Process", "Dead", "Unidentified"].includes(press.key)) return null;
  if (context.isTyping || context.isDialogOpen || press.altKey) return null;
  const letter = latinKey(press);
  if (press.ctrlKey || press.metaKey) return `Ctrl+${press.shiftKey ? "Shift+" : ""}${letter}`;
  if (press.key.startsWith("Arrow")) return context.ownsArrows ? null : `${press.shiftKey ? "Shift+" : ""}${press.key}`;
  if ((press.key === "Enter" || press.key === " ") && context.isPressable) return null;
  if (letter.length === 1 && context.singleKeysOff) return null;
  return letter;
}

/** Labels rather than positions, so that AZERTY and QWERTZ hands find their keys; positions where the label is not Latin. */
function latinKey(press: KeyPress): string {
  if (press.key.length !== 1) return press.key;
  const isFarFromLatin = press.key > "\u024f";
  const fromCode = /^(?:Key|Digit)(.)$/.exec(press.code)?.[1];
  return (isFarFromLatin && fromCode ? fromCode : press.key).toLowerCase();
}

/** May a person put a command on this key? Empty if so, else the reason. */
export function problemOfKey(key: string, id: string, commands: readonly Command[], keyOf: (command: Command) => string): string {
  if (key.length !== 1 || key === " ") return "Choose a letter, a digit or a sign.";
  const other = commands.find((command) => command.id !== id && keyOf(command) === key);
  return other ? `${key.toUpperCase()} is taken by: ${other.words}` : "";
}

export class Keys {
  #commands: Command[] = [];
  #held: Command | null = null;
  #stop: (() => void)[];
  settings: KeySettings = readKeySettings();

  constructor() {
    this.#stop = [
      listen(window, "keydown", (event) => this.#down(event as KeyboardEvent), { capture: true }),
      listen(window, "keyup", (event) => this.#up(event as KeyboardEvent), { capture: true }),
      listen(window, "blur", () => this.#release()),
    ];
  }

  get commands(): readonly Command[] {
    return this.#commands;
  }

  /** Throws when two commands would have one key: that is a mistake in the program, not of a person. */
  add(commands: readonly Command[]): () => void {
    for (const command of commands) {
      const taken = this.#commands.find((other) => other.key === command.key);
      if (taken) throw new Error(`key ${command.key} is both ${taken.id} and ${command.id}`);
      this.#commands.push(command);
    }
    return () => {
      this.#commands = this.#commands.filter((command) => !commands.includes(command));
    };
  }

  keyOf(command: Command): string {
    return this.settings.moved[command.id] ?? command.key;
  }

  valid(): Command[] {
    return this.#commands.filter((command) => command.isValid?.() ?? true);
  }

  change(settings: Partial<KeySettings>): void {
    this.settings = { ...this.settings, ...settings };
    writeKeySettings(this.settings);
  }

  stop(): void {
    for (const remove of this.#stop) remove();
  }

  #down(event: KeyboardEvent): void {
    const name = nameOfPress(event, contextOf(event.target, this.settings.off));
    if (name === null) return;
    const command = this.#commands.find((candidate) => this.keyOf(candidate) === name);
    if (!command || !(command.isValid?.() ?? true)) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat && !command.repeats) return;
    if (command.release) this.#held = command;
    command.run();
  }

  #up(event: KeyboardEvent): void {
    if (this.#held && latinKey(event) === this.keyOf(this.#held)) this.#release();
  }

  #release(): void {
    this.#held?.release?.();
    this.#held = null;
  }
}

function contextOf(target: EventTarget | null, singleKeysOff: boolean): KeyContext {
  const element = target instanceof Element ? target : null;
  return {
    isTyping: isTextEntry(target),
    isDialogOpen: isDialogOpen(),
    ownsArrows: Boolean(element?.closest("input[type=range], input[type=radio], [data-own-arrows]")),
    isPressable: Boolean(element?.closest("button, a, summary, input")),
    singleKeysOff,
  };
}

const NAMES: Record<string, string> = { ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193", Escape: "Esc", Delete: "Del" };

export function keyInWords(key: string): string {
  return key
    .split("+")
    .map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part))
    .join("+") || "+";
}
