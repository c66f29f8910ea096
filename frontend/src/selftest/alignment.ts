/** Does the slide lie where the page believes? A slide made in the page carries black squares; heatmap cells and outlines are
 * laid on the same squares; then the edges are measured in the pixels that were drawn. */

import { h } from "../dom";
import type { Level0Point, Ring } from "../viewer/geometry";
import { heatGrid, HeatLayer } from "../viewer/heat";
import { OutlineLayer } from "../viewer/lesions";
import { clippedTile, type Descriptor, type DescriptorLevel } from "../viewer/pyramid";
import { SlideView } from "../viewer/slide-view";
import type { DrawerKind } from "../viewer/software-webgl";

export interface AlignmentRow {
  place: string;
  scale: number;
  /** Largest of |dx|, |dy| in CSS pixels. */
  slide_to_computed: number;
  slide_to_heat: number;
  slide_to_outline: number;
}

const WIDTH = 20013;
const HEIGHT = 14007;
const CELL = 64;
const SCALES = [0.26, 0.5, 1, 1.7];
const STAGE = { width: 900, height: 600 };

function levelOf(level: number, downsample: number, tile: number): DescriptorLevel {
  const [width, height] = [Math.ceil(WIDTH / downsample), Math.ceil(HEIGHT / downsample)];
  return { level, width, height, downsample, tile_width: tile, tile_height: tile, cols: Math.ceil(width / tile), rows: Math.ceil(height / tile) };
}

const DESCRIPTOR: Descriptor = {
  width: WIDTH,
  height: HEIGHT,
  mpp_x: 0.25,
  mpp_y: 0.25,
  missing_tiles: 0,
  background: "#ffffff",
  colour: null,
  levels: [levelOf(0, 1, 240), ...[2, 4, 8, 16, 32].map((downsample, index) => levelOf(index + 1, downsample, 512))],
};

const COLS = Math.ceil(WIDTH / CELL);
const ROWS = Math.ceil(HEIGHT / CELL);
/** Cells at the corners (the last column and row hang over the edge) and in the middle. */
const PLACES: readonly { place: string; col: number; row: number }[] = [
  { place: "top left", col: 0, row: 0 },
  { place: "top right", col: COLS - 1, row: 0 },
  { place: "bottom left", col: 0, row: ROWS - 1 },
  { place: "bottom right", col: COLS - 1, row: ROWS - 1 },
  { place: "centre", col: COLS >> 1, row: ROWS >> 1 },
];

export async function measureAlignment(place: HTMLElement, drawer: DrawerKind): Promise<{ drawer: string; rows: AlignmentRow[] }> {
  const stage = h("div", { class: "stage" });
  stage.style.width = `${STAGE.width}px`;
  stage.style.height = `${STAGE.height}px`;
  place.append(stage);
  const view = new SlideView(stage, { descriptor: DESCRIPTOR, drawer, reducedMotion: true, tiles: "", tileImage, label: "Marked slide of the self-test" });
  const values = new Uint8Array(COLS * ROWS);
  for (const { col, row } of PLACES) values[row * COLS + col] = 255;
  const heat = new HeatLayer(heatGrid(values, { rows: ROWS, cols: COLS, x0: 0, y0: 0, cellX0: CELL, cellY0: CELL }), 0.5);
  heat.contourVisible = false;
  heat.opacity = 1;
  const outlines = new OutlineLayer();
  outlines.set(PLACES.map(({ place: id, col, row }) => ({ id, label: "", rings: [ringOf(col, row)], state: "open" })));
  view.addPainter((context, frame) => heat.paint(context, frame));
  view.addPainter((context, frame) => outlines.paint(context, frame));
  await settled(view);
  const rows: AlignmentRow[] = [];
  for (const { place: name, col, row } of PLACES) {
    for (const scale of SCALES) rows.push(await measureOne(view, heat, outlines, name, col, row, scale));
  }
  const kind = view.drawerKind;
  view.destroy();
  stage.remove();
  return { drawer: kind, rows };
}

