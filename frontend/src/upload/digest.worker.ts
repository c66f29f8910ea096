/** Worker: files in, SHA-256 of what will be sent out; the page stays responsive meanwhile. */

import { digestOfFile, digestOfZip, type Digest } from "./digest";
import type { PackedFile } from "./stored-zip";

export type DigestAnswer = { share: number } | Digest | { failure: string };

self.onmessage = async (event: MessageEvent<PackedFile[]>) => {
  const files = event.data;
  const onShare = (share: number) => self.postMessage({ share } satisfies DigestAnswer);
  try {
    const digest = files.length > 1 ? await digestOfZip(files, onShare) : await digestOfFile(files[0]!.file, onShare);
    self.postMessage(digest satisfies DigestAnswer);
  } catch (error) {
    self.postMessage({ failure: error instanceof Error ? error.message : String(error) } satisfies DigestAnswer);
  }
};
