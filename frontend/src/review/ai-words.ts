/** What the AI says of a slide, in words. What was not read whole is never called negative here. */

import { limit, percent, probability, scoreBeside } from "../numbers";
import type { AiLesion, AiRun } from "./types";

export interface Notice {
  kind: "warn" | "error";
  words: string;
}

/** The network's own score; said to be no more than that when nothing was calibrated on it. */
export function slideScoreWords(run: Pick<AiRun, "status" | "slide_score" | "threshold" | "calibrated">): string {
  if (run.status === "cannot_assess" || run.slide_score === null) return "none: cannot be assessed";
  return `${scoreBeside(run.threshold, run.slide_score)}${run.calibrated ? "" : ", not calibrated"} (threshold ${limit(run.threshold)})`;
}

export function slideProbabilityWords(run: Pick<AiRun, "status" | "slide_probability">): string {
  if (run.status === "cannot_assess") return "none: cannot be assessed";
  return run.slide_probability === null ? "none: not calibrated" : `${chance(run.slide_probability)}, calibrated`;
}

/** A region not read is never negative: said before anything else. */
export function notices(run: Pick<AiRun, "status" | "status_reason" | "tissue" | "unlike_reference">): Notice[] {
  const said: Notice[] = [];
  if (run.status === "cannot_assess") {
    said.push({ kind: "error", words: `The AI could not assess this slide. ${run.status_reason} It says nothing about it, neither positive nor negative.` });
  } else if (run.status === "incomplete" || run.tissue.failed > 0) {
    const reason = run.status_reason || `${percent(run.tissue.failed)} of the tissue could not be read.`;
    said.push({ kind: "warn", words: `The AI judged only part of the tissue. ${reason} That part is not negative, it is unread.` });
  }
  for (const words of run.unlike_reference) said.push({ kind: "warn", words: `${words} The AI's figures may not hold for this slide.` });
  return said;
}

/** The band by name; a slide that was not read whole is in none, whatever was stored. */
export function triageName(status: AiRun["status"], band: AiRun["triage"]["band"]): string {
  if (status === "cannot_assess") return "Cannot assess";
  if (status !== "complete") return "Must be reviewed";
  return { ai_negative: "AI-negative band", must_review: "Must be reviewed", ai_positive: "AI-positive band", none: "No band", cannot_assess: "Cannot assess" }[band];
}

/** The promise behind the band, without the name that stands before it. What the notices have said is not said again. */
export function triagePromise(run: Pick<AiRun, "status" | "triage">): string {
  if (run.status !== "complete") return "";
  const { band, words } = run.triage;
  const named = [triageName(run.status, band), "No AI-negative band"].find((name) => words.startsWith(`${name}.`) || words.startsWith(`${name}:`));
  if (!named) return words;
  const promise = words.slice(named.length + 1).trim();
  return promise.charAt(0).toUpperCase() + promise.slice(1);
}

/** A calibrated probability: 0.874 is 87 %. No fit is certain: what was rounded to 0 or 1 on its way is not shown as such. */
function chance(p: number): string {
  return p < 0.01 ? "<1 %" : p > 0.99 ? ">99 %" : percent(p);
}

export function lesionChance(lesion: Pick<AiLesion, "probability">): string {
  return lesion.probability === null ? "" : chance(lesion.probability);
}

/** One finding, said to who cannot see the table. */
export function findingWords(lesion: Pick<AiLesion, "probability" | "score">): string {
  return lesion.probability === null ? `score ${probability(lesion.score)}, not calibrated` : `probability ${chance(lesion.probability)}`;
}

export function emptyWords(threshold: number, status: AiRun["status"]): string {
  if (status === "cannot_assess") return "The AI could not assess this slide; the final call is yours alone.";
  const where = status === "incomplete" ? " in the part that it could judge" : "";
  return `The AI found no lesion at or above ${limit(threshold)}${where}. The heatmap (H) shows what lies below. This is not a negative call: that is yours.`;
}

/** What the manifest of a case holds of the AI for one slide. */
export interface SignedAi {
  model: string;
  model_version: string;
  threshold: number;
  status: AiRun["status"];
  status_reason: string;
  slide_score: number | null;
  slide_probability: number | null;
  triage: AiRun["triage"]["band"];
  failed_fraction: number;
  lesions: number;
}

/** What a signer reads of the AI in one line. */
export function signedAiWords(ai: SignedAi): string {
  if (ai.status === "cannot_assess") {
    const reason = ai.status_reason ? `: ${ai.status_reason}` : "";
    return `could not assess this slide${reason}${ai.lesions > 0 ? ` (${counted(ai.lesions)} shown all the same)` : ""}`;
  }
  const parts = [counted(ai.lesions)];
  if (ai.slide_probability !== null) parts.push(`tumour probability ${chance(ai.slide_probability)}`);
  else parts.push(ai.slide_score === null ? "no score" : `score ${probability(ai.slide_score)}, not calibrated`);
  if (ai.status === "complete" && ai.triage !== "none") parts.push(triageName(ai.status, ai.triage));
  if (ai.status === "incomplete") parts.push("not judged whole");
  if (ai.failed_fraction > 0) parts.push(`${percent(ai.failed_fraction)} unread`);
  return parts.join(", ");
}

function counted(lesions: number): string {
  return lesions === 1 ? "1 lesion" : `${lesions} lesions`;
}
