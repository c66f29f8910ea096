/** A reader at work on one slide: unaided call, lock, AI, decisions, final call, signature. Wires the parts together. */

import { ask } from "../dialog";
import { choose } from "../choose";
import { h } from "../dom";
import { getJson, postJson, inWords } from "../http";
import type { Command, Keys } from "../keys";
import { createStore } from "../store";
import { RingDrawing } from "../viewer/draw-ring";
import { boxOf, type Level0Point } from "../viewer/geometry";
import { OutlineLayer } from "../viewer/lesions";
import type { Stage } from "../viewer/stage";
import { buildAiView, fetchAi, lesionOutlines, type AiView } from "./ai-view";
import { askForCall, completeCall } from "./call-section";
import { neighbour, nextUndecided } from "./lesion-order";
import { confirmLock } from "./lock-dialog";
import { markName } from "./marks-section";
import { reportProgress } from "./progress-report";
import { mountReadPanel } from "./read-panel";
import { askToLogIn } from "./session-dialog";
import { signCase } from "./sign-dialog";
import { CALLS, REJECT_REASONS, type AiLesion, type AiRun, type Boot, type Call, type CallValue, type Decision, type Mark, type ReadState, type Verdict } from "./types";
import { WriteQueue, type SaveState, type Write } from "./writes";

export interface ReadView {
  state: ReadState;
  ai: AiView | null;
  /** Why there is no AI view although it may be seen; empty otherwise. */
  aiMessage: string;
  selected: string | null;
  save: SaveState;
  pending: readonly Write[];
  isDrawing: boolean;
  drawProblem: string;
}

const ASK_AI_AGAIN_MS = 15_000;

export interface ReadMode {
  commands: Command[];
}

