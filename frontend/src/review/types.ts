/** What the server says about a read, an AI result, a signature; names as in the API. */

import type { Ring } from "../viewer/geometry";

export type CallValue = "negative" | "itc" | "micro" | "macro" | "cannot_assess";
export type Phase = "unaided" | "aided" | "final" | "signed";
export type Verdict = "accepted" | "rejected" | "undecided";

export interface Call {
  value: CallValue;
  label?: string;
  reason: string;
  at?: string;
}

export interface Mark {
  id: string;
  outline: Ring[];
  longest_diameter_mm: number | null;
  area_mm2: number | null;
  note: string;
  stage: "unaided" | "final";
  missed_by_ai: boolean;
}

export interface Decision {
  verdict: Verdict;
  reason: string;
  text: string;
}

type Act = "call" | "mark" | "lock" | "decide" | "undo" | "final_call" | "sign";

export interface OtherRead {
  id?: string;
  reader: string;
  role?: string;
  phase: Phase;
  protocol?: string;
  unaided_call: Call | null;
  final_call: Call | null;
  marks: Mark[];
  decisions: Record<string, Decision>;
  viewed_fraction?: number;
  active_seconds?: { unaided: number; aided: number };
}

export interface ReadState {
  id: string;
  version: number;
  phase: Phase;
  protocol: "unaided_first" | "second_look" | "concurrent";
  locked_at: string | null;
  ai_allowed: boolean;
  slide: { id: string; name: string; node: string | null };
  case: { id: string; accession: string; note?: string; url?: string };
  unaided_call: Call | null;
  final_call: Call | null;
  marks: Mark[];
  decisions: Record<string, Decision>;
  viewed_fraction: number;
  can: Record<Act, boolean>;
  /** Why an act is not possible now, in words; empty when it is. */
  why_not: Record<Act, string>;
  other_reads: OtherRead[];
  next_slide: SlideLink | null;
  prev_slide: SlideLink | null;
}

export interface SlideLink {
  slide_id: string;
  name: string;
  read_id: string | null;
  /** Opens the read, or asks to start it. */
  url: string;
}

export interface AiLesion {
  id: string;
  rank: number;
  score: number;
  /** Calibrated; null when the model version is not. */
  probability: number | null;
  peak: [number, number];
  outline: Ring[];
  bbox: [number, number, number, number];
  longest_diameter_mm: number | null;
  area_mm2: number | null;
  size_class: "itc" | "micro" | "macro";
  borderline: boolean;
  field_url: string | null;
}

export interface AiRun {
  id: string;
  model: { name: string; version: string; sha256: string };
  profile: string;
  threshold: number;
  status: "complete" | "incomplete" | "cannot_assess";
  status_reason: string;
  slide_score: number | null;
  /** Whether probabilities and band come from a calibration of this model version and profile. */
  calibrated: boolean;
  slide_probability: number | null;
  triage: { band: "ai_negative" | "must_review" | "ai_positive" | "none" | "cannot_assess"; words: string };
  /** Share of the tissue that is out of focus; null in runs from before it was measured. */
  blurred: number | null;
  /** What of the slide is unlike the reference slides of the model version, in words. */
  unlike_reference: string[];
  tissue: { mm2: number; analysed: number; failed: number };
}

export interface AiResult {
  run: AiRun | null;
  lesions: AiLesion[];
  heatmap: { url: string; rows: number; cols: number; x0: number; y0: number; cell_px0_x: number; cell_px0_y: number } | null;
  /** Why there is no result, or what the run says of itself. */
  message: string;
  pending: boolean;
}

export interface Boot {
  mode: "read" | "look" | "audit";
  user: { name: string; roles: string[] };
  csrf: string;
  version: string;
  slide_id: string;
  read_id: string | null;
  case: { id: string; accession: string };
  slide?: { name?: string; node?: string | null };
  urls: Record<string, string>;
  audit?: { reads: OtherRead[]; ai_url: string | null };
}

export const CALLS: readonly { value: CallValue; words: string; hint: string }[] = [
  { value: "negative", words: "Negative", hint: "no tumour" },
  { value: "itc", words: "Isolated tumour cells", hint: "\u2264 0.2 mm" },
  { value: "micro", words: "Micrometastasis", hint: "> 0.2 to 2 mm" },
  { value: "macro", words: "Macrometastasis", hint: "> 2 mm" },
  { value: "cannot_assess", words: "Cannot assess", hint: "give a reason" },
];

export const REJECT_REASONS: readonly { value: string; words: string }[] = [
  { value: "histiocytes", words: "Histiocytes" },
  { value: "germinal_centre", words: "Germinal centre" },
  { value: "sinus_endothelium", words: "Sinus endothelium" },
  { value: "capsule_vessel_nerve", words: "Capsule, vessel or nerve" },
  { value: "crush", words: "Crushed cells" },
  { value: "fold_ink_blur", words: "Fold, ink or blur" },
  { value: "nevus_inclusion", words: "Nevus inclusion" },
  { value: "benign_epithelium", words: "Benign epithelium" },
  { value: "other", words: "Other (say what)" },
];

export function callInWords(call: Call | null): string {
  if (!call) return "none";
  const words = CALLS.find((one) => one.value === call.value)?.words ?? call.value;
  return call.reason ? `${words} (${call.reason})` : words;
}

export const SIZE_WORDS: Record<string, string> = { itc: "ITC", micro: "micro", macro: "macro" };
