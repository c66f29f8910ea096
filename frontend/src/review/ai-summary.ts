/** What the AI says of the slide as a whole, and what it could not read. */

import { h } from "../dom";
import { percent, probability } from "../numbers";
import type { AiRun } from "./types";

export function aiSummary(run: AiRun): HTMLElement {
  return h(
    "div",
    {},
    ...notices(run),
    h(
      "dl",
      { class: "facts small" },
      h("dt", {}, "Slide score"),
      h("dd", {}, run.slide_score === null ? "none" : `${probability(run.slide_score)} (threshold ${run.threshold.toFixed(2)})`),
      h("dt", {}, "Model"),
      h("dd", {}, `${run.model.name} ${run.model.version}, ${run.profile}`),
      h("dt", {}, "Tissue read"),
      h("dd", {}, `${percent(run.tissue.analysed)} of ${run.tissue.mm2.toFixed(0)} mm\u00b2`),
    ),
  );
}

/** A region not read is never negative: said before anything else. */
function notices(run: AiRun): HTMLElement[] {
  if (run.status === "cannot_assess") {
    return [h("p", { class: "notice error", role: "alert" }, `The AI could not assess this slide. ${run.status_reason} It says nothing about it, neither positive nor negative.`)];
  }
  if (run.status === "incomplete" || run.tissue.failed > 0) {
    return [h("p", { class: "notice warn" }, `The AI read only part of the tissue: ${percent(run.tissue.failed)} could not be read. ${run.status_reason} That part is not negative, it is unread.`)];
  }
  return [];
}
