/** Worker: one file in, its SHA-256 out; the page stays responsive meanwhile. */

import { sha256OfBlob } from "./digest";

export type DigestAnswer = { share: number } | { sha256: string } | { failure: string };

self.onmessage = async (event: MessageEvent<File>) => {
  try {
    const sha256 = await sha256OfBlob(event.data, (share) => self.postMessage({ share } satisfies DigestAnswer));
    self.postMessage({ sha256 } satisfies DigestAnswer);
  } catch (error) {
    self.postMessage({ failure: error instanceof Error ? error.message : String(error) } satisfies DigestAnswer);
  }
};
