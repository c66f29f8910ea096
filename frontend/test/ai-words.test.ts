import { describe, expect, test } from "vitest";
import { emptyWords, findingWords, lesionChance, notices, signedAiWords, slideProbabilityWords, slideScoreWords, triageName, triagePromise, type SignedAi } from "../src/review/ai-words";
import { summaryComesFirst } from "../src/review/ai-summary";
import type { AiRun } from "../src/review/types";

const run = (fields: Partial<AiRun> = {}): AiRun => ({
  id: "r",
  model: { name: "lite", version: "1", sha256: "" },
  profile: "standard",
  threshold: 0.5,
  status: "complete",
  status_reason: "",
  slide_score: 0.02,
  calibrated: true,
  slide_probability: 0.034,
  triage: { band: "ai_negative", words: "AI-negative band. Of slides with tumour at most 5% fall here." },
  blurred: 0,
  unlike_reference: [],
  tissue: { mm2: 80, analysed: 1, failed: 0 },
  ...fields,
});

const signed = (fields: Partial<SignedAi> = {}): SignedAi => ({
  model: "lite",
  model_version: "1",
  threshold: 0.5,
  status: "complete",
  status_reason: "",
  slide_score: 0.9,
  slide_probability: null,
  triage: "none",
  failed_fraction: 0,
  lesions: 2,
  ...fields,
});

const name = (of: AiRun) => triageName(of.status, of.triage.band);
const REASON = "40% of the tissue is out of focus.";

describe("what the AI says of a slide", () => {
  test("a slide that was read whole has its band, promise and probability", () => {
    expect(name(run())).toBe("AI-negative band");
    expect(triagePromise(run())).toBe("Of slides with tumour at most 5% fall here.");
    expect(slideProbabilityWords(run())).toBe("3 %, calibrated");
    expect(slideScoreWords(run())).toBe("0.02 (threshold 0.50)");
    expect(notices(run())).toEqual([]);
    expect(summaryComesFirst(run())).toBe(false);
  });

  test.each(["incomplete", "cannot_assess"] as const)("a slide that is %s is never called negative, whatever was stored", (status) => {
    const unread = run({ status, status_reason: REASON });
    const words = [name(unread), triagePromise(unread), slideProbabilityWords(unread), slideScoreWords(unread)].join(" ");
    expect(words.toLowerCase()).not.toContain("negative");
    expect(notices(unread)[0]?.words).toContain(REASON);
    expect(notices(unread)[0]?.words).toMatch(/neither positive nor negative|not negative, it is unread/);
    expect(emptyWords(0.5, status)).not.toMatch(/^The AI found no lesion at or above 0.50\. /);
    expect(summaryComesFirst(unread)).toBe(true);
  });

  test("a slide that cannot be assessed has no figure, whatever was stored", () => {
    const unread = run({ status: "cannot_assess", status_reason: REASON, slide_score: 0.01, slide_probability: 0.02 });
    expect(slideProbabilityWords(unread)).toBe("none: cannot be assessed");
    expect(slideScoreWords(unread)).toBe("none: cannot be assessed");
    expect(emptyWords(0.5, "cannot_assess")).not.toMatch(/found no lesion|negative/);
  });

  test("a model without calibration gives scores, named as such, and no probability", () => {
    const bare = run({ calibrated: false, slide_probability: null, triage: { band: "none", words: "Not calibrated: the scores are the network's own and no probabilities." } });
    expect(slideScoreWords(bare)).toBe("0.02, not calibrated (threshold 0.50)");
    expect(slideProbabilityWords(bare)).toBe("none: not calibrated");
    expect(name(bare)).toBe("No band");
    expect(triagePromise(bare)).toBe(bare.triage.words);
    expect(lesionChance({ probability: null })).toBe("");
    expect(findingWords({ probability: null, score: 0.874 })).toBe("score 0.87, not calibrated");
  });

  test("a calibrated finding is a probability, never certain", () => {
    expect(lesionChance({ probability: 0.874 })).toBe("87 %");
    expect(lesionChance({ probability: 0.9999 })).toBe(">99 %");
    expect(lesionChance({ probability: 1 })).toBe(">99 %");
    expect(slideProbabilityWords(run({ slide_probability: 0 }))).toBe("<1 %, calibrated");
    expect(findingWords({ probability: 0.874, score: 0.99 })).toBe("probability 87 %");
  });

  test("too few positives: no band, and the reason is said once", () => {
    const few = run({ triage: { band: "none", words: "No AI-negative band: too few tumour slides to promise that at most 5% of them are missed (9 of the 19 needed)." } });
    expect(name(few)).toBe("No band");
    expect(triagePromise(few)).toBe("Too few tumour slides to promise that at most 5% of them are missed (9 of the 19 needed).");
    const between = run({ triage: { band: "must_review", words: "Must be reviewed: between the bands. Of slides with tumour at most 5% fall in the AI-negative band." } });
    expect(triagePromise(between)).toMatch(/^Between the bands\. Of slides/);
  });

  test("a slide unlike the reference slides is a warning that stands first", () => {
    const odd = run({ unlike_reference: ["Stain unlike the reference slides: eosin 4.2 SD above."] });
    expect(notices(odd)).toEqual([{ kind: "warn", words: "Stain unlike the reference slides: eosin 4.2 SD above. The AI's figures may not hold for this slide." }]);
    expect(summaryComesFirst(odd)).toBe(true);
  });

  test("the signer is told what the AI could not do", () => {
    const cannot = { status: "cannot_assess", status_reason: REASON, slide_score: null, triage: "cannot_assess" } as const;
    expect(signedAiWords(signed({ ...cannot, lesions: 0 }))).toBe(`could not assess this slide: ${REASON}`);
    expect(signedAiWords(signed({ ...cannot, lesions: 1 }))).toBe(`could not assess this slide: ${REASON} (1 lesion shown all the same)`);
    expect(signedAiWords(signed({ status: "incomplete", triage: "must_review", lesions: 0, slide_score: 0.01, failed_fraction: 0.02 }))).toBe("0 lesions, score 0.01, not calibrated, not judged whole, 2 % unread");
  });

  test("the signer reads a probability where there is one, else a score that is named as one", () => {
    expect(signedAiWords(signed())).toBe("2 lesions, score 0.90, not calibrated");
    expect(signedAiWords(signed({ slide_probability: 0.934, triage: "ai_positive" }))).toBe("2 lesions, tumour probability 93 %, AI-positive band");
    expect(signedAiWords(signed({ status: "cannot_assess", triage: "ai_negative", lesions: 0 }))).not.toContain("negative");
  });
});
