/** `?selftest=1` on any viewer page: measures this workstation and says whether overlays can be trusted on it. */

import { h } from "../dom";
import { drawerHere } from "../viewer/stage";
import { webglRenderer } from "../viewer/software-webgl";
import { measureAlignment, type AlignmentRow } from "./alignment";
import { measureJpegDecoding, type JpegRow } from "./jpeg-decoding";

export interface SelfTestResult {
  passed: boolean;
  drawer: string;
  renderer: string | null;
  device_pixel_ratio: number;
  largest: { slide_to_computed: number; slide_to_heat: number; slide_to_outline: number };
  limit_px: number;
  alignment: AlignmentRow[];
  jpeg: JpegRow[];
}

/** CSS pixels by which slide, heatmap and outline may lie apart. */
const LIMIT_PX = 1;

export async function runSelfTest(place: HTMLElement): Promise<void> {
  const status = h("p", { role: "status" }, "Measuring\u2026");
  const section = h("section", { class: "selftest" }, h("h1", {}, "Self-test of this workstation"), status);
  place.replaceChildren(section);
  const { drawer, rows } = await measureAlignment(section, drawerHere());
  const jpeg = await measureJpegDecoding();
  const result = resultOf(drawer, rows, jpeg);
  status.textContent = result.passed
    ? `Passed: slide, heatmap and outlines lie within ${LIMIT_PX} px of each other, and JPEG tiles keep their colours.`
    : "Failed: do not judge positions or colours on this workstation before your administrator has seen this page.";
  status.className = `notice ${result.passed ? "ok" : "error"}`;
  section.append(
    h("p", {}, `Drawer ${drawer}; renderer ${result.renderer ?? "no WebGL"}; ${result.device_pixel_ratio} device pixels per CSS pixel.`),
    table("Distances in CSS pixels", ["Place", "Scale", "Slide to computed", "Slide to heatmap", "Slide to outline"], rows.map((row) => [row.place, row.scale, row.slide_to_computed, row.slide_to_heat, row.slide_to_outline])),
    table("JPEG tiles", ["Kind", "Difference (of 255)", "Shown right", "As expected"], jpeg.map((row) => [row.name, row.difference, row.is_right ? "yes" : "no", row.as_expected ? "yes" : "no"])),
    h("h2", {}, "For the record"),
    h("pre", { id: "selftest-result", class: "mono", tabindex: 0 }, JSON.stringify(result, null, 1)),
  );
}

function resultOf(drawer: string, alignment: AlignmentRow[], jpeg: JpegRow[]): SelfTestResult {
  const largestOf = (name: "slide_to_computed" | "slide_to_heat" | "slide_to_outline") => Math.max(...alignment.map((row) => row[name]));
  const largest = { slide_to_computed: largestOf("slide_to_computed"), slide_to_heat: largestOf("slide_to_heat"), slide_to_outline: largestOf("slide_to_outline") };
  // A NaN (nothing drawn where something should be) fails as well.
  const isAligned = Object.values(largest).every((value) => value <= LIMIT_PX);
  return {
    passed: isAligned && jpeg.every((row) => row.as_expected || row.is_right),
    drawer,
    renderer: webglRenderer(),
    device_pixel_ratio: devicePixelRatio,
    largest,
    limit_px: LIMIT_PX,
    alignment,
    jpeg,
  };
}

function table(caption: string, heads: string[], rows: (string | number)[][]): HTMLElement {
  return h(
    "div",
    { class: "table-scroll section", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      { class: "table compact" },
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, ...heads.map((words, i) => h("th", { scope: "col", class: i === 0 ? "" : "num" }, words)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((value, i) => h("td", { class: i === 0 ? "" : "num" }, String(value)))))),
    ),
  );
}
