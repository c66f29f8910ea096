/** The AI's lesions: the strongest fields first as pictures, then the ranked list with the state of each. */

import { h, svg } from "../dom";
import { millimetres, scoreBeside } from "../numbers";
import { findingWords, lesionChance } from "./ai-words";
import { verdictOf } from "./lesion-order";
import { REJECT_REASONS, SIZE_WORDS, type AiLesion, type Decision, type Verdict } from "./types";

const GALLERY = 6;

export interface LesionSectionOptions {
  lesions: readonly AiLesion[];
  decisions: Readonly<Record<string, Decision>>;
  selected: string | null;
  threshold: number;
  emptyWords: string;
  /** Words of the line before the lesions below the threshold. */
  belowWords: string;
  /** State in words where it is not the reader's own decision. */
  stateWords?: (lesion: AiLesion) => string;
  onSelect: (lesion: AiLesion) => void;
}

/** Pictures are made once and kept: drawing the list anew must not load them again. */
export class Gallery {
  readonly element = h("div", { class: "gallery", "aria-label": "Strongest fields", role: "group" });
  #cards = new Map<string, HTMLButtonElement>();

  constructor(lesions: readonly AiLesion[], onSelect: (lesion: AiLesion) => void) {
    for (const lesion of lesions.filter((one) => one.field_url).slice(0, GALLERY)) {
      const card = h(
        "button",
        { type: "button", class: "field-card", "aria-label": `Lesion ${lesion.rank}, ${findingWords(lesion)}`, onclick: () => onSelect(lesion) },
        h("img", { src: lesion.field_url, alt: "", loading: "lazy" }),
        h("span", {}, String(lesion.rank)),
      );
      this.#cards.set(lesion.id, card);
      this.element.append(card);
    }
    this.element.hidden = this.#cards.size === 0;
  }

  select(id: string | null): void {
    for (const [lesion, card] of this.#cards) card.setAttribute("aria-current", String(lesion === id));
  }
}

export function lesionList(options: LesionSectionOptions): HTMLElement {
  const { lesions, threshold } = options;
  if (lesions.length === 0) return h("p", { class: "soft" }, options.emptyWords);
  const rows: HTMLElement[] = [];
  let belowShown = false;
  for (const lesion of lesions) {
    if (!belowShown && lesion.score < threshold) {
      belowShown = true;
      rows.push(h("li", { class: "soft small" }, options.belowWords));
    }
    rows.push(h("li", {}, lesionRow(lesion, options)));
  }
  const calibrated = isCalibrated(lesions);
  return h(
    "div",
    { class: calibrated ? "has-chance" : "" },
    calibrated ? null : h("p", { class: "hint" }, "Scores are the network's own, not calibrated: no probabilities."),
    h("div", { class: "lesion-head", "aria-hidden": "true" }, h("span", {}), h("span", {}, "#"), h("span", {}, "class"), h("span", { class: "r" }, "longest"), h("span", { class: "r" }, "score"), calibrated && h("span", { class: "r" }, "prob."), h("span", {}, "state")),
    h("ol", { class: "lesions", "aria-label": "Lesions, strongest first" }, ...rows),
  );
}

function isCalibrated(lesions: readonly AiLesion[]): boolean {
  return lesions.some((lesion) => lesion.probability !== null);
}

function lesionRow(lesion: AiLesion, options: LesionSectionOptions): HTMLElement {
  const decision = options.decisions[lesion.id];
  const verdict = verdictOf(options.decisions, lesion.id);
  const words = options.stateWords?.(lesion) ?? (verdict === "undecided" ? "open" : verdict);
  const reason = decision?.verdict === "rejected" ? reasonInWords(decision) : "";
  return h(
    "button",
    {
      type: "button",
      class: "lesion",
      "data-verdict": verdict,
      "data-focus": `lesion-${lesion.id}`,
      "aria-current": String(lesion.id === options.selected),
      title: reason || false,
      onclick: () => options.onSelect(lesion),
    },
    verdictMark(verdict),
    h("span", {}, String(lesion.rank)),
    h("span", {}, `${SIZE_WORDS[lesion.size_class] ?? lesion.size_class}${lesion.borderline ? " ?" : ""}`, lesion.borderline ? h("span", { class: "visually-hidden" }, " (near a class limit)") : null),
    h("span", { class: "r" }, millimetres(lesion.longest_diameter_mm)),
    h("span", { class: "r" }, scoreBeside(options.threshold, lesion.score)),
    isCalibrated(options.lesions) && h("span", { class: "r", title: "Calibrated probability that this is tumour" }, lesionChance(lesion), h("span", { class: "visually-hidden" }, " probable")),
    h("span", { class: "w" }, words, reason ? h("span", { class: "visually-hidden" }, `, ${reason}`) : null),
  );
}

export function reasonInWords(decision: Decision): string {
  const words = REJECT_REASONS.find((reason) => reason.value === decision.reason)?.words ?? decision.reason;
  return decision.text ? (decision.reason === "other" ? decision.text : `${words}: ${decision.text}`) : words;
}

/** Open: a ring. Accepted: a full disc with a tick. Rejected: a struck ring. */
export function verdictMark(verdict: Verdict): Element {
  const ring = { cx: 8, cy: 8, r: 6, stroke: "currentColor", "stroke-width": 2 };
  if (verdict === "accepted") {
    return svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("circle", { ...ring, fill: "currentColor" }), svg("path", { d: "M4.8 8.2l2.2 2.2 4.2-4.6", fill: "none", stroke: "var(--panel)", "stroke-width": 1.8 }));
  }
  const circle = svg("circle", { ...ring, fill: "none" });
  if (verdict === "rejected") return svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, circle, svg("path", { d: "M4 12L12 4", stroke: "currentColor", "stroke-width": 2 }));
  return svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, circle);
}
