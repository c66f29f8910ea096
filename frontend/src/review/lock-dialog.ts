/** The confirmation of the lock. Two things go for good with it: the unaided call, and reading without the AI. */

import { ask } from "../dialog";
import { h } from "../dom";
import { percent } from "../numbers";
import { callInWords, type ReadState } from "./types";

export async function confirmLock(state: ReadState, viewed: number | null): Promise<boolean> {
  const reveals = state.protocol !== "second_look" || state.unaided_call?.value === "negative";
  const answer = await ask({
    title: "Lock the unaided read?",
    body: [
      h(
        "dl",
        { class: "facts" },
        h("dt", {}, "Case, slide"),
        h("dd", {}, `${state.case.accession}, ${state.slide.name}`),
        h("dt", {}, "Your call"),
        h("dd", {}, h("strong", {}, callInWords(state.unaided_call))),
        h("dt", {}, "Lesions you marked"),
        h("dd", {}, String(state.marks.length)),
        h("dt", {}, "Tissue seen at 10\u00d7"),
        h("dd", {}, viewed === null ? "not known" : percent(viewed)),
      ),
      h("p", {}, "The call and the marks then stay as they are; this cannot be undone, and it is recorded."),
      h("p", {}, reveals ? "The AI result is shown at once. You make a final call afterwards." : "By the protocol of this case the AI is shown after a negative call only. You make a final call afterwards."),
    ],
    actions: [{ words: reveals ? "Lock and show the AI" : "Lock", value: "lock", kind: "primary" }],
  });
  return answer === "lock";
}
