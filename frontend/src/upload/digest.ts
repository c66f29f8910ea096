/** SHA-256 of a file read piece by piece, so that a slide of many gigabytes never stands in memory. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

export const PIECE_BYTES = 8 * 2 ** 20;

/** Lower-case hex digest; `onProgress` gets the share read, 0 to 1. */
export async function sha256OfBlob(
  blob: Blob,
  onProgress: (share: number) => void = () => {},
  pieceBytes = PIECE_BYTES,
): Promise<string> {
  const hash = sha256.create();
  for (let at = 0; at < blob.size; at += pieceBytes) {
    hash.update(new Uint8Array(await blob.slice(at, at + pieceBytes).arrayBuffer()));
    onProgress(Math.min(1, (at + pieceBytes) / blob.size));
  }
  return bytesToHex(hash.digest());
}
