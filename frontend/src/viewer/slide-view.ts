/** The one file that touches OpenSeadragon: the slide on its stage, and where it lies (Frame) for whoever paints on top. */

import OpenSeadragon from "openseadragon";
import { h } from "../dom";
import { recolour, type ColourTable } from "./colour";
import { boxesTouch, visibleBox, type Box0, type Frame, type Level0Point, type StagePoint } from "./geometry";
import { clippedTile, coarseToFine, levelScale, tileAt, tilePath, wantedLevel, type Descriptor, type DescriptorLevel } from "./pyramid";
import type { DrawerKind } from "./software-webgl";

export type Painter = (context: CanvasRenderingContext2D, frame: Frame) => void;

export interface SlideViewOptions {
  descriptor: Descriptor;
  drawer: DrawerKind;
  reducedMotion: boolean;
  /** Address of the folder of tiles, with its slash; not needed where `tileImage` draws them. */
  tiles: string;
  /** Draws a tile in the page instead of loading it: the self-test's marked slide. */
  tileImage?: (level: DescriptorLevel, col: number, row: number) => CanvasRenderingContext2D;
  label: string;
}

/** Deepest zoom: four screen pixels per slide pixel; beyond that only squares are seen. */
const DEEPEST = 4;
const ANIMATION_S = 0.35;
/** A level is drawn when its pixels are at least this large on the screen: with a factor-2 pyramid at most 1.4. */
const MIN_PIXEL_RATIO = 0.7;
/** A jump fits its target into this share of the stage, so that the surroundings are judged too. */
const JUMP_SHARE = 0.45;

interface TileOnItsWay {
  getData: (kind: "context2d") => Promise<CanvasRenderingContext2D | undefined>;
  setData: (data: CanvasRenderingContext2D, kind: "context2d") => Promise<void>;
  outdated: () => boolean;
}

export class SlideView {
  readonly overlay: HTMLCanvasElement;
  /** Tiles that did not come after all tries, as boxes of level-0 pixels. */
  readonly failedTiles = new Map<string, { box: Box0; downsample: number; retry: () => void }>();
  #viewer: OpenSeadragon.Viewer;
  #levels: DescriptorLevel[];
  #painters: Painter[] = [];
  #resize: ResizeObserver;
  #queued = 0;
  #colours: ColourTable | null = null;
  #listeners = { frame: new Set<() => void>(), failed: new Set<() => void>(), loading: new Set<(loading: boolean) => void>() };

