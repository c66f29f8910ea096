/** Which lesion is decided, which comes next. Pure: given the list in rank order and the decisions. */

import type { AiLesion, Decision, Verdict } from "./types";

export function verdictOf(decisions: Readonly<Record<string, Decision>>, id: string): Verdict {
  return decisions[id]?.verdict ?? "undecided";
}

/** Lesions at or above the run's threshold have to be decided before signing; weaker ones may be. */
export function mustBeDecided(lesion: AiLesion, threshold: number): boolean {
  return lesion.score >= threshold;
}

export function decidedCount(lesions: readonly AiLesion[], decisions: Readonly<Record<string, Decision>>): number {
  return lesions.filter((lesion) => verdictOf(decisions, lesion.id) !== "undecided").length;
}

/** The next undecided lesion after `from` in rank order, from the start again at the end; null when all are decided. */
export function nextUndecided(lesions: readonly AiLesion[], decisions: Readonly<Record<string, Decision>>, from: string | null): AiLesion | null {
  const start = lesions.findIndex((lesion) => lesion.id === from);
  for (let step = 1; step <= lesions.length; step++) {
    const lesion = lesions[(start + step + lesions.length) % lesions.length] as AiLesion;
    if (verdictOf(decisions, lesion.id) === "undecided") return lesion;
  }
  return null;
}

export function neighbour(lesions: readonly AiLesion[], from: string | null, step: 1 | -1): AiLesion | null {
  if (lesions.length === 0) return null;
  const at = lesions.findIndex((lesion) => lesion.id === from);
  if (at < 0) return lesions[step > 0 ? 0 : lesions.length - 1] ?? null;
  return lesions[Math.max(0, Math.min(lesions.length - 1, at + step))] ?? null;
}