export async function startReadMode(boot: Boot, stage: Stage, side: HTMLElement, keys: Keys, onChange: () => void): Promise<ReadMode> {
  const api = `/api/reads/${boot.read_id}/`;
  const first = await getJson<ReadState>(api);
  const store = createStore<ReadView>({ state: first, ai: null, aiMessage: "", selected: null, save: "saved", pending: [], isDrawing: false, drawProblem: "" });
  const own = new OutlineLayer();
  const { view, banner } = stage;
  let drawing: RingDrawing | null = null;

  // ---------------------------------------------------------------- writing
  const queue = new WriteQueue<ReadState>({
    version: first.version,
    send: async (path, body, key) => (await postJson<ReadState>(api + path, body, key)) as ReadState,
    onState: (state) => store.set({ state }),
    onSaveState: (save, pending) => {
      store.set({ save, pending: [...pending] });
      if (save === "waiting") banner.show("save", `No connection. ${pending.length} ${pending.length === 1 ? "step is" : "steps are"} kept here and sent when it is back.`, { words: "Try now", run: () => queue.resume() });
      else banner.hide("save");
      if (save === "logged_out") void askToLogIn(pending.length, () => queue.resume());
    },
    onStale: (current, lost) => {
      if (current) store.set({ state: current });
      banner.show("stale", `This read was changed in another window. Not done: ${lost.map((write) => write.words).join("; ")}. What you see now is how it stands.`, { words: "Understood", run: () => banner.hide("stale") });
    },
    onRefused: (write, error) => banner.show("refused", `Not done: ${write.words}. ${error.message}`, { words: "Understood", run: () => banner.hide("refused") }),
    storage: sessionSafe(() => localStorage),
    storageKey: `metadet.writes.${boot.user.name}.${boot.read_id}`,
  });
  addEventListener("online", () => queue.resume());
  addEventListener("beforeunload", (event) => {
    if (queue.pending.length > 0) event.preventDefault();
  });

  const refresh = async () => {
    await queue.settled();
    const state = await getJson<ReadState>(api);
    queue.setVersion(state.version);
    store.set({ state });
  };

  // ---------------------------------------------------------------- acts
  const call = async (value: CallValue) => {
    const complete = await completeCall(value);
    if (complete) pushCall(complete);
  };
  const pushCall = ({ value, reason }: { value: CallValue; reason: string }) =>
    queue.push("calls/", { call: value, reason }, `call ${CALLS.find((one) => one.value === value)?.words.toLowerCase() ?? value}`);
  const askCall = async () => {
    const complete = await askForCall(store.get().state.phase === "unaided" ? "Your unaided call" : "Your final call");
    if (complete) pushCall(complete);
  };
  const lock = async () => {
    await queue.settled();
    const { state } = store.get();
    if (!state.can.lock) return;
    if (await confirmLock(state, stage.coverage.fraction())) queue.push("lock/", { confirm: true }, "lock the unaided read");
  };
  const decide = async (verdict: Exclude<Verdict, "undecided">) => {
    const lesion = selectedLesion();
    if (!lesion) return goToUndecided();
    const body: Record<string, unknown> = { lesion: lesion.id, verdict };
    if (verdict === "rejected") {
      const chosen = await choose(`Reject lesion ${lesion.rank}: what is it?`, REJECT_REASONS.map((reason) => (reason.value === "other" ? { ...reason, asksFor: "What is it?" } : reason)));
      if (!chosen) return;
      Object.assign(body, { reason: chosen.value, text: chosen.text });
    }
    queue.push("decisions/", body, `${verdict === "accepted" ? "accept" : "reject"} lesion ${lesion.rank}`);
    if (keys.settings.autoAdvance) goToUndecided();
  };
  const undo = () => {
    if (drawing) return drawing.undoPoint();
    queue.push("undo/", {}, "undo");
  };
  const sign = async () => {
    await queue.settled();
    if (!store.get().state.can.sign) return;
    const told = { words: "Understood", run: () => banner.hide("sign") };
    const showAsItIsNow = () => refresh().catch((error: unknown) => banner.show("sign", `The read as it is now could not be loaded. ${inWords(error)} Load the page again.`, told));
    try {
      const signed = await signCase(boot.case.id);
      if (!signed) return;
      await showAsItIsNow(); // signed it is, whether that can be shown or not
      await ask({ title: "Signed", body: [h("p", {}, `Case ${boot.case.accession} signed by ${signed.printed_name}, ${signed.local_time.replace("T", " ")}.`), h("p", { class: "hash" }, signed.manifest_sha256), h("p", {}, h("a", { href: signed.report_url }, "Report of this signature"))], actions: [], cancel: "Close" });
    } catch (error) {
      banner.show("sign", inWords(error), told);
      await refresh().catch(() => undefined); // what is wrong stands in the banner
    }
  };

  // ---------------------------------------------------------------- drawing
  const stopDrawing = () => {
    drawing?.stop();
    drawing = null;
    store.set({ isDrawing: false, drawProblem: "" });
  };
  const draw = () => {
    if (drawing) return stopDrawing();
    drawing = new RingDrawing(
      view,
      (ring) => {
        drawing = null;
        store.set({ isDrawing: false, drawProblem: "" });
        queue.push("marks/", { outline: [insideSlide(ring, view.options.descriptor)], note: "" }, "mark a lesion");
      },
      () => store.set({ drawProblem: drawing?.problem ?? "" }),
    );
    store.set({ isDrawing: true });
  };
  const removeMark = (mark: Mark) => queue.push(`marks/${mark.id}/remove/`, {}, "remove a mark");

  // ---------------------------------------------------------------- lesions
  const selectedLesion = () => store.get().ai?.lesions.find((lesion) => lesion.id === store.get().selected) ?? null;
  const select = (id: string | null) => store.set({ selected: id });
  const goTo = (lesion: AiLesion | null) => {
    if (!lesion) return;
    select(lesion.id);
    view.jumpTo(boxOf(lesion.outline));
  };
  const goToUndecided = () => {
    const { ai, selected } = store.get();
    if (!ai) return;
    const next = nextUndecided(ai.lesions, shownDecisions(store.get()), selected);
    if (next) goTo(next);
  };
  const step = (by: 1 | -1) => goTo(neighbour(store.get().ai?.lesions ?? [], store.get().selected, by));
  const clickOn = (at: readonly [number, number]) => {
    if (drawing) return;
    const frame = view.frame();
    const lesion = store.get().ai?.outlines.hit(frame, at as never) ?? null;
    select(lesion ?? own.hit(frame, at as never));
  };
  view.onClick(clickOn);
  view.addPainter((context, frame) => own.paint(context, frame));

  // ---------------------------------------------------------------- the AI, after the lock only
  let asking = false;
  const loadAi = async () => {
    if (asking || store.get().ai) return;
    asking = true;
    try {
      const result = await fetchAi(`${api}ai/`);
      if (!result.run) store.set({ aiMessage: result.message });
      else await showAi(result as typeof result & { run: AiRun });
      if (result.pending) setTimeout(() => void loadAi(), ASK_AI_AGAIN_MS);
    } catch (error) {
      store.set({ aiMessage: `The AI result could not be loaded: ${inWords(error)}` });
    } finally {
      asking = false;
    }
  };
  const showAi = async (result: Parameters<typeof buildAiView>[1]) => {
    await refresh(); // a late reveal changes the version of the read; shown without it, the next decision would be refused
    const ai = await buildAiView(stage, result);
    keys.add([...ai.layers.commands, ...decideCommands]);
    store.set({ ai, aiMessage: "" });
  };

  const canDecide = () => store.get().state.can.decide && (store.get().ai?.lesions.length ?? 0) > 0;
  const hasLesions = () => (store.get().ai?.lesions.length ?? 0) > 0;
  const decideCommands: Command[] = [
    { id: "accept", key: "a", words: "Accept the lesion, go to the next undecided", group: "Decide", isValid: canDecide, run: () => void decide("accepted"), foot: { order: 10, words: "accept" } },
    { id: "reject", key: "x", words: "Reject the lesion with a reason", group: "Decide", isValid: canDecide, run: () => void decide("rejected"), foot: { order: 11, words: "reject" } },
    { id: "next-lesion", key: "n", words: "Next lesion", group: "Move", repeats: true, isValid: hasLesions, run: () => step(1), foot: { order: 5, words: "" } },
    { id: "previous-lesion", key: "p", words: "Previous lesion", group: "Move", repeats: true, isValid: hasLesions, run: () => step(-1), foot: { order: 5, words: "lesion" } },
    { id: "next-lesion-j", key: "j", words: "Next lesion", group: "Move", repeats: true, isValid: hasLesions, run: () => step(1) },
    { id: "previous-lesion-k", key: "k", words: "Previous lesion", group: "Move", repeats: true, isValid: hasLesions, run: () => step(-1) },
  ];

  // ---------------------------------------------------------------- keeping everything in step
  const drawOutlines = (value: ReadView) => {
    own.set(value.state.marks.map((mark, index) => ({ id: mark.id, label: markName(index), rings: mark.outline, state: "own" })));
    own.selected = value.selected;
    if (value.ai) {
      value.ai.outlines.set(lesionOutlines(value.ai.lesions, shownDecisions(value), { threshold: value.ai.run.threshold, selected: value.selected }));
      value.ai.outlines.selected = value.selected;
    }
    view.repaint();
  };
  const panel = mountReadPanel(side, store, {
    boot,
    stage,
    onCall: (value) => void call(value),
    onLock: () => void lock(),
    onSign: () => void sign(),
    onDecide: (verdict) => void decide(verdict),
    onUndo: undo,
    onSelect: goTo,
    onDraw: draw,
    onFinishDrawing: () => drawing?.finish(),
    onJumpToMark: (mark) => {
      select(mark.id);
      view.jumpTo(boxOf(mark.outline));
    },
    onRemoveMark: removeMark,
    onAskAi: () => void loadAi(),
    onResume: () => queue.resume(),
  });
  store.subscribe((value) => {
    drawOutlines(value);
    panel.draw(value);
    if (value.state.ai_allowed && !value.ai && !asking && !value.aiMessage) void loadAi();
    onChange();
  });
  drawOutlines(store.get());
  panel.draw(store.get());
  if (first.ai_allowed) void loadAi();

  stage.coverage.restore(sessionSafe(() => localStorage)?.getItem(coverageKey(boot)) ?? null);
  setInterval(() => sessionSafe(() => localStorage)?.setItem(coverageKey(boot), stage.coverage.save()), 15_000);
  reportProgress(`${api}progress/`, () => stage.coverage.fraction(), () => store.get().state.phase !== "signed");

  const goToSlide = (which: "next_slide" | "prev_slide") => {
    const link = store.get().state[which];
    if (link) location.assign(link.url);
  };
  return {
    commands: [
      { id: "call", key: "c", words: "Record your call (then a digit)", group: "Decide", isValid: () => store.get().state.can.call || store.get().state.can.final_call, run: () => void askCall(), foot: { order: 20, words: "call" } },
      { id: "lock", key: "l", words: "Lock the unaided read (asks first)", group: "Decide", isValid: () => store.get().state.can.lock, run: () => void lock() },
      { id: "sign", key: "s", words: "Sign the case (shows what is signed, asks for the password)", group: "Decide", isValid: () => store.get().state.can.sign, run: () => void sign() },
      { id: "undo", key: "u", words: "Undo the last decision or mark", group: "Decide", isValid: canUndo, run: undo, foot: { order: 12, words: "undo" } },
      { id: "undo-ctrl", key: "Ctrl+z", words: "Undo", group: "Decide", unlisted: true, isValid: canUndo, run: undo },
      { id: "draw", key: "d", words: "Draw a lesion: drag, or click corner by corner", group: "Draw", isValid: () => store.get().state.can.mark, run: draw, foot: { order: 30, words: "draw" } },
      { id: "finish-ring", key: "Enter", words: "Close the outline", group: "Draw", isValid: () => drawing !== null, run: () => drawing?.finish() },
      { id: "corner", key: " ", words: "Set a corner at the cross in the middle", group: "Draw", isValid: () => drawing !== null, run: () => drawing?.addAtCentre() },
      { id: "next-undecided", key: "g", words: "Go to the next undecided lesion", group: "Move", isValid: hasLesions, run: goToUndecided },
      { id: "next-slide", key: ".", words: "Next slide of the case", group: "Page", isValid: () => store.get().state.next_slide !== null, run: () => goToSlide("next_slide") },
      { id: "previous-slide", key: ",", words: "Previous slide of the case", group: "Page", isValid: () => store.get().state.prev_slide !== null, run: () => goToSlide("prev_slide") },
      { id: "escape", key: "Escape", words: "Stop drawing, or select nothing", group: "Page", run: () => (drawing ? stopDrawing() : select(null)) },
    ],
  };

  function canUndo(): boolean {
    return drawing !== null || store.get().state.can.undo || queue.pending.length > 0;
  }
}

