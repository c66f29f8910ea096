/** The AI's layers in the side panel: outlines, heatmap, threshold, opacity, palette, legend. Reader and auditor share it. */

import { h } from "../dom";
import type { Command } from "../keys";
import { probability } from "../numbers";
import { level0FromStage } from "./geometry";
import { valueAt, type HeatLayer } from "./heat";
import type { OutlineLayer } from "./lesions";
import { colourAt, type PaletteName } from "./palettes";
import type { Stage } from "./stage";

const THRESHOLD_STEP = 0.05;

export interface AiLayers {
  element: HTMLElement;
  commands: Command[];
  /** False while Q is held: nothing of the AI shows. */
  stop: () => void;
}

export function mountAiLayers(stage: Stage, outlines: OutlineLayer, heat: HeatLayer | null, heatProblem: string): AiLayers {
  const { view } = stage;
  let peeking = false;
  const removers = [
    view.addPainter((context, frame) => {
      if (!peeking) heat?.paint(context, frame);
    }),
    view.addPainter((context, frame) => {
      if (!peeking) outlines.paint(context, frame);
    }),
  ];

  const outlineBox = h("input", { type: "checkbox", checked: outlines.visible });
  const heatBox = h("input", { type: "checkbox", checked: false, disabled: heat === null });
  const threshold = slider("Threshold", heat?.threshold ?? 0.5, 0, 1, 0.01);
  const opacity = slider("Opacity", heat?.opacity ?? 0.5, 0, 1, 0.05);
  const contour = h("input", { type: "checkbox", checked: true });
  const palette = h("select", { id: "palette" }, h("option", { value: "viridis" }, "viridis"), h("option", { value: "cividis" }, "cividis"));
  const legend = makeLegend();

  const setOutlines = (on: boolean) => {
    outlines.visible = outlineBox.checked = on;
    view.repaint();
  };
  const setHeat = (on: boolean) => {
    if (!heat) return;
    heat.visible = heatBox.checked = on;
    details.hidden = !on;
    view.repaint();
  };
  const setThreshold = (value: number) => {
    if (!heat) return;
    heat.threshold = Math.max(0, Math.min(1, Math.round(value * 100) / 100));
    threshold.show(heat.threshold);
    heat.recolour();
    legend.draw(heat.palette, heat.threshold);
    view.repaint();
  };
  outlineBox.addEventListener("change", () => setOutlines(outlineBox.checked));
  heatBox.addEventListener("change", () => setHeat(heatBox.checked));
  threshold.input.addEventListener("input", () => setThreshold(Number(threshold.input.value)));
  opacity.input.addEventListener("input", () => {
    if (heat) heat.opacity = Number(opacity.input.value);
    opacity.show(Number(opacity.input.value));
    view.repaint();
  });
  contour.addEventListener("change", () => {
    if (heat) heat.contourVisible = contour.checked;
    view.repaint();
  });
  palette.addEventListener("change", () => {
    if (!heat) return;
    heat.palette = palette.value as PaletteName;
    setThreshold(heat.threshold);
  });

  const details = h(
    "div",
    { hidden: true },
    threshold.element,
    opacity.element,
    h("div", { class: "slider" }, h("label", { for: "palette" }, "Palette"), palette),
    h("label", { class: "choice small" }, contour, "Line at the threshold"),
    legend.element,
  );
  const element = h(
    "section",
    { "aria-label": "AI layers" },
    h("h2", {}, "AI layers"),
    h("div", { class: "layer" }, h("label", { class: "choice" }, outlineBox, "Outlines"), h("kbd", {}, "O")),
    h("div", { class: "layer" }, h("label", { class: "choice" }, heatBox, "Heatmap"), h("kbd", {}, "H")),
    heatProblem ? h("p", { class: "notice warn" }, heatProblem) : null,
    details,
  );
  if (heat) legend.draw(heat.palette, heat.threshold);
  removers.push(
    stage.onCursor((at) => {
      const p = at && heat?.visible && !peeking ? valueAt(heat.grid, level0FromStage(view.frame(), at)) : null;
      stage.setCursorNote(p === null ? "" : `network output ${probability(p)}`);
    }),
  );
  const peek = (on: boolean) => {
    peeking = on;
    view.repaint();
  };
  return { element, commands: layerCommands({ outlines, heat, setOutlines, setHeat, setThreshold, peek }), stop: () => removers.forEach((remove) => remove()) };
}

function layerCommands(parts: {
  outlines: OutlineLayer;
  heat: HeatLayer | null;
  setOutlines: (on: boolean) => void;
  setHeat: (on: boolean) => void;
  setThreshold: (value: number) => void;
  peek: (on: boolean) => void;
}): Command[] {
  const { outlines, heat, setOutlines, setHeat, setThreshold, peek } = parts;
  const isHeatOn = () => heat?.visible ?? false;
  return [
    { id: "outlines", key: "o", words: "Outlines on or off", group: "Look", run: () => setOutlines(!outlines.visible) },
    { id: "heatmap", key: "h", words: "Heatmap on or off", group: "Look", isValid: () => heat !== null, run: () => setHeat(!isHeatOn()), foot: { order: 40, words: "heatmap" } },
    { id: "peek", key: "q", words: "Hide everything of the AI", group: "Look", run: () => peek(true), release: () => peek(false), foot: { order: 41, words: "hold: hide AI" } },
    { id: "threshold-down", key: "[", words: "Threshold 0.05 lower", group: "Look", repeats: true, isValid: isHeatOn, run: () => setThreshold((heat?.threshold ?? 0) - THRESHOLD_STEP) },
    { id: "threshold-up", key: "]", words: "Threshold 0.05 higher", group: "Look", repeats: true, isValid: isHeatOn, run: () => setThreshold((heat?.threshold ?? 0) + THRESHOLD_STEP) },
  ];
}

function slider(words: string, value: number, min: number, max: number, step: number) {
  const id = `slider-${words.toLowerCase()}`;
  const input = h("input", { id, type: "range", min, max, step, value });
  const output = h("output", { for: id }, value.toFixed(2));
  return {
    element: h("div", { class: "slider" }, h("label", { for: id }, words), input, output),
    input,
    show: (shown: number) => {
      input.value = String(shown);
      output.textContent = shown.toFixed(2);
    },
  };
}

function makeLegend() {
  const canvas = h("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const words = h("p", {});
  const ticks = h("div", { class: "legend-ticks", "aria-hidden": "true" });
  return {
    element: h("div", { class: "legend" }, canvas, ticks, words),
    draw: (palette: PaletteName, threshold: number) => {
      const context = canvas.getContext("2d");
      for (let x = 0; x < 256 && context; x++) {
        const [r, g, b] = colourAt(palette, x / 255);
        context.fillStyle = x / 255 < threshold ? "#e4e4e4" : `rgb(${r} ${g} ${b})`;
        context.fillRect(x, 0, 1, 1);
      }
      const tick = h("span", {}, threshold > 0.12 && threshold < 0.88 ? threshold.toFixed(2) : "");
      tick.style.left = `${threshold * 100}%`;
      ticks.replaceChildren(h("span", {}, "0"), tick, h("span", {}, "1"));
      words.textContent = `Colour is the network's own output, no calibrated probability. Palette ${palette}; nothing below ${threshold.toFixed(2)}.`;
    },
  };
}
