/** The panel beside the slide for a reader: phase, call, AI, lesions, own marks, the next big step. */

import { h } from "../dom";
import { limit } from "../numbers";
import { redraw } from "../redraw";
import type { Store } from "../store";
import type { Stage } from "../viewer/stage";
import { aiSummary, summaryComesFirst } from "./ai-summary";
import { emptyWords } from "./ai-words";
import { callButtons } from "./call-section";
import { Gallery, lesionList, reasonInWords } from "./lesion-section";
import { decidedCount, mustBeDecided, verdictOf } from "./lesion-order";
import { marksSection } from "./marks-section";
import { otherReadsSection } from "./other-reads";
import { shownCall, shownDecisions, type ReadView } from "./read-mode";
import { callInWords, type AiLesion, type Boot, type CallValue, type Mark, type ReadState, type Verdict } from "./types";

export interface ReadPanelActs {
  boot: Boot;
  stage: Stage;
  onCall: (value: CallValue) => void;
  onLock: () => void;
  onSign: () => void;
  onDecide: (verdict: Exclude<Verdict, "undecided">) => void;
  onUndo: () => void;
  onSelect: (lesion: AiLesion) => void;
  onDraw: () => void;
  onFinishDrawing: () => void;
  onJumpToMark: (mark: Mark) => void;
  onRemoveMark: (mark: Mark) => void;
  onAskAi: () => void;
  onResume: () => void;
}

export function mountReadPanel(side: HTMLElement, store: Store<ReadView>, acts: ReadPanelActs): { draw: (value: ReadView) => void } {
  const phase = h("section", { "aria-label": "Where this read stands" });
  const call = h("section", { "aria-label": "Call" });
  const ai = h("div", {}); // stays empty, and out of every list, until the AI may be seen
  const marks = h("section", { "aria-label": "Own lesions" });
  const others = h("div", {});
  const foot = h("div", { class: "side-foot" });
  side.replaceChildren(h("div", { class: "side-scroll" }, phase, ai, call, marks, others), foot);
  const aiPart = mountAiPart(ai, acts);
  let selectedBefore: string | null = null;

  return {
    draw(value) {
      const { state } = value;
      redraw(phase, ...phasePart(state));
      redraw(call, ...callPart(value, acts));
      aiPart(value);
      redraw(
        marks,
        marksSection({
          marks: state.marks,
          canMark: state.can.mark,
          canRemove: (mark) => state.can.mark && (mark.stage === "final" || state.phase === "unaided"),
          isDrawing: value.isDrawing,
          onDraw: acts.onDraw,
          onJump: acts.onJumpToMark,
          onRemove: acts.onRemoveMark,
        }),
        value.isDrawing && drawingHelp(value, acts),
      );
      redraw(others, state.other_reads.length > 0 && otherReadsSection(state.other_reads, value.ai?.lesions ?? []));
      redraw(foot, ...footPart(value, acts, store));
      drawHeader(value);
      if (value.selected !== selectedBefore) side.querySelector(`[data-focus="lesion-${value.selected}"]`)?.scrollIntoView({ block: "nearest" });
      selectedBefore = value.selected;
    },
  };
}

function phasePart(state: ReadState): HTMLElement[] {
  const steps: [string, ReadState["phase"][]][] = [
    ["With AI", ["aided"]],
    ["Final call", ["final"]],
    ["Signed", ["signed"]],
  ];
  if (state.protocol !== "concurrent") steps.unshift(["Unaided", ["unaided"]]);
  const here = steps.findIndex(([, phases]) => phases.includes(state.phase));
  const list = h(
    "ol",
    { class: "phase" },
    ...steps.map(([words], index) => h("li", { class: index < here || state.phase === "signed" ? "is-done" : "", "aria-current": index === here ? "step" : false }, words)),
  );
  const words = {
    unaided: "Read the slide without the AI and record your call.",
    aided: state.ai_allowed ? "Look at what the AI found, decide, then make your final call." : "By the protocol of this case the AI is not shown after this call. Make your final call.",
    final: "The final call is recorded. Sign when every slide of the case has one.",
    signed: "Signed. Open the case to amend it.",
  }[state.phase];
  const note = state.protocol === "concurrent" ? h("p", { class: "hint" }, "Concurrent protocol: the AI is shown from the start, and counted so.") : null;
  return [list, h("p", { class: "hint" }, words), ...(note ? [note] : [])];
}

