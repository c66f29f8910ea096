/** The session ended under the reader's hands: nothing is lost, and work goes on after a log-in in another tab. */

import { openDialog } from "../dialog";
import { h } from "../dom";
import { renewCsrf } from "../http";

let isShown = false;

export async function askToLogIn(unsaved: number, onBack: () => void): Promise<void> {
  if (isShown) return;
  isShown = true;
  const problem = h("p", { class: "field-error", role: "alert" });
  const { dialog, closed } = openDialog("Your session has ended", [
    h("p", {}, unsaved === 0 ? "Log in again to go on." : `${unsaved === 1 ? "One step is" : `${unsaved} steps are`} not saved yet and kept in this browser. Log in in a new tab as the same person, then come back here.`),
    problem,
  ]);
  const goOn = async () => {
    if (await renewCsrf().catch(() => false)) return dialog.close("back");
    problem.textContent = "Not logged in yet, or not as the reader of this slide.";
  };
  dialog.append(
    h(
      "div",
      { class: "dialog-actions" },
      h("a", { class: "button primary", href: "/accounts/login/", target: "_blank", rel: "noopener" }, "Log in in a new tab"),
      h("button", { type: "button", class: "button", onclick: () => void goOn() }, "I am logged in: go on"),
    ),
  );
  const answer = await closed;
  isShown = false;
  if (answer === "back") onBack();
}
