/** Tells the server once a minute how long the reader worked and how much of the tissue was seen. */

import { listen } from "../dom";
import { ActiveTime } from "../viewer/active-time";
import { postJson, send } from "../http";

const EVERY_MS = 60_000;

export function reportProgress(url: string, viewed: () => number | null, isOpen: () => boolean): () => void {
  const time = new ActiveTime();
  const report = async (isLast: boolean) => {
    const seconds = Math.round(time.take() * 10) / 10;
    if (seconds < 1 || !isOpen()) return time.giveBack(seconds);
    const body = { viewed_fraction: viewed() ?? 0, active_seconds: Math.min(600, seconds) };
    try {
      if (isLast) await send(url, { json: body, key: crypto.randomUUID(), keepalive: true });
      else await postJson(url, body, crypto.randomUUID());
    } catch {
      time.giveBack(seconds); // told with the next report; the writes themselves say when the server is away
    }
  };
  const timer = window.setInterval(() => void report(false), EVERY_MS);
  const removers = [
    ...["pointerdown", "pointermove", "wheel", "keydown"].map((kind) => listen(window, kind, () => time.act(), { passive: true, capture: true })),
    listen(document, "visibilitychange", () => {
      if (!document.hidden) return time.act();
      time.pause();
      void report(true);
    }),
    listen(window, "blur", () => time.pause()),
    listen(window, "focus", () => time.act()),
    listen(window, "pagehide", () => void report(true)),
  ];
  return () => {
    clearInterval(timer);
    removers.forEach((remove) => remove());
  };
}
