/** What the AI says of the slide as a whole, and what it could not read. */

import { h } from "../dom";
import { percent } from "../numbers";
import { notices, slideProbabilityWords, slideScoreWords, triageName, triagePromise } from "./ai-words";
import type { AiRun } from "./types";

export function aiSummary(run: AiRun): HTMLElement {
  const promise = triagePromise(run);
  return h(
    "div",
    {},
    ...notices(run).map(({ kind, words }) => h("p", { class: `notice ${kind}`, role: kind === "error" ? "alert" : false }, words)),
    h(
      "dl",
      { class: "facts small" },
      h("dt", {}, "Triage"),
      h("dd", {}, h("strong", {}, triageName(run.status, run.triage.band)), promise ? h("div", { class: "soft" }, promise) : null),
      ...(run.calibrated ? [h("dt", {}, "Tumour"), h("dd", {}, slideProbabilityWords(run))] : []),
      h("dt", {}, "Slide score"),
      h("dd", {}, slideScoreWords(run)),
      h("dt", {}, "Model"),
      h("dd", {}, `${run.model.name} ${run.model.version}, ${run.profile}`),
      h("dt", {}, "Tissue read"),
      h("dd", {}, `${percent(run.tissue.analysed)} of ${run.tissue.mm2.toFixed(0)} mm\u00b2${run.blurred ? `, ${percent(run.blurred)} out of focus` : ""}`),
    ),
  );
}

/** What must be known before any lesion is looked at stands first. */
export function summaryComesFirst(run: AiRun): boolean {
  return notices(run).length > 0;
}
