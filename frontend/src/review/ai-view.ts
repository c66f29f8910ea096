/** The AI result on the slide: fetched, made into layers. Only ever built after the server said that the AI may be seen. */

import { getJson, send, inWords } from "../http";
import { heatGrid, HeatLayer } from "../viewer/heat";
import { mountAiLayers, type AiLayers } from "../viewer/heat-controls";
import { OutlineLayer, type Outline } from "../viewer/lesions";
import type { Stage } from "../viewer/stage";
import { mustBeDecided, verdictOf } from "./lesion-order";
import type { AiLesion, AiResult, AiRun, Decision } from "./types";

export interface AiView {
  run: AiRun;
  lesions: readonly AiLesion[];
  outlines: OutlineLayer;
  layers: AiLayers;
}

export function fetchAi(url: string): Promise<AiResult> {
  return getJson<AiResult>(url);
}

export async function buildAiView(stage: Stage, result: AiResult & { run: AiRun }): Promise<AiView> {
  const outlines = new OutlineLayer();
  const { heat, problem } = await fetchHeat(result);
  const lesions = [...result.lesions].sort((a, b) => a.rank - b.rank);
  return { run: result.run, lesions, outlines, layers: mountAiLayers(stage, outlines, heat, problem) };
}

/** A missing heatmap takes nothing else away: lesions and outlines stay usable. */
async function fetchHeat(result: AiResult & { run: AiRun }): Promise<{ heat: HeatLayer | null; problem: string }> {
  const meta = result.heatmap;
  if (!meta || meta.rows === 0 || meta.cols === 0) return { heat: null, problem: "There is no heatmap for this slide." };
  try {
    const bytes = new Uint8Array(await (await send(meta.url)).arrayBuffer());
    const grid = heatGrid(bytes, { rows: meta.rows, cols: meta.cols, x0: meta.x0, y0: meta.y0, cellX0: meta.cell_px0_x, cellY0: meta.cell_px0_y });
    return { heat: new HeatLayer(grid, Math.round(result.run.threshold * 100) / 100), problem: "" };
  } catch (error) {
    return { heat: null, problem: `The heatmap could not be loaded (${inWords(error)}). Load the page again to try once more.` };
  }
}

/** Weak findings would bury the strong ones: below the threshold only what was decided, or is chosen in the list, is drawn. */
export function lesionOutlines(
  lesions: readonly AiLesion[],
  decisions: Readonly<Record<string, Decision>>,
  { threshold, selected }: { threshold: number; selected: string | null },
): Outline[] {
  return lesions
    .map((lesion) => ({ lesion, verdict: verdictOf(decisions, lesion.id) }))
    .filter(({ lesion, verdict }) => mustBeDecided(lesion, threshold) || verdict !== "undecided" || lesion.id === selected)
    .map(({ lesion, verdict }) => ({ id: lesion.id, label: String(lesion.rank), rings: lesion.outline, state: verdict === "undecided" ? "open" : verdict }));
}
