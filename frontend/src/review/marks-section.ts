/** The reader's own lesions: list, jump, remove. */

import { h } from "../dom";
import { millimetres } from "../numbers";
import type { Mark } from "./types";

export function marksSection(options: {
  marks: readonly Mark[];
  canMark: boolean;
  canRemove: (mark: Mark) => boolean;
  isDrawing: boolean;
  onDraw: () => void;
  onJump: (mark: Mark) => void;
  onRemove: (mark: Mark) => void;
}): HTMLElement {
  const { marks } = options;
  return h(
    "div",
    {},
    h("h2", {}, `Lesions you marked${marks.length ? ` (${marks.length})` : ""}`),
    marks.length === 0 ? h("p", { class: "soft small" }, "None. Marking is optional.") : h("ul", { class: "lesions" }, ...marks.map((mark, index) => markRow(mark, index, options))),
    options.canMark
      ? h("button", { type: "button", class: "button small", "data-focus": "draw", "aria-pressed": String(options.isDrawing), onclick: options.onDraw }, options.isDrawing ? "Stop drawing" : "Draw a lesion", h("kbd", {}, "D"))
      : null,
  );
}

function markRow(mark: Mark, index: number, options: Parameters<typeof marksSection>[0]): HTMLElement {
  const name = markName(index);
  return h(
    "li",
    { class: "layer" },
    h(
      "button",
      { type: "button", class: "button quiet small", "data-focus": `mark-${mark.id}`, onclick: () => options.onJump(mark) },
      `${name}: ${millimetres(mark.longest_diameter_mm)}${mark.missed_by_ai ? ", missed by AI" : ""}${mark.note ? `, ${mark.note}` : ""}`,
    ),
    options.canRemove(mark)
      ? h("button", { type: "button", class: "button quiet small", "aria-label": `Remove ${name}`, "data-focus": `remove-${mark.id}`, onclick: () => options.onRemove(mark) }, "Remove")
      : h("span", { class: "soft small" }, mark.stage === "unaided" ? "unaided" : ""),
  );
}

export function markName(index: number): string {
  return `Own ${String.fromCharCode(65 + (index % 26))}${index >= 26 ? Math.floor(index / 26) : ""}`;
}
