/** The auditor at a slide: the AI and every read beside each other; nothing here can be changed. */

import { h } from "../dom";
import type { Command, Keys } from "../keys";
import { limit } from "../numbers";
import { redraw } from "../redraw";
import { boxOf } from "../viewer/geometry";
import { OutlineLayer } from "../viewer/lesions";
import type { Stage } from "../viewer/stage";
import { aiSummary, summaryComesFirst } from "./ai-summary";
import { emptyWords } from "./ai-words";
import { buildAiView, fetchAi, lesionOutlines, type AiView } from "./ai-view";
import { Gallery, lesionList } from "./lesion-section";
import { neighbour, verdictOf } from "./lesion-order";
import { otherReadsSection } from "./other-reads";
import type { AiLesion, AiResult, AiRun, Boot, Decision, OtherRead } from "./types";

export async function startAuditMode(boot: Boot, stage: Stage, side: HTMLElement, keys: Keys, onChange: () => void): Promise<Command[]> {
  const reads = boot.audit?.reads ?? [];
  const scroll = h("div", { class: "side-scroll" });
  side.replaceChildren(scroll);
  const marks = new OutlineLayer();
  marks.set(reads.flatMap((read) => read.marks.map((mark) => ({ id: mark.id, label: read.reader, rings: mark.outline, state: "other" as const }))));
  stage.view.addPainter((context, frame) => marks.paint(context, frame));
  const empty = h("section", {}, h("h2", {}, "Reads"), h("p", { class: "soft" }, "No read of this slide is locked yet."));
  const result = boot.audit?.ai_url ? await fetchAi(boot.audit.ai_url) : null;
  if (!result?.run) {
    const words = result?.message || "There is no AI result for this slide.";
    scroll.append(h("section", {}, h("h2", {}, "AI result"), h("p", { class: "notice" }, words)), reads.length ? otherReadsSection(reads, [], "Reads") : empty);
    return [];
  }
  const ai = await buildAiView(stage, result as AiResult & { run: AiRun });
  const summary = h("section", { "aria-label": "AI result" }, h("h2", {}, "AI result"), aiSummary(ai.run));
  const found = [...lesionsPart(ai, reads, stage, keys, onChange), ai.layers.element];
  scroll.append(...(summaryComesFirst(ai.run) ? [summary, ...found] : [...found, summary]), reads.length ? otherReadsSection(reads, ai.lesions, "Reads") : empty);
  return [];
}

/** Decisions on which every reader who decided agrees. */
function agreedDecisions(reads: readonly OtherRead[], lesions: readonly AiLesion[]): Record<string, Decision> {
  const agreed: Record<string, Decision> = {};
  for (const lesion of lesions) {
    const decisions = reads.map((read) => read.decisions[lesion.id]).filter((one): one is Decision => one !== undefined && one.verdict !== "undecided");
    if (decisions[0] && new Set(decisions.map((one) => one.verdict)).size === 1) agreed[lesion.id] = decisions[0];
  }
  return agreed;
}

function readersSay(reads: readonly OtherRead[], lesion: AiLesion): string {
  const verdicts = new Set(reads.map((read) => verdictOf(read.decisions, lesion.id)).filter((verdict) => verdict !== "undecided"));
  return verdicts.size === 0 ? "none" : verdicts.size === 1 ? String([...verdicts][0]) : "differ";
}

function lesionsPart(ai: AiView, reads: readonly OtherRead[], stage: Stage, keys: Keys, onChange: () => void): HTMLElement[] {
  const shared = agreedDecisions(reads, ai.lesions);
  let selected: string | null = null;
  const list = h("div", { class: "lesion-table" });
  const gallery = new Gallery(ai.lesions, (lesion) => select(lesion, true));
  const select = (lesion: AiLesion | null, jump: boolean) => {
    selected = lesion?.id ?? null;
    ai.outlines.selected = selected;
    if (lesion && jump) stage.view.jumpTo(boxOf(lesion.outline));
    draw();
  };
  const draw = () => {
    gallery.select(selected);
    ai.outlines.set(lesionOutlines(ai.lesions, shared, { threshold: ai.run.threshold, selected }));
    redraw(list, lesionList({ lesions: ai.lesions, decisions: shared, selected, threshold: ai.run.threshold, emptyWords: emptyWords(ai.run.threshold, ai.run.status), belowWords: `Below the threshold of ${limit(ai.run.threshold)}`, stateWords: (lesion) => readersSay(reads, lesion), onSelect: (lesion) => select(lesion, true) }));
    stage.view.repaint();
    onChange();
  };
  stage.view.onClick((at) => select(ai.lesions.find((lesion) => lesion.id === ai.outlines.hit(stage.view.frame(), at)) ?? null, false));
  const step = (by: 1 | -1) => select(neighbour(ai.lesions, selected, by), true);
  keys.add([
    ...ai.layers.commands,
    { id: "next-lesion", key: "n", words: "Next lesion", group: "Move", repeats: true, run: () => step(1), foot: { order: 5, words: "" } },
    { id: "previous-lesion", key: "p", words: "Previous lesion", group: "Move", repeats: true, run: () => step(-1), foot: { order: 5, words: "lesion" } },
    { id: "next-lesion-j", key: "j", words: "Next lesion", group: "Move", repeats: true, run: () => step(1) },
    { id: "previous-lesion-k", key: "k", words: "Previous lesion", group: "Move", repeats: true, run: () => step(-1) },
    { id: "escape", key: "Escape", words: "Select nothing", group: "Page", run: () => select(null, false) },
  ]);
  draw();
  return [h("section", { "aria-label": "AI lesions" }, h("h2", {}, "Lesions, strongest first"), gallery.element, list)];
}
