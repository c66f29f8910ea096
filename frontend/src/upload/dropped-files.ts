/** Files of a drop or a picker, folders walked through; what an operating system leaves lying about is not a slide. */

import type { DroppedFile } from "./slide-groups";

const LITTER = /^(\..*|thumbs\.db|desktop\.ini|__macosx)$/i;

export function isLitter(path: string): boolean {
  return path.split("/").some((part) => LITTER.test(part));
}

export async function filesOfDrop(transfer: DataTransfer): Promise<DroppedFile[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  if (entries.every((entry) => entry === null)) return filesOfPicker(transfer.files);
  const files = await Promise.all(entries.filter((entry) => entry !== null).map((entry) => filesOfEntry(entry, "")));
  return files.flat().filter(({ path }) => !isLitter(path));
}

export function filesOfPicker(files: Iterable<File>): DroppedFile[] {
  return [...files].map((file) => ({ path: file.webkitRelativePath || file.name, file })).filter(({ path }) => !isLitter(path));
}

async function filesOfEntry(entry: FileSystemEntry, above: string): Promise<DroppedFile[]> {
  const path = above + entry.name;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ path, file }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: DroppedFile[] = [];
  // readEntries answers at most 100 entries a call; an empty answer is the end.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return found;
    for (const inner of some) found.push(...(await filesOfEntry(inner, `${path}/`)));
  }
}