  constructor(
    readonly stage: HTMLElement,
    readonly options: SlideViewOptions,
  ) {
    this.#levels = coarseToFine(options.descriptor);
    keepOutInlineStyle();
    const place = h("div", { class: "stage-slide" });
    this.overlay = h("canvas", { class: "stage-overlay", "aria-hidden": "true" });
    stage.prepend(place, this.overlay);
    this.#viewer = new OpenSeadragon.Viewer(this.#viewerOptions(place));
    const canvas = this.#viewer.canvas as HTMLElement;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", options.label);
    if (options.drawer === "canvas") {
      // The canvas drawer stretches every tile by one CSS pixel, which puts the slide up to 2.5 px beside its outlines.
      (this.#viewer.drawer as unknown as { minimumOverlapRequired: () => boolean }).minimumOverlapRequired = () => false;
    }
    this.#viewer.addHandler("update-viewport", () => this.#paint());
    this.#viewer.addHandler("tile-load-failed", (event: unknown) => this.#noteFailure(event));
    this.#viewer.addHandler("open", () => this.#opened());
    if (options.descriptor.colour?.changes) this.#viewer.addHandler("tile-invalidated", (event: unknown) => this.#recolour(event as TileOnItsWay));
    this.#resize = new ResizeObserver(() => this.repaint());
    this.#resize.observe(stage);
  }

  get isOpen(): boolean {
    return this.#viewer.world.getItemCount() > 0;
  }

  get isFullyLoaded(): boolean {
    return this.isOpen && this.#viewer.world.getItemAt(0).getFullyLoaded();
  }

  get drawerKind(): string {
    return (this.#viewer.drawer as unknown as { getType: () => string }).getType();
  }

  /** The canvas the slide is drawn on; the self-test reads its pixels. */
  get slideCanvas(): HTMLCanvasElement {
    return (this.#viewer.drawer as unknown as { canvas: HTMLCanvasElement }).canvas;
  }

  frame(): Frame {
    const item = this.#viewer.world.getItemAt(0);
    const viewport = this.#viewer.viewport;
    const { width: width0 } = this.options.descriptor;
    const origin = viewport.pixelFromPoint(item.imageToViewportCoordinates(0, 0, true), true);
    const far = viewport.pixelFromPoint(item.imageToViewportCoordinates(width0, 0, true), true);
    return { scale: (far.x - origin.x) / width0, dx: origin.x, dy: origin.y, width: this.stage.clientWidth, height: this.stage.clientHeight };
  }

  /** Where the view will be once the present movement ends; keys pressed during a movement add up from there. */
  targetFrame(): Frame {
    const viewport = this.#viewer.viewport;
    const bounds = viewport.getBounds(false);
    const { clientWidth: width, clientHeight: height } = this.stage;
    const scale = width / (bounds.width * this.options.descriptor.width);
    const width0 = this.options.descriptor.width;
    return { scale, dx: -bounds.x * width0 * scale, dy: -bounds.y * width0 * scale, width, height };
  }

  addPainter(painter: Painter): () => void {
    this.#painters.push(painter);
    this.repaint();
    return () => {
      this.#painters = this.#painters.filter((other) => other !== painter);
      this.repaint();
    };
  }

  onFrame(listener: () => void): () => void {
    return add(this.#listeners.frame, listener);
  }

  onFailedTiles(listener: () => void): () => void {
    return add(this.#listeners.failed, listener);
  }

  onLoading(listener: (loading: boolean) => void): () => void {
    return add(this.#listeners.loading, listener);
  }

  onClick(listener: (at: StagePoint) => void): () => void {
    const handler = (event: { quick: boolean; position: { x: number; y: number } }) => {
      if (event.quick) listener([event.position.x, event.position.y] as StagePoint);
    };
    this.#viewer.addHandler("canvas-click", handler as never);
    return () => this.#viewer.removeHandler("canvas-click", handler as never);
  }

  repaint(): void {
    if (this.#queued || !this.isOpen) return;
    this.#queued = requestAnimationFrame(() => {
      this.#queued = 0;
      this.#paint();
    });
  }

  centre(): Level0Point {
    const { width } = this.options.descriptor;
    const centre = this.#viewer.viewport.getCenter(false);
    return [centre.x * width, centre.y * width] as Level0Point;
  }

  /** Moves so that `at` stands in the middle at `scale` CSS pixels per slide pixel. */
  goTo(at: Level0Point, scale: number, immediately = false): void {
    const viewport = this.#viewer.viewport;
    const { width } = this.options.descriptor;
    const zoom = (Math.min(DEEPEST, scale) * width) / this.stage.clientWidth;
    const still = immediately || this.options.reducedMotion;
    viewport.zoomTo(zoom, undefined, still);
    viewport.panTo(new OpenSeadragon.Point(at[0] / width, at[1] / width), still);
    viewport.applyConstraints(still);
  }

  zoomTo(scale: number): void {
    this.goTo(this.centre(), scale);
  }

  panTo(at: Level0Point): void {
    this.goTo(at, this.targetFrame().scale);
  }

  /** By shares of the stage: (0.25, 0) moves a quarter of a screen to the right. */
  panBy(across: number, down: number): void {
    const { scale, width, height } = this.targetFrame();
    const [x0, y0] = this.centre();
    this.panTo([x0 + (across * width) / scale, y0 + (down * height) / scale] as Level0Point);
  }

  home(): void {
    this.#viewer.viewport.goHome(this.options.reducedMotion);
  }

  /** Brings the box to the middle, at most `JUMP_SHARE` of the stage and never above 1:1. */
  jumpTo(box: Box0): void {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const fit = JUMP_SHARE * Math.min(width / Math.max(1, box.width0), height / Math.max(1, box.height0));
    this.goTo([box.x0 + box.width0 / 2, box.y0 + box.height0 / 2] as Level0Point, Math.min(1, fit));
  }

  /** Switched off while a lesion is drawn: a drag then draws. */
  setMouseNavigation(on: boolean): void {
    this.#viewer.setMouseNavEnabled(on);
  }

  /** Shows the slide by a table of colours, or (null) as stored; tiles that are loaded are done anew from what came. */
  setColours(table: ColourTable | null): void {
    if (table === this.#colours) return;
    this.#colours = table;
    void this.#viewer.world.requestInvalidate(true);
  }

  retryFailedTiles(): void {
    const failed = [...this.failedTiles.values()];
    this.failedTiles.clear();
    for (const tile of failed) tile.retry();
    this.#viewer.forceRedraw();
    this.#listeners.failed.forEach((listener) => listener());
    this.repaint();
  }

  destroy(): void {
    cancelAnimationFrame(this.#queued);
    this.#resize.disconnect();
    this.#viewer.destroy();
    this.overlay.remove();
    this.stage.querySelector(".stage-slide")?.remove();
  }

  #viewerOptions(element: HTMLElement): OpenSeadragon.Options {
    const { descriptor, drawer, reducedMotion } = this.options;
    return {
      element,
      tileSources: [this.#tileSource()],
      drawer: [drawer],
      showNavigationControl: false,
      showNavigator: false,
      keyboardNavEnabled: false, // its w/a/s/d/r/f would take keys that decide about lesions
      animationTime: reducedMotion ? 0 : ANIMATION_S,
      springStiffness: 10,
      blendTime: 0,
      immediateRender: false,
      placeholderFillStyle: descriptor.background,
      maxTilesPerFrame: 64,
      imageLoaderLimit: 24,
      minPixelRatio: MIN_PIXEL_RATIO,
      maxImageCacheCount: 800,
      tileRetryMax: 2,
      tileRetryDelay: 1500,
      timeout: 20000,
      maxZoomPixelRatio: DEEPEST,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.3,
      zoomPerScroll: 1.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
    } as OpenSeadragon.Options;
  }

  #tileSource(): OpenSeadragon.TileSource {
    const { descriptor, tiles, tileImage } = this.options;
    const levels = this.#levels;
    const level = (index: number) => levels[index] as DescriptorLevel;
    const source = new OpenSeadragon.TileSource({
      width: descriptor.width,
      height: descriptor.height,
      tileSize: level(levels.length - 1).tile_width,
      tileOverlap: 0,
      minLevel: 0,
      maxLevel: levels.length - 1,
    } as OpenSeadragon.TileSourceOptions);
    const own = {
      getTileUrl: (index: number, col: number, row: number) => tiles + tilePath(level(index), col, row),
      getLevelScale: (index: number) => levelScale(level(index)),
      getTileWidth: (index: number) => level(index).tile_width,
      getTileHeight: (index: number) => level(index).tile_height,
      getNumTiles: (index: number) => new OpenSeadragon.Point(level(index).cols, level(index).rows),
      getTileAtPoint: (index: number, point: OpenSeadragon.Point) => {
        const { col, row } = tileAt(level(index), point.x * descriptor.width, point.y * descriptor.width);
        return new OpenSeadragon.Point(col, row);
      },
      getTileBounds: (index: number, col: number, row: number, isSource?: boolean) => {
        const tile = clippedTile(level(index), col, row);
        if (isSource) return new OpenSeadragon.Rect(0, 0, tile.width, tile.height);
        const unit = level(index).downsample / descriptor.width;
        return new OpenSeadragon.Rect(tile.x * unit, tile.y * unit, tile.width * unit, tile.height * unit);
      },
      ...(tileImage && {
        downloadTileStart: (job: { tile: { level: number; x: number; y: number }; finish: (data: unknown, request: null, kind: string) => void }) => {
          const { level: index, x, y } = job.tile;
          job.finish(tileImage(level(index), x, y), null, "context2d");
        },
        downloadTileAbort: () => {},
      }),
    };
    return Object.assign(source, own);
  }

  #opened(): void {
    const item = this.#viewer.world.getItemAt(0);
    item.addHandler("fully-loaded-change", (event: { fullyLoaded: boolean }) => {
      this.#listeners.loading.forEach((listener) => listener(!event.fullyLoaded));
    });
    this.#listeners.loading.forEach((listener) => listener(true));
    this.repaint();
  }

  /** OpenSeadragon hands every tile through here before it draws it, with a copy of what came. */
  async #recolour(tile: TileOnItsWay): Promise<void> {
    if (!this.#colours) return;
    const context = await tile.getData("context2d");
    if (!context || !this.#colours || tile.outdated()) return;
    recolour(context, this.#colours);
    await tile.setData(context, "context2d");
  }

  #noteFailure(event: unknown): void {
    const { tile, maxReached } = event as { tile: { level: number; x: number; y: number; exists: boolean; loading: boolean }; maxReached: boolean };
    if (!maxReached) return;
    const level = this.#levels[tile.level];
    if (!level) return;
    const clipped = clippedTile(level, tile.x, tile.y);
    const d = level.downsample;
    const box = { x0: clipped.x * d, y0: clipped.y * d, width0: clipped.width * d, height0: clipped.height * d };
    const retry = () => {
      tile.exists = true;
      tile.loading = false;
    };
    this.failedTiles.set(tilePath(level, tile.x, tile.y), { box, downsample: d, retry });
    this.#listeners.failed.forEach((listener) => listener());
    this.repaint();
  }

  #paint(): void {
    if (!this.isOpen) return;
    const { overlay, stage } = this;
    const ratio = devicePixelRatio;
    const [width, height] = [Math.round(stage.clientWidth * ratio), Math.round(stage.clientHeight * ratio)];
    if (overlay.width !== width || overlay.height !== height) [overlay.width, overlay.height] = [width, height];
    const context = overlay.getContext("2d");
    if (!context) return;
    const frame = this.frame();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, stage.clientWidth, stage.clientHeight);
    this.#hatchFailures(context, frame);
    for (const painter of this.#painters) {
      context.save();
      painter(context, frame);
      context.restore();
    }
    this.#listeners.frame.forEach((listener) => listener());
  }

  /** Grey hatch where tiles did not come: what is not shown must not look like empty glass.
   *
   * Only tiles of the level this view wants: a coarser one that failed lies under finer ones that came. */
  #hatchFailures(context: CanvasRenderingContext2D, frame: Frame): void {
    const view = visibleBox(frame);
    context.save();
    context.strokeStyle = "rgb(110 110 110 / 75%)";
    context.lineWidth = 1;
    const wanted = wantedLevel(this.#levels, frame.scale, MIN_PIXEL_RATIO).downsample;
    for (const { box, downsample } of this.failedTiles.values()) {
      if (downsample !== wanted || !boxesTouch(box, view)) continue;
      const [x, y] = [box.x0 * frame.scale + frame.dx, box.y0 * frame.scale + frame.dy];
      const [w, hgt] = [box.width0 * frame.scale, box.height0 * frame.scale];
      context.save();
      context.beginPath();
      context.rect(x, y, w, hgt);
      context.clip();
      context.stroke();
      context.beginPath();
      for (let offset = -hgt; offset < w; offset += 12) {
        context.moveTo(x + offset, y + hgt);
        context.lineTo(x + offset + hgt, y);
      }
      context.stroke();
      context.restore();
    }
    context.restore();
  }
}

/** OpenSeadragon writes a style element unless one with this mark is there; the Content-Security-Policy refuses it, loudly. */
function keepOutInlineStyle(): void {
  const mark = "data-openseadragon-mobile-css";
  if (!document.querySelector(`style[${mark}]`)) {
    const placeholder = document.createElementNS("urn:metadet:placeholder", "style"); // matches the selector, styles nothing
    placeholder.setAttribute(mark, "true");
    document.head.append(placeholder);
  }
}

function add<T>(set: Set<T>, listener: T): () => void {
  set.add(listener);
  return () => set.delete(listener);
}