function callPart(value: ReadView, acts: ReadPanelActs): HTMLElement[] {
  const { state } = value;
  if (state.phase === "unaided") {
    return [h("h2", {}, "Your unaided call"), callButtons(shownCall(value, "unaided"), state.can.call, acts.onCall)];
  }
  const final = shownCall(value, "final");
  const parts: HTMLElement[] = [];
  if (state.unaided_call) parts.push(h("p", { class: "small" }, "Unaided: ", h("strong", {}, callInWords(state.unaided_call)), ", locked"));
  if (state.phase === "aided" && state.final_call) {
    parts.push(h("p", { class: "notice warn" }, `You changed a decision or mark after your final call (${callInWords(state.final_call)}). Record it again.`));
  }
  parts.push(h("h2", {}, "Your final call"), callButtons(state.phase === "aided" && value.pending.every((write) => write.path !== "calls/") ? null : final, state.can.final_call, acts.onCall));
  if (final?.reason) parts.push(h("p", { class: "hint" }, final.reason));
  return parts;
}

/** Layers and gallery are made once; only the list and the buttons are drawn anew. */
function mountAiPart(place: HTMLElement, acts: ReadPanelActs): (value: ReadView) => void {
  let shown: ReadView["ai"] = null;
  let gallery: Gallery | null = null;
  const summary = h("section", { "aria-label": "AI result" });
  const decide = h("div", {});
  const list = h("div", { class: "lesion-table lesion-scroll" });
  return (value) => {
    const { state, ai } = value;
    if (!state.ai_allowed) return;
    if (!ai) {
      if (!value.aiMessage) return redraw(place, h("section", {}, h("p", { class: "soft" }, "Loading the AI result\u2026")));
      return redraw(
        place,
        h("section", { "aria-label": "AI result" }, h("h2", {}, "AI result"), h("p", { class: "notice" }, value.aiMessage), h("button", { type: "button", class: "button small", "data-focus": "ask-ai", onclick: acts.onAskAi }, "Ask again")),
      );
    }
    if (shown !== ai) {
      shown = ai;
      gallery = new Gallery(ai.lesions, acts.onSelect);
      summary.replaceChildren(h("h2", {}, "AI result"), aiSummary(ai.run));
      const lesions = h("section", { "aria-label": "AI lesions" }, h("h2", {}, "Lesions, strongest first"), gallery.element, decide, list);
      place.replaceChildren(...(summaryComesFirst(ai.run) ? [summary, lesions, ai.layers.element] : [lesions, ai.layers.element, summary]));
    }
    const decisions = shownDecisions(value);
    gallery?.select(value.selected);
    redraw(decide, ai.lesions.length > 0 && decidePart(value, acts));
    redraw(list, lesionList({ lesions: ai.lesions, decisions, selected: value.selected, threshold: ai.run.threshold, emptyWords: emptyWords(ai.run.threshold, ai.run.status), belowWords: `Below the threshold of ${limit(ai.run.threshold)}: may be left undecided`, onSelect: acts.onSelect }));
  };
}

function decidePart(value: ReadView, acts: ReadPanelActs): HTMLElement {
  const lesion = value.ai?.lesions.find((one) => one.id === value.selected);
  const decisions = shownDecisions(value);
  const decision = lesion ? decisions[lesion.id] : undefined;
  const off = !lesion || !value.state.can.decide;
  const words = !lesion
    ? "Choose a lesion, or press N for the first."
    : verdictOf(decisions, lesion.id) === "rejected" && decision
      ? `Lesion ${lesion.rank} rejected: ${reasonInWords(decision)}`
      : `Lesion ${lesion.rank}: ${verdictOf(decisions, lesion.id) === "accepted" ? "accepted" : "undecided"}`;
  return h(
    "div",
    { class: "section" },
    h("p", { class: "small", role: "status" }, words),
    h(
      "div",
      { class: "decide" },
      h("button", { type: "button", class: "button", disabled: off, "data-focus": "accept", onclick: () => acts.onDecide("accepted") }, "Accept", h("kbd", {}, "A")),
      h("button", { type: "button", class: "button", disabled: off, "data-focus": "reject", onclick: () => acts.onDecide("rejected") }, "Reject", h("kbd", {}, "X")),
      h("button", { type: "button", class: "button", disabled: !value.state.can.undo && value.pending.length === 0, "data-focus": "undo", onclick: acts.onUndo }, "Undo", h("kbd", {}, "U")),
    ),
  );
}

