/**
 * A zip archive of files that are only laid one after the other, not compressed: slides are compressed already.
 *
 * The archive is a Blob of references, so that nothing is copied and a folder of many gigabytes never stands in memory.
 * The same files give the same bytes (sorted names, no times): it can be resumed, and recognised. Sizes are 64 bits wide.
 * APPNOTE.TXT 6.3.10 of PKWARE: 4.3.7 (local header), 4.3.9 (data descriptor), 4.3.12 (directory), 4.5.3 (zip64).
 */

export interface PackedFile {
  /** Path inside the archive, with `/`. */
  name: string;
  file: Blob;
}

const VERSION = 45; // needed for 64-bit sizes
const FLAGS = 0x0808; // the check sum follows the data; names are UTF-8
const FIRST_DAY = 0x0021; // 1980-01-01
const ALL_ONES = 0xffffffff;
const LOCAL_BYTES = 50;
const DESCRIPTOR_BYTES = 24;
const ENTRY_BYTES = 74;
const END_BYTES = 98;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** The check sum of zip over `data` that follows what gave `before` (0 at the start). */
export function crc32(data: Uint8Array, before = 0): number {
  let value = ~before;
  for (const byte of data) value = CRC_TABLE[(value ^ byte) & 0xff]! ^ (value >>> 8);
  return ~value >>> 0;
}

/** Order of the members: by name as bytes compare, whatever the language of the browser. */
export function inOrder(files: readonly PackedFile[]): PackedFile[] {
  return [...files].sort((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)));
}

export function sizeOfZip(files: readonly PackedFile[]): number {
  const perFile = files.map((each) => each.file.size + LOCAL_BYTES + DESCRIPTOR_BYTES + ENTRY_BYTES + 2 * nameOf(each).length);
  return perFile.reduce((sum, size) => sum + size, END_BYTES);
}

/** `checkSums` in the order of `files`. */
export function zipOf(files: readonly PackedFile[], checkSums: readonly number[]): Blob {
  const parts = files.flatMap((each, number) => [localHeader(each), each.file, descriptor(each, checkSums[number]!)]);
  return new Blob([...parts, directory(files, checkSums)], { type: "application/zip" });
}

export function localHeader(each: PackedFile): Uint8Array<ArrayBuffer> {
  const name = nameOf(each);
  const out = writer(LOCAL_BYTES + name.length);
  out.u32(0x04034b50).u16(VERSION).u16(FLAGS).u16(0).u16(0).u16(FIRST_DAY);
  out.u32(0).u32(ALL_ONES).u32(ALL_ONES).u16(name.length).u16(20).bytes(name);
  out.u16(1).u16(16).u64(each.file.size).u64(each.file.size);
  return out.done();
}

export function descriptor(each: PackedFile, checkSum: number): Uint8Array<ArrayBuffer> {
  return writer(DESCRIPTOR_BYTES).u32(0x08074b50).u32(checkSum).u64(each.file.size).u64(each.file.size).done();
}

/** The list at the end of the archive. */
export function directory(files: readonly PackedFile[], checkSums: readonly number[]): Uint8Array<ArrayBuffer> {
  const names = files.map(nameOf);
  const entries = names.reduce((sum, name) => sum + ENTRY_BYTES + name.length, 0);
  const out = writer(entries + END_BYTES);
  let offset = 0;
  files.forEach((each, number) => {
    const name = names[number]!;
    out.u32(0x02014b50).u16(VERSION).u16(VERSION).u16(FLAGS).u16(0).u16(0).u16(FIRST_DAY);
    out.u32(checkSums[number]!).u32(ALL_ONES).u32(ALL_ONES).u16(name.length).u16(28).u16(0).u16(0).u16(0).u32(0).u32(ALL_ONES);
    out.bytes(name).u16(1).u16(24).u64(each.file.size).u64(each.file.size).u64(offset);
    offset += LOCAL_BYTES + name.length + each.file.size + DESCRIPTOR_BYTES;
  });
  out.u32(0x06064b50).u64(44).u16(VERSION).u16(VERSION).u32(0).u32(0).u64(files.length).u64(files.length).u64(entries).u64(offset);
  out.u32(0x07064b50).u32(0).u64(offset + entries).u32(1);
  out.u32(0x06054b50).u16(0).u16(0).u16(0xffff).u16(0xffff).u32(ALL_ONES).u32(ALL_ONES).u16(0);
  return out.done();
}

function nameOf(each: PackedFile): Uint8Array {
  return new TextEncoder().encode(each.name);
}

function writer(size: number) {
  const data = new Uint8Array(size);
  const view = new DataView(data.buffer);
  let at = 0;
  const out = {
    u16(value: number) {
      view.setUint16(at, value, true);
      at += 2;
      return out;
    },
    u32(value: number) {
      view.setUint32(at, value, true);
      at += 4;
      return out;
    },
    u64(value: number) {
      view.setBigUint64(at, BigInt(value), true);
      at += 8;
      return out;
    },
    bytes(value: Uint8Array) {
      data.set(value, at);
      at += value.length;
      return out;
    },
    done: () => data,
  };
  return out;
}
