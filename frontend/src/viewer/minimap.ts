/** The whole slide small: where one is, what was seen; a click goes there at the present magnification. */

import { h, listen } from "../dom";
import { percent } from "../numbers";
import type { Coverage } from "./coverage";
import { visibleBox, type Level0Point } from "./geometry";
import type { SlideView } from "./slide-view";

const WIDEST = 200;
const TALLEST = 170;

export class Minimap {
  readonly element: HTMLElement;
  #canvas: HTMLCanvasElement;
  #share = h("span", {});
  #picture: HTMLCanvasElement | null = null;

  constructor(
    readonly view: SlideView,
    readonly coverage: Coverage | null,
  ) {
    const { width, height } = view.options.descriptor;
    const fit = Math.min(WIDEST / width, TALLEST / height);
    const [cssWidth, cssHeight] = [Math.max(24, Math.round(width * fit)), Math.max(24, Math.round(height * fit))];
    this.#canvas = h("canvas", { width: cssWidth * 2, height: cssHeight * 2, role: "img", "aria-label": "Whole slide with the part in view" });
    this.#canvas.style.width = `${cssWidth}px`;
    this.#canvas.style.height = `${cssHeight}px`;
    this.element = h("div", { class: "minimap" }, this.#canvas, coverage ? h("div", { class: "minimap-note" }, h("span", {}, coverage.rule), this.#share) : null);
    let down = false;
    const go = (event: PointerEvent) => {
      const box = this.#canvas.getBoundingClientRect();
      view.panTo([((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height] as Level0Point);
    };
    listen(this.#canvas, "pointerdown", (event) => {
      down = true;
      this.#canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    listen(this.#canvas, "pointermove", (event) => down && go(event));
    listen(this.#canvas, "pointerup", () => (down = false));
  }

  setPicture(picture: HTMLCanvasElement): void {
    this.#picture = picture;
    this.draw();
  }

  draw(): void {
    const context = this.#canvas.getContext("2d");
    if (!context || !this.view.isOpen) return;
    const { width: w, height: hgt } = this.#canvas;
    const { width, height, background } = this.view.options.descriptor;
    context.fillStyle = background;
    context.fillRect(0, 0, w, hgt);
    if (this.#picture) context.drawImage(this.#picture, 0, 0, w, hgt);
    if (this.coverage) this.#paintSeen(context, w, hgt);
    const view = visibleBox(this.view.frame());
    const box = [(view.x0 / width) * w, (view.y0 / height) * hgt, Math.max(8, (view.width0 / width) * w), Math.max(8, (view.height0 / height) * hgt)] as const;
    context.lineWidth = 5;
    context.strokeStyle = "#fff";
    context.strokeRect(...box);
    context.lineWidth = 2.5;
    context.strokeStyle = "#1b1f21";
    context.strokeRect(...box);
    const share = this.coverage?.fraction() ?? null;
    this.#share.textContent = share === null ? "" : percent(share);
  }

  /** Seen squares are tinted; unseen tissue keeps its own colour. */
  #paintSeen(context: CanvasRenderingContext2D, w: number, hgt: number): void {
    const { coverage } = this;
    if (!coverage) return;
    const [cw, ch] = [(coverage.cell0 / coverage.width0) * w, (coverage.cell0 / coverage.height0) * hgt];
    const edge = (index: number, size: number) => Math.round(index * size); // whole pixels: no seams between cells
    context.fillStyle = "rgb(0 112 125 / 30%)";
    for (let row = 0; row < coverage.rows; row++) {
      for (let col = 0; col < coverage.cols; col++) if (coverage.isSeen(col, row)) context.fillRect(edge(col, cw), edge(row, ch), edge(col + 1, cw) - edge(col, cw), edge(row + 1, ch) - edge(row, ch));
    }
  }
}
