/** The slide with what surrounds it on the stage in every mode: scale, magnification, minimap, banners, tile pass, movement keys. */

import { h, listen } from "../dom";
import { ApiError, LoggedOut } from "../http";
import type { Command } from "../keys";
import { recolour, type ColourTable } from "./colour";
import { colourControl, type ColourControl } from "./colour-control";
import { Coverage, DWELL_MS, glassColour, tissueCells } from "./coverage";
import type { StagePoint } from "./geometry";
import { Minimap } from "./minimap";
import { isDigitalZoom, magnificationInWords, nextStop, presetScale, PRESETS, PRESETS_WITHOUT_SCALE, scaleBar } from "./scale";
import { SlideView } from "./slide-view";
import { chooseDrawer, webglRenderer, type DrawerKind } from "./software-webgl";
import { keepPass, openView, storeOf, type ViewAnswer } from "./tile-pass";

export interface Stage {
  element: HTMLElement;
  view: SlideView;
  answer: ViewAnswer;
  coverage: Coverage;
  minimap: Minimap;
  /** um per pixel along x; null without scale. */
  mpp: number | null;
  commands: Command[];
  /** A part of the stage for the value under the cursor; empty text hides it. */
  setCursorNote: (words: string) => void;
  onCursor: (listener: (at: StagePoint | null) => void) => () => void;
  banner: Banner;
}

export interface Banner {
  show: (id: string, words: string, action?: { words: string; run: () => void }) => void;
  hide: (id: string) => void;
}

const SPINNER_AFTER_MS = 400;
const PAN_SHARE = 0.25;

/** Opens the slide on `element`. Throws what opening the view threw. */
export async function openStage(element: HTMLElement, viewUrl: string, label: string): Promise<Stage> {
  const answer = await openView(viewUrl);
  const { descriptor } = answer;
  const thumb = h("img", { class: "stage-thumb", alt: "", src: answer.thumbnail });
  element.append(thumb); // at once, while the first tiles are on their way
  element.style.setProperty("--stage", descriptor.background);
  const view = new SlideView(element, {
    descriptor,
    drawer: drawerHere(),
    reducedMotion: matchMedia("(prefers-reduced-motion: reduce)").matches,
    tiles: answer.tiles,
    label: `${label}. Arrow keys move, plus and minus zoom, question mark lists all keys.`,
  });
  const mpp = descriptor.mpp_x;
  const coverage = new Coverage(descriptor.width, descriptor.height, mpp);
  const minimap = new Minimap(view, coverage);
  const banner = makeBanner(element);
  const cursorNote = h("div", { class: "stage-note cursor-value", hidden: true });
  const colours = colourControl(descriptor.colour, `${answer.tiles}colour.lut`, (words) => banner.show("colour", words));
  const tools = zoomTools(view, mpp);
  if (colours.button) tools.append(colours.button);
  element.append(minimap.element, cursorNote, tools);
  watchThumbnail(thumb, minimap, coverage, view, colours);
  colours.onChange((table) => view.setColours(table));
  watchScale(element, view, mpp, colours.words);
  watchLoading(element, view);
  watchTiles(view, banner, viewUrl, answer);
  watchCoverage(view, coverage, minimap);
  if (descriptor.missing_tiles > 0) element.append(missingNote(descriptor.missing_tiles));
  return {
    element,
    view,
    answer,
    coverage,
    minimap,
    mpp,
    banner,
    commands: [...movementCommands(view, minimap, mpp), ...colours.commands],
    setCursorNote: (words) => {
      cursorNote.textContent = words;
      cursorNote.hidden = !words;
    },
    onCursor: (listener) => watchCursor(element, listener),
  };
}

export function drawerHere(): DrawerKind {
  return chooseDrawer(webglRenderer(), new URLSearchParams(location.search).get("drawer"));
}

function zoomTools(view: SlideView, mpp: number | null): HTMLElement {
  const labels = mpp === null ? PRESETS_WITHOUT_SCALE.map((n) => `1:${n}`) : PRESETS.map((mag) => `${mag}\u00d7`);
  const button = (words: string, title: string, run: () => void) =>
    h("button", { type: "button", class: "button", title, "aria-label": title, onclick: run }, words);
  return h(
    "div",
    { class: "stage-tools", role: "group", "aria-label": "Magnification" },
    button("+", "Zoom in", () => view.zoomTo(nextStop(view.targetFrame().scale, mpp, 1))),
    button("\u2212", "Zoom out", () => view.zoomTo(nextStop(view.targetFrame().scale, mpp, -1))),
    button("Fit", "Whole slide", () => view.home()),
    ...labels.map((words, index) => button(words, `Magnification ${words}`, () => view.zoomTo(presetScale(index, mpp)))),
  );
}