/** The left and the top edge are compared: right and bottom ones are cut by the slide where the cell hangs over. */
async function measureOne(view: SlideView, heat: HeatLayer, outlines: OutlineLayer, place: string, col: number, row: number, scale: number): Promise<AlignmentRow> {
  const [x0, y0] = [col * CELL, row * CELL];
  const [w0, h0] = [Math.min(CELL, WIDTH - x0), Math.min(CELL, HEIGHT - y0)];
  // Not on whole pixels: the middle of the stage is put on a crooked place of the slide.
  view.goTo([x0 + w0 / 2 + 7.3, y0 + h0 / 2 - 5.7] as Level0Point, scale, true);
  await settled(view);
  const frame = view.frame();
  const left = x0 * frame.scale + frame.dx;
  const top = y0 * frame.scale + frame.dy;
  const inside = { left, top, width: w0 * frame.scale, height: h0 * frame.scale };
  const slide = edgesOf(view.slideCanvas, inside, (r, g, b, a) => (a / 255) * (1 - (r + g + b) / 765));
  [heat.visible, outlines.visible] = [true, false];
  view.repaint();
  await frames(2);
  const heated = edgesOf(view.overlay, inside, (_r, _g, _b, a) => a / 255);
  [heat.visible, outlines.visible] = [false, true];
  view.repaint();
  await frames(2);
  const outlined = lineOf(view.overlay, inside);
  const gap = (a: { left: number; top: number }, b: { left: number; top: number }) => Math.round(Math.max(Math.abs(a.left - b.left), Math.abs(a.top - b.top)) * 100) / 100;
  return { place, scale, slide_to_computed: gap(slide, inside), slide_to_heat: gap(slide, heated), slide_to_outline: gap(slide, outlined) };
}

interface Inside {
  left: number;
  top: number;
  width: number;
  height: number;
}

type Weight = (r: number, g: number, b: number, a: number) => number;

/** Left and top edge of the square, to a fraction of a pixel: from its middle outwards the covered length is summed. */
function edgesOf(canvas: HTMLCanvasElement, inside: Inside, weight: Weight): { left: number; top: number } {
  const { ratio, across, down } = profiles(canvas, inside, weight);
  const length = (profile: { from: number; values: number[] }, middle: number) => {
    const end = Math.round(middle * ratio);
    return (end - profile.values.slice(0, end - profile.from).reduce((sum, value) => sum + value, 0)) / ratio;
  };
  return { left: length(across, inside.left + inside.width / 2), top: length(down, inside.top + inside.height / 2) };
}

/** The middle of the line drawn along the left and the top edge. */
function lineOf(canvas: HTMLCanvasElement, inside: Inside): { left: number; top: number } {
  const { ratio, across, down } = profiles(canvas, inside, (_r, _g, _b, a) => a / 255);
  const middle = (profile: { from: number; values: number[] }, centre: number) => {
    const values = profile.values.slice(0, Math.round(centre * ratio) - profile.from);
    const sum = values.reduce((total, value) => total + value, 0);
    return (values.reduce((total, value, i) => total + value * (profile.from + i + 0.5), 0) / sum) / ratio;
  };
  return { left: middle(across, inside.left + inside.width / 2), top: middle(down, inside.top + inside.height / 2) };
}

/** Mean weight by device pixel from outside the square to its middle, across the middle third of the other direction. */
function profiles(canvas: HTMLCanvasElement, inside: Inside, weight: Weight) {
  const ratio = canvas.width / STAGE.width;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("The drawn pixels cannot be read.");
  const margin = 10;
  const from = { x: Math.floor((inside.left - margin) * ratio), y: Math.floor((inside.top - margin) * ratio) };
  const middle = { x: Math.round((inside.left + inside.width / 2) * ratio), y: Math.round((inside.top + inside.height / 2) * ratio) };
  const half = (size: number) => Math.max(1, Math.round((size * ratio) / 6));
  const mean = (x: number, y: number, w: number, hgt: number) => {
    const { data } = context.getImageData(x, y, w, hgt);
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum += weight(data[i]!, data[i + 1]!, data[i + 2]!, data[i + 3]!);
    return sum / (data.length / 4);
  };
  const across = { from: from.x, values: Array.from({ length: middle.x - from.x }, (_, i) => mean(from.x + i, middle.y - half(inside.height), 1, 2 * half(inside.height))) };
  const down = { from: from.y, values: Array.from({ length: middle.y - from.y }, (_, i) => mean(middle.x - half(inside.width), from.y + i, 2 * half(inside.width), 1)) };
  return { ratio, across, down };
}

function ringOf(col: number, row: number): Ring {
  const [left, top] = [col * CELL, row * CELL];
  const [right, bottom] = [Math.min(WIDTH, left + CELL), Math.min(HEIGHT, top + CELL)];
  return [[left, top], [right, top], [right, bottom], [left, bottom]];
}

/** A tile of the marked slide: white, with the black squares that fall into it. */
function tileImage(level: DescriptorLevel, col: number, row: number): CanvasRenderingContext2D {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [level.tile_width, level.tile_height];
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#000";
  const tile = clippedTile(level, col, row);
  for (const mark of PLACES) {
    const [x, y] = [(mark.col * CELL) / level.downsample - tile.x, (mark.row * CELL) / level.downsample - tile.y];
    context.fillRect(x, y, CELL / level.downsample, CELL / level.downsample);
  }
  return context;
}

async function settled(view: SlideView): Promise<void> {
  for (let i = 0; i < 200 && !view.isFullyLoaded; i++) await frames(1);
  await frames(3);
}

async function frames(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => requestAnimationFrame(resolve));
}
