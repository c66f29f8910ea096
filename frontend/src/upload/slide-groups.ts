/**
 * Which dropped files are one slide: most are one file; MIRAX has a folder beside it, Hamamatsu lists its pictures, DICOM
 * keeps its series in one folder. The server sorts what arrives by the same rules (slides/wsi/slide_files.py).
 */

import { inOrder, type PackedFile } from "./stored-zip";

export interface DroppedFile {
  /** Path below what was dropped, with `/`. */
  path: string;
  file: File;
}

/** What is sent as one upload. */
export interface SlideFiles {
  name: string;
  /** In the order and under the names in which they are packed; one file is sent as it is. */
  files: PackedFile[];
  /** Why it cannot be sent, in words; empty when it can. */
  problem: string;
}

export interface Grouped {
  slides: SlideFiles[];
  /** Paths of files in dropped folders that belong to no slide. */
  leftOut: string[];
}

const SLIDE = /\.(svs|tiff?|ndpi|scn|svslide|bif|czi|qptiff|jp2|zip)$/i;
const WITH_FOLDER = /\.mrxs$/i;
const LISTS_FILES = /\.(vms|vmu|ndpis)$/i;
const MAY_BE_DICOM = /(^|\/)[^./]+$|\.(dcm|dicom)$/i;
const LARGEST_LIST_BYTES = 2 ** 20;
/** As many as the server unpacks (slides/wsi/archives.py). */
const MOST_FILES = 2000;

export async function groupSlides(dropped: readonly DroppedFile[]): Promise<Grouped> {
  const byFolder = new Map<string, DroppedFile[]>();
  for (const each of dropped) {
    const folder = folderOf(each.path);
    if (!byFolder.has(folder)) byFolder.set(folder, []);
    byFolder.get(folder)!.push(each);
  }
  const slides: SlideFiles[] = [];
  const taken = new Set<DroppedFile>();
  const take = (entry: DroppedFile, companions: DroppedFile[], problem = ""): void => {
    for (const each of [entry, ...companions]) taken.add(each);
    slides.push(slideOf(entry, companions, problem));
  };
  for (const entry of dropped) {
    if (WITH_FOLDER.test(entry.path)) {
      const inside = byFolder.get(entry.path.replace(WITH_FOLDER, "").toLowerCase()) ?? [];
      take(entry, inside, inside.length ? "" : "A .mrxs slide needs its folder of the same name: drop the file and the folder together.");
    } else if (LISTS_FILES.test(entry.path)) {
      const listed = await namesListedIn(entry.file);
      const beside = (byFolder.get(folderOf(entry.path)) ?? []).filter((each) => each !== entry && listed.has(nameOf(each.path)));
      take(entry, beside, beside.length ? "" : "This slide needs the picture files that it lists: drop them together, or the folder they lie in.");
    }
  }
  for (const [folder, files] of byFolder) {
    const series: DroppedFile[] = [];
    for (const each of files) if (!taken.has(each) && MAY_BE_DICOM.test(each.path) && (await isDicom(each.file))) series.push(each);
    if (series.length > 1) {
      for (const each of series) taken.add(each);
      slides.push(seriesOf(folder, series));
    }
  }
  const leftOut: string[] = [];
  for (const each of dropped) {
    if (taken.has(each)) continue;
    const loose = !each.path.includes("/"); // chosen by itself: the server says what is wrong with it
    if (loose || SLIDE.test(each.path) || (MAY_BE_DICOM.test(each.path) && (await isDicom(each.file)))) take(each, []);
    else leftOut.push(each.path);
  }
  return { slides: slides.sort((a, b) => (a.name < b.name ? -1 : 1)), leftOut };
}

export function sizeOf(slide: SlideFiles): number {
  return slide.files.reduce((sum, each) => sum + each.file.size, 0);
}

function slideOf(entry: DroppedFile, companions: DroppedFile[], problem: string): SlideFiles {
  // Named from the entry's folder on, so that the same slide is the same archive wherever it was dropped from.
  const folder = folderOf(entry.path, false);
  const files = [entry, ...companions].map(({ path, file }) => ({ name: folder ? path.slice(folder.length + 1) : path, file }));
  return { name: nameOf(entry.path), files: inOrder(files), problem: problem || problemOf(files) };
}

function seriesOf(folder: string, series: DroppedFile[]): SlideFiles {
  const files = series.map(({ path, file }) => ({ name: nameOf(path), file }));
  const shown = series[0]!.path.split("/").at(-2);
  return { name: shown ?? (folder || nameOf(series[0]!.path)), files: inOrder(files), problem: problemOf(files) };
}

function problemOf(files: PackedFile[]): string {
  return files.length > MOST_FILES ? `The folder holds ${files.length} files; at most ${MOST_FILES} are taken at once. Drop it in parts.` : "";
}

/** For comparing: without the difference of upper and lower case, which Windows does not know. */
function folderOf(path: string, folded = true): string {
  const folder = path.split("/").slice(0, -1).join("/");
  return folded ? folder.toLowerCase() : folder;
}

function nameOf(path: string): string {
  return path.split("/").at(-1)!;
}

async function isDicom(file: Blob): Promise<boolean> {
  return (await file.slice(128, 132).text()) === "DICM";
}

/** Values of its `key=value` lines. */
async function namesListedIn(file: Blob): Promise<Set<string>> {
  const text = await file.slice(0, LARGEST_LIST_BYTES).text();
  return new Set(text.split(/\r?\n/).map((line) => line.slice(line.indexOf("=") + 1).trim()).filter(Boolean));
}