function missingNote(count: number): HTMLElement {
  const note = h("div", { class: "stage-note" }, `${count} tiles of the file cannot be read; they are shown blank`);
  note.style.right = "0.75rem";
  note.style.bottom = "0.75rem";
  return note;
}

function makeBanner(stage: HTMLElement): Banner {
  const element = h("div", { class: "stage-banner", role: "status", hidden: true });
  stage.append(element);
  const notes = new Map<string, { words: string; action?: { words: string; run: () => void } | undefined }>();
  const draw = () => {
    const note = [...notes.values()].at(-1);
    element.hidden = !note;
    const action = note?.action;
    element.replaceChildren(h("span", {}, note?.words ?? ""), action ? h("button", { type: "button", class: "button small", onclick: action.run }, action.words) : "");
  };
  return {
    show: (id, words, action) => {
      if (notes.get(id)?.words === words) return;
      notes.delete(id);
      notes.set(id, { words, action });
      draw();
    },
    hide: (id) => {
      if (notes.delete(id)) draw();
    },
  };
}

/** The thumbnail is shown as the tiles are: by the same table of colours. */
function watchThumbnail(thumb: HTMLImageElement, minimap: Minimap, coverage: Coverage, view: SlideView, colours: ColourControl): void {
  const use = () => {
    const picture = h("canvas", { width: thumb.naturalWidth, height: thumb.naturalHeight, class: "stage-thumb", "aria-hidden": "true" });
    const context = picture.getContext("2d", { willReadFrequently: true });
    if (!context || !thumb.naturalWidth) return;
    context.drawImage(thumb, 0, 0);
    const stored = context.getImageData(0, 0, picture.width, picture.height);
    coverage.setTissue(tissueCells(stored.data, picture.width, picture.height, coverage.cols, coverage.rows));
    thumb.replaceWith(picture); // nothing where the tiles have taken its place already
    colours.onChange((table: ColourTable | null) => {
      context.putImageData(stored, 0, 0);
      if (table) recolour(context, table);
      // The stage takes the glass's own colour, so that the edge of the scan is no contrast of its own.
      const glass = glassColour(context.getImageData(0, 0, picture.width, picture.height).data);
      if (glass) view.stage.style.setProperty("--stage", glass);
      minimap.setPicture(picture);
    });
  };
  if (thumb.complete && thumb.naturalWidth) use();
  else thumb.addEventListener("load", use);
  view.onFrame(() => minimap.draw());
}

function watchScale(stage: HTMLElement, view: SlideView, mpp: number | null, colourWords: HTMLElement): void {
  const mag = h("span", { class: "scale-mag" });
  const bar = h("i", {});
  const words = h("span", {});
  const digital = h("span", { class: "digital" }, "digital zoom");
  const barBox = h("span", { class: "scale-bar" }, words, bar);
  stage.append(h("div", { class: "stage-note scale" }, mag, mpp === null ? h("span", {}, "no scale in the file: nothing can be measured") : barBox, digital, colourWords));
  view.onFrame(() => {
    const { scale } = view.frame();
    mag.textContent = magnificationInWords(scale, mpp);
    digital.hidden = !isDigitalZoom(scale);
    const found = scaleBar(scale, mpp);
    if (!found) return;
    bar.style.width = `${found.width}px`;
    words.textContent = found.words;
  });
}

function watchLoading(stage: HTMLElement, view: SlideView): void {
  const note = h("div", { class: "stage-note stage-busy", hidden: true }, "Loading\u2026");
  stage.append(note);
  let timer = 0;
  view.onLoading((loading) => {
    clearTimeout(timer);
    if (loading) timer = window.setTimeout(() => (note.hidden = false), SPINNER_AFTER_MS);
    else {
      note.hidden = true;
      stage.querySelector(".stage-thumb")?.remove();
    }
  });
}

