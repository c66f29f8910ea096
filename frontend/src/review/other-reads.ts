/** Reads of others, for whom may see them: calls, decisions by lesion, marks, coverage. */

import { h } from "../dom";
import { millimetres, percent } from "../numbers";
import { reasonInWords } from "./lesion-section";
import { verdictOf } from "./lesion-order";
import { callInWords, type AiLesion, type OtherRead } from "./types";

export function otherReadsSection(reads: readonly OtherRead[], lesions: readonly AiLesion[], heading = "Other reads"): HTMLElement {
  return h("section", { "aria-label": heading }, h("h2", {}, heading), ...reads.map((read) => oneRead(read, lesions)));
}

function oneRead(read: OtherRead, lesions: readonly AiLesion[]): HTMLElement {
  const minutes = (seconds: number | undefined) => (seconds === undefined ? "" : `${(seconds / 60).toFixed(1)} min`);
  return h(
    "div",
    { class: "stack" },
    h("h3", {}, `${read.reader}${read.role ? `, ${read.role}` : ""}`),
    h(
      "dl",
      { class: "facts small" },
      h("dt", {}, "Unaided"),
      h("dd", {}, callInWords(read.unaided_call)),
      h("dt", {}, "Final"),
      h("dd", {}, callInWords(read.final_call)),
      ...(read.viewed_fraction === undefined ? [] : [h("dt", {}, "Seen at 10\u00d7"), h("dd", {}, percent(read.viewed_fraction))]),
      ...(read.active_seconds ? [h("dt", {}, "Time"), h("dd", {}, `${minutes(read.active_seconds.unaided)} unaided, ${minutes(read.active_seconds.aided)} with AI`)] : []),
    ),
    lesions.length ? decisionsTable(read, lesions) : null,
    read.marks.length ? h("p", { class: "small" }, `Marked: ${read.marks.map((mark) => `${millimetres(mark.longest_diameter_mm)}${mark.missed_by_ai ? " (missed by AI)" : ""}`).join(", ")}`) : null,
  );
}

function decisionsTable(read: OtherRead, lesions: readonly AiLesion[]): HTMLElement {
  const rows = lesions.map((lesion) => {
    const decision = read.decisions[lesion.id];
    const verdict = verdictOf(read.decisions, lesion.id);
    return h("tr", {}, h("th", { scope: "row" }, String(lesion.rank)), h("td", {}, verdict), h("td", {}, decision && verdict === "rejected" ? reasonInWords(decision) : ""));
  });
  return h("table", { class: "table compact" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Lesion"), h("th", { scope: "col" }, "Decision"), h("th", { scope: "col" }, "Reason"))), h("tbody", {}, ...rows));
}