/** The server's decisions with those that are still on their way laid over them. */
export function shownDecisions(value: Pick<ReadView, "state" | "pending">): Record<string, Decision> {
  const decisions = { ...value.state.decisions };
  for (const write of value.pending) {
    if (write.path !== "decisions/") continue;
    const { lesion, verdict, reason, text } = write.body as { lesion: string; verdict: Verdict; reason?: string; text?: string };
    decisions[lesion] = { verdict, reason: reason ?? "", text: text ?? "" };
  }
  return decisions;
}

export function shownCall(value: Pick<ReadView, "state" | "pending">, stage: "unaided" | "final"): Call | null {
  const isUnaided = value.state.phase === "unaided";
  const pending = value.pending.findLast((write) => write.path === "calls/");
  if (pending && isUnaided === (stage === "unaided")) return { value: pending.body["call"] as CallValue, reason: String(pending.body["reason"] ?? "") };
  return stage === "unaided" ? value.state.unaided_call : value.state.final_call;
}

function insideSlide(ring: readonly Level0Point[], slide: { width: number; height: number }): number[][] {
  return ring.map(([x, y]) => [Math.round(Math.max(0, Math.min(slide.width, x)) * 100) / 100, Math.round(Math.max(0, Math.min(slide.height, y)) * 100) / 100]);
}

function coverageKey(boot: Boot): string {
  return `metadet.seen.${boot.read_id}`;
}

function sessionSafe(storage: () => Storage): Storage | null {
  try {
    return storage();
  } catch {
    return null; // storage is forbidden in this browser
  }
}
