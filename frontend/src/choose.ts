/** A dialog with one choice, by click or by the digit shown: the quick second half of a two-key act. */

import { openDialog } from "./dialog";
import { h, isTextEntry, listen, type Child } from "./dom";

export interface Choice {
  value: string;
  words: string;
  hint?: string;
  /** Needs words of its own before it can be chosen. */
  asksFor?: string;
}

export interface Chosen {
  value: string;
  text: string;
}

export async function choose(title: string, choices: readonly Choice[], intro: Child[] = []): Promise<Chosen | null> {
  const chosen: Chosen = { value: "", text: "" };
  const buttons = choices.map((choice, index) =>
    h(
      "button",
      { type: "button", class: "button", onclick: () => pick(choice) },
      h("kbd", {}, String(index + 1)),
      choice.words,
      choice.hint ? h("span", { class: "soft small" }, choice.hint) : null,
    ),
  );
  const text = h("input", { id: "choice-text", maxlength: 500, autocomplete: "off" });
  const label = h("label", { for: "choice-text" }, "");
  const confirm = h("button", { type: "submit", class: "button primary" }, "Continue");
  const form = h("form", { class: "form", hidden: true }, h("div", { class: "field" }, label, text), h("div", { class: "actions" }, confirm));
  const list = h("div", { class: "reasons" }, ...buttons);
  const { dialog, closed } = openDialog(title, [...intro, list, form]);
  dialog.append(h("div", { class: "dialog-actions" }, h("button", { type: "button", class: "button", onclick: () => dialog.close("") }, "Cancel")));

  const pick = (choice: Choice) => {
    chosen.value = choice.value;
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(choices[index] === choice)));
    if (!choice.asksFor) return dialog.close("chosen");
    label.textContent = choice.asksFor;
    form.hidden = false;
    text.focus();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    chosen.text = text.value.trim();
    if (chosen.text) dialog.close("chosen");
    else text.setAttribute("aria-invalid", "true");
  });
  listen(dialog, "keydown", (event) => {
    const press = event as KeyboardEvent;
    if (isTextEntry(press.target) || press.repeat || press.ctrlKey || press.metaKey || press.altKey) return;
    const choice = /^[1-9]$/.test(press.key) ? choices[Number(press.key) - 1] : undefined;
    if (!choice) return;
    press.preventDefault();
    pick(choice);
  });
  return (await closed) === "chosen" ? chosen : null;
}
