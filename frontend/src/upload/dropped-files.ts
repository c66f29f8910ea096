/** Files of a drop or a picker, folders walked through; what an operating system leaves lying about is not a slide. */

const LITTER = /^(\..*|thumbs\.db|desktop\.ini)$/i;

export function isLitter(name: string): boolean {
  return LITTER.test(name);
}

export async function filesOfDrop(transfer: DataTransfer): Promise<File[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  if (entries.every((entry) => entry === null)) return withoutLitter([...transfer.files]);
  const files = await Promise.all(entries.filter((entry) => entry !== null).map(filesOfEntry));
  return withoutLitter(files.flat());
}

export function withoutLitter(files: File[]): File[] {
  return files.filter((file) => !isLitter(file.name));
}

async function filesOfEntry(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) return [await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject))];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: File[] = [];
  // readEntries answers at most 100 entries a call; an empty answer is the end.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return found;
    for (const inner of some) found.push(...(await filesOfEntry(inner)));
  }
}