function watchTiles(view: SlideView, banner: Banner, viewUrl: string, opened: ViewAnswer): void {
  const store = storeOf(opened.tiles);
  view.onFailedTiles(() => {
    if (view.failedTiles.size === 0) return banner.hide("tiles");
    banner.show("tiles", "Parts of the slide did not load (hatched).", { words: "Retry", run: () => void retry() });
  });
  const retry = async () => {
    try {
      await openView(viewUrl, store);
    } catch (error) {
      banner.show("pass", wordsOfTrouble(error), reloadAction(error));
      return;
    }
    banner.hide("pass");
    view.retryFailedTiles();
  };
  addEventListener("online", () => view.failedTiles.size > 0 && void retry());
  keepPass(viewUrl, store, {
    onTrouble: (error) => banner.show("pass", wordsOfTrouble(error), reloadAction(error)),
    onRenewed: (_wasLate, answer) => {
      banner.hide("pass");
      if (answer.newer_tiles) banner.show("newer", "Every tile of the slide is checked now.", { words: "Show the checked slide", run: () => location.reload() });
      if (view.failedTiles.size > 0) view.retryFailedTiles();
    },
  });
}

function wordsOfTrouble(error: unknown): string {
  if (error instanceof LoggedOut) return "Your session has ended: the slide cannot be loaded further. Your work is kept.";
  if (error instanceof ApiError) return `The slide can no longer be opened: ${error.message}`;
  return "No connection to the server. What is already loaded stays; trying again.";
}

function reloadAction(error: unknown): { words: string; run: () => void } | undefined {
  return error instanceof LoggedOut ? { words: "Log in in a new tab", run: () => void window.open("/accounts/login/", "_blank", "noopener") } : undefined;
}

function watchCoverage(view: SlideView, coverage: Coverage, minimap: Minimap): void {
  let timer = 0;
  view.onFrame(() => {
    clearTimeout(timer);
    if (!coverage.isEnough(view.frame())) return;
    timer = window.setTimeout(() => {
      if (!document.hidden && coverage.see(view.frame())) minimap.draw();
    }, DWELL_MS);
  });
}

function watchCursor(stage: HTMLElement, listener: (at: StagePoint | null) => void): () => void {
  const removers = [
    listen(stage, "pointermove", (event) => {
      const box = stage.getBoundingClientRect();
      listener([event.clientX - box.left, event.clientY - box.top] as StagePoint);
    }),
    listen(stage, "pointerleave", () => listener(null)),
  ];
  return () => removers.forEach((remove) => remove());
}

function movementCommands(view: SlideView, minimap: Minimap, mpp: number | null): Command[] {
  const arrows: [string, number, number, string][] = [
    ["ArrowLeft", -1, 0, "left"],
    ["ArrowRight", 1, 0, "right"],
    ["ArrowUp", 0, -1, "up"],
    ["ArrowDown", 0, 1, "down"],
  ];
  const pans = arrows.flatMap(([key, x, y, words]): Command[] => [
    { id: `pan-${words}`, key, words: `Move a quarter of a screen ${words}`, group: "Move", repeats: true, run: () => view.panBy(x * PAN_SHARE, y * PAN_SHARE) },
    { id: `page-${words}`, key: `Shift+${key}`, words: `Move a whole screen ${words}`, group: "Move", repeats: true, run: () => view.panBy(x * 0.9, y * 0.9) },
  ]);
  const presets = PRESETS.map((mag, index): Command => ({
    id: `magnification-${index + 1}`,
    key: String(index + 1),
    words: mpp === null ? `1:${PRESETS_WITHOUT_SCALE[index]}` : `${mag}\u00d7`,
    group: "Move",
    run: () => view.zoomTo(presetScale(index, mpp)),
    ...(index === 0 || index === 4 ? { foot: { order: 80, words: index === 4 ? (mpp === null ? "zoom" : "2.5\u201340\u00d7") : "" } } : {}),
  }));
  return [
    ...presets,
    { id: "whole-slide", key: "0", words: "Whole slide", group: "Move", run: () => view.home(), foot: { order: 81, words: "whole slide" } },
    { id: "zoom-in", key: "+", words: "Zoom in", group: "Move", repeats: true, run: () => view.zoomTo(nextStop(view.targetFrame().scale, mpp, 1)) },
    { id: "zoom-in-unshifted", key: "=", words: "Zoom in", group: "Move", repeats: true, unlisted: true, run: () => view.zoomTo(nextStop(view.targetFrame().scale, mpp, 1)) },
    { id: "zoom-out", key: "-", words: "Zoom out", group: "Move", repeats: true, run: () => view.zoomTo(nextStop(view.targetFrame().scale, mpp, -1)) },
    ...pans,
    {
      id: "minimap",
      key: "m",
      words: "Show or hide the small map",
      group: "Look",
      run: () => (minimap.element.hidden = !minimap.element.hidden),
    },
  ];
}
