/** Forms with data-confirm: a dialog restates the fact before the form is sent. Without script the form is sent at once. */

import { ask } from "../dialog";

export function startConfirmations(): void {
  document.addEventListener("submit", (event) => {
    const form = event.target as HTMLFormElement;
    const words = form.dataset["confirm"];
    if (!words || form.dataset["confirmed"]) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    void confirmThenSend(form, words, event.submitter);
  }, { capture: true });
}

async function confirmThenSend(form: HTMLFormElement, words: string, submitter: HTMLElement | null): Promise<void> {
  const action = form.dataset["confirmAction"] ?? submitter?.textContent?.trim() ?? "Continue";
  const kind = submitter?.classList.contains("danger") ? "danger" : "primary";
  const answer = await ask({ title: action, body: [paragraph(words)], actions: [{ words: action, value: "yes", kind }] });
  if (answer !== "yes") return;
  form.dataset["confirmed"] = "yes";
  form.requestSubmit(submitter);
  delete form.dataset["confirmed"];
}

function paragraph(words: string): HTMLElement {
  const element = document.createElement("p");
  element.textContent = words;
  return element;
}
