/** Does this browser show JPEG tiles in the colours that were meant? Depends on markers that scanners write differently. */

import { h } from "../dom";
import { JPEG_SAMPLES, SAMPLE_COLOUR } from "./jpeg-samples";

export interface JpegRow {
  name: string;
  /** Largest difference of a channel; 255 when it was not decoded at all. */
  difference: number;
  is_right: boolean;
  as_expected: boolean;
}

const TOLERANCE = 6;

export async function measureJpegDecoding(): Promise<JpegRow[]> {
  const rows: JpegRow[] = [];
  for (const sample of JPEG_SAMPLES) {
    const difference = await differenceOf(sample.base64);
    const isRight = difference <= TOLERANCE;
    rows.push({ name: sample.name, difference, is_right: isRight, as_expected: isRight === sample.isRight });
  }
  return rows;
}

async function differenceOf(base64: string): Promise<number> {
  const image = h("img", { src: `data:image/jpeg;base64,${base64}`, alt: "" });
  try {
    await image.decode();
  } catch {
    return 255;
  }
  const canvas = h("canvas", { width: 16, height: 16 });
  const context = canvas.getContext("2d");
  if (!context) return 255;
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(8, 8, 1, 1);
  return Math.max(...SAMPLE_COLOUR.map((value, i) => Math.abs(value - (data[i] as number))));
}
