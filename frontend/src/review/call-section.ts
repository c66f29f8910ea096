/** The call of the whole slide: five buttons, one of them set. */

import { choose } from "../choose";
import { h } from "../dom";
import { CALLS, type Call, type CallValue } from "./types";

export function callButtons(current: Call | null, isOpen: boolean, onCall: (value: CallValue) => void): HTMLElement {
  return h(
    "div",
    { class: "calls", role: "group", "aria-label": "Call" },
    ...CALLS.map((call) =>
      h(
        "button",
        {
          type: "button",
          class: "button",
          "aria-pressed": String(current?.value === call.value),
          disabled: !isOpen,
          "data-focus": `call-${call.value}`,
          onclick: () => onCall(call.value),
        },
        call.words,
        h("small", {}, call.hint),
      ),
    ),
  );
}

/** The call with its reason where one is needed; null when cancelled. */
export async function completeCall(value: CallValue): Promise<{ value: CallValue; reason: string } | null> {
  if (value !== "cannot_assess") return { value, reason: "" };
  const chosen = await choose("Why can this slide not be assessed?", CANNOT_ASSESS_REASONS);
  return chosen && { value, reason: chosen.value === "other" ? chosen.text : chosen.value };
}

/** By keyboard: the call dialog, where a digit chooses. */
export async function askForCall(title: string): Promise<{ value: CallValue; reason: string } | null> {
  const chosen = await choose(title, CALLS);
  return chosen ? completeCall(chosen.value as CallValue) : null;
}

const CANNOT_ASSESS_REASONS = [
  { value: "out of focus", words: "Out of focus" },
  { value: "tissue folded, torn or missing", words: "Tissue folded, torn or missing" },
  { value: "staining too weak or too strong", words: "Staining too weak or too strong" },
  { value: "parts of the slide do not load", words: "Parts of the slide do not load" },
  { value: "not a lymph node", words: "Not a lymph node" },
  { value: "other", words: "Other (say what)", asksFor: "Why can it not be assessed?" },
];