function drawingHelp(value: ReadView, acts: ReadPanelActs): HTMLElement {
  return h(
    "div",
    { class: "section" },
    h("p", { class: "small" }, "Drag around the lesion, or click corner by corner. By keyboard: arrows move the slide, Space sets a corner at the cross. Enter closes, U takes a corner back, Esc stops."),
    value.drawProblem ? h("p", { class: "field-error", role: "alert" }, value.drawProblem) : null,
    h("button", { type: "button", class: "button small", "data-focus": "finish", onclick: acts.onFinishDrawing }, "Close the outline"),
  );
}

function footPart(value: ReadView, acts: ReadPanelActs, _store: Store<ReadView>): HTMLElement[] {
  const { state } = value;
  const parts: HTMLElement[] = [saveLine(value, acts)];
  if (state.phase === "unaided") {
    parts.push(h("button", { type: "button", class: "button primary wide", disabled: !state.can.lock, "data-focus": "lock", onclick: acts.onLock }, state.protocol === "second_look" ? "Lock the unaided read\u2026" : "Lock and show the AI\u2026"));
    if (state.why_not.lock) parts.push(h("p", { class: "hint" }, state.why_not.lock));
    return parts;
  }
  const next = state.next_slide;
  const nextButton = (isMain: boolean) => next && h("a", { class: `button wide ${isMain ? "primary" : ""}`, href: next.url, "data-focus": "next-slide" }, `Next slide: ${next.name}`, h("kbd", {}, "."));
  if (state.phase !== "signed") {
    const signIsNext = state.can.sign;
    if (next && !signIsNext) parts.push(nextButton(state.phase === "final") as HTMLElement);
    parts.push(h("button", { type: "button", class: `button wide ${signIsNext ? "primary" : ""}`, disabled: !state.can.sign, "data-focus": "sign", onclick: acts.onSign }, "Sign the case\u2026"));
    if (state.why_not.sign) parts.push(h("p", { class: "hint" }, state.why_not.sign));
    return parts;
  }
  if (next) parts.push(nextButton(false) as HTMLElement);
  parts.push(h("a", { class: "button wide", href: state.case.url ?? `/cases/${state.case.id}/` }, "Open the case"));
  return parts;
}

function saveLine(value: ReadView, acts: ReadPanelActs): HTMLElement {
  const count = value.pending.length;
  const words = { saved: "Everything is saved.", saving: "Saving\u2026", waiting: `${count} not saved yet: no connection.`, logged_out: `${count} not saved yet: your session has ended.` }[value.save];
  const isWaiting = value.save === "waiting" || value.save === "logged_out";
  return h("p", { class: `save-state ${isWaiting ? "is-waiting" : ""}`, role: "status" }, words, isWaiting ? h("button", { type: "button", class: "button quiet small", "data-focus": "resume", onclick: acts.onResume }, "Try now") : null);
}

function drawHeader(value: ReadView): void {
  const place = document.getElementById("viewer-progress");
  if (!place) return;
  const { ai } = value;
  const needed = ai?.lesions.filter((lesion) => mustBeDecided(lesion, ai.run.threshold)) ?? [];
  if (!ai || needed.length === 0) return place.replaceChildren();
  const done = decidedCount(needed, shownDecisions(value));
  place.replaceChildren(h("progress", { max: needed.length, value: done, "aria-hidden": "true" }), h("span", {}, `${done} / ${needed.length} decided`));
}
