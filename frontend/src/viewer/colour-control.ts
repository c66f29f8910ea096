/** The reader's switch for the slide's colour profile, and the words that say how colours are shown. */

import { h } from "../dom";
import { send } from "../http";
import type { Command } from "../keys";
import { colourInWords, ColourTable, type ColourFacts } from "./colour";

const REMEMBERED = "metadet.colour-profile";

export interface ColourControl {
  /** A line for the stage. */
  words: HTMLElement;
  /** The switch; null where a profile changes nothing or there is none. */
  button: HTMLButtonElement | null;
  commands: Command[];
  /** Called at once and on each change; null: as stored. */
  onChange: (listener: (table: ColourTable | null) => void) => void;
}

/** `address` of the table is asked for only when the profile changes colours. `onTrouble`: it did not come. */
export function colourControl(facts: ColourFacts | null, address: string, onTrouble: (words: string) => void): ColourControl {
  const words = h("span", { class: "colour-words" }, colourInWords(facts, false));
  if (!facts?.changes) return { words, button: null, commands: [], onChange: (listener) => listener(null) };
  const listeners = new Set<(table: ColourTable | null) => void>();
  const wanted = () => localStorage.getItem(REMEMBERED) !== "off";
  let table: ColourTable | null = null;
  const shown = () => (wanted() ? table : null);
  const button = h("button", { type: "button", class: "button", "aria-label": "Colour profile", onclick: () => toggle() }, "ICC");
  const tell = () => {
    words.textContent = colourInWords(facts, shown() !== null);
    button.title = shown() ? `Colours as the profile ${facts.profile} says. Press for the stored colours.` : "Colours as the scanner stored them. Press for those of the profile.";
    button.setAttribute("aria-pressed", String(shown() !== null));
    listeners.forEach((listener) => listener(shown()));
  };
  const load = async () => {
    try {
      const answer = await send(address);
      table = new ColourTable(new Uint8Array(await answer.arrayBuffer()));
    } catch {
      onTrouble("The slide's colour profile did not load: colours are shown as stored.");
    }
    tell();
  };
  const toggle = () => {
    localStorage.setItem(REMEMBERED, wanted() && table ? "off" : "on");
    if (wanted() && !table) void load();
    else tell();
  };
  button.setAttribute("aria-pressed", "false");
  void load();
  return {
    words,
    button,
    commands: [{ id: "colour-profile", key: "i", words: "Colour profile on or off", group: "Look", run: toggle }],
    onChange: (listener) => {
      listeners.add(listener);
      listener(shown());
    },
  };
}
