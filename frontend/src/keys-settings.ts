/** What a person changed about single keys: off altogether (WCAG 2.1.4) or moved to other keys. Kept in this browser only. */

const KEY = "metadet.keys";

export interface KeySettings {
  off: boolean;
  autoAdvance: boolean;
  moved: Record<string, string>;
}

const DEFAULTS: KeySettings = { off: false, autoAdvance: true, moved: {} };

export function readKeySettings(): KeySettings {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<KeySettings>) };
  } catch {
    return { ...DEFAULTS }; // storage may be forbidden, or hold what an older version wrote
  }
}

export function writeKeySettings(settings: KeySettings): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // Storage may be forbidden: the settings then last until the page is left.
  }
}

export function keysSwitchedOff(): boolean {
  return readKeySettings().off;
}
