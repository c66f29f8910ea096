/** SHA-256 of what is sent, read piece by piece, so that a slide of many gigabytes never stands in memory. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { crc32, descriptor, directory, localHeader, type PackedFile } from "./stored-zip";

export const PIECE_BYTES = 8 * 2 ** 20;

export interface Digest {
  /** Lower-case hex. */
  sha256: string;
  /** Of each file, for the archive; empty for a single file. */
  checkSums: number[];
}

type OnShare = (share: number) => void;

/** Of one file as it is; `onShare` gets the share read, 0 to 1. */
export async function digestOfFile(blob: Blob, onShare: OnShare = () => {}, pieceBytes = PIECE_BYTES): Promise<Digest> {
  const hash = sha256.create();
  let done = 0;
  for await (const piece of piecesOf(blob, pieceBytes)) {
    hash.update(piece);
    onShare((done += piece.length) / blob.size);
  }
  return { sha256: bytesToHex(hash.digest()), checkSums: [] };
}

/** Of the archive that zipOf() makes of the files, without making it: each file is read once. */
export async function digestOfZip(files: readonly PackedFile[], onShare: OnShare = () => {}, pieceBytes = PIECE_BYTES): Promise<Digest> {
  const hash = sha256.create();
  const whole = files.reduce((sum, each) => sum + each.file.size, 0);
  const checkSums: number[] = [];
  let done = 0;
  for (const each of files) {
    hash.update(localHeader(each));
    let checkSum = 0;
    for await (const piece of piecesOf(each.file, pieceBytes)) {
      hash.update(piece);
      checkSum = crc32(piece, checkSum);
      onShare((done += piece.length) / whole);
    }
    hash.update(descriptor(each, checkSum));
    checkSums.push(checkSum);
  }
  hash.update(directory(files, checkSums));
  return { sha256: bytesToHex(hash.digest()), checkSums };
}

async function* piecesOf(blob: Blob, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < blob.size; at += pieceBytes) {
    yield new Uint8Array(await blob.slice(at, at + pieceBytes).arrayBuffer());
  }
}
