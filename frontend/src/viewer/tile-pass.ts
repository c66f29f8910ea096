/** The pass for tiles: a cookie for one slide, good for a minute, asked for again every half minute while the page is open. */

import { ApiError, LoggedOut, postJson } from "../http";
import type { Descriptor } from "./pyramid";

export interface ViewAnswer {
  tiles: string;
  descriptor: Descriptor;
  thumbnail: string;
  expires_in: number;
  /** The slide was prepared anew since the page opened it: opened again, it shows those tiles. */
  newer_tiles: boolean;
}

const RENEW_MS = 30_000;
const AGAIN_MS = 5_000;

export interface TilePassEvents {
  onTrouble: (error: unknown) => void;
  /** After trouble, or after the machine slept: tiles that failed meanwhile may be tried again. */
  onRenewed: (wasLate: boolean, answer: ViewAnswer) => void;
}

/** `store`: the tiles that the page holds; it may read on in them when they were replaced meanwhile. */
export async function openView(url: string, store = ""): Promise<ViewAnswer> {
  const answer = await postJson<ViewAnswer>(url, { store });
  if (!answer) throw new Error("The server did not describe the slide.");
  return answer;
}

/** "/tiles/<log-in>/<slide>/<store>/" -> store. */
export function storeOf(tiles: string): string {
  return tiles.split("/").filter(Boolean).at(-1) ?? "";
}

/** Keeps the pass to `store` alive; returns the stopper. */
export function keepPass(url: string, store: string, events: TilePassEvents): () => void {
  let renewedAt = Date.now();
  let timer = window.setTimeout(renew, RENEW_MS);
  let stopped = false;

  async function renew(): Promise<void> {
    if (stopped) return;
    let wait = RENEW_MS;
    try {
      const answer = await openView(url, store);
      const wasLate = Date.now() - renewedAt > answer.expires_in * 1000;
      renewedAt = Date.now();
      events.onRenewed(wasLate, answer);
    } catch (error) {
      events.onTrouble(error);
      // Gone for good (withdrawn, deleted): asking again every five seconds would only fill the log.
      wait = error instanceof ApiError && !(error instanceof LoggedOut) ? RENEW_MS : AGAIN_MS;
    }
    if (!stopped) timer = window.setTimeout(renew, wait);
  }

  const wake = () => {
    if (document.hidden || Date.now() - renewedAt < RENEW_MS) return;
    clearTimeout(timer);
    void renew();
  };
  document.addEventListener("visibilitychange", wake);
  addEventListener("online", wake);
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", wake);
    removeEventListener("online", wake);
  };
}
