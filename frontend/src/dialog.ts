/** Modal dialogs on the native <dialog>: focus stays inside, Escape cancels, the opener gets the focus back. */

import { h, type Child } from "./dom";

export interface DialogAction {
  words: string;
  value: string;
  kind?: "primary" | "danger";
}

/** Shows `body` with buttons; resolves with the value of the one pressed, or null when cancelled. */
export function ask(options: {
  title: string;
  body: Child[];
  actions: DialogAction[];
  cancel?: string | null;
  wide?: boolean;
}): Promise<string | null> {
  const { dialog, closed } = openDialog(options.title, options.body, Boolean(options.wide));
  const buttons = options.actions.map((action) =>
    h("button", { type: "button", class: `button ${action.kind ?? ""}`, onclick: () => dialog.close(action.value) }, action.words),
  );
  const cancel =
    options.cancel === null
      ? null
      : h("button", { type: "button", class: "button", onclick: () => dialog.close("") }, options.cancel ?? "Cancel");
  dialog.append(h("div", { class: "dialog-actions" }, cancel, ...buttons));
  (cancel ?? buttons[0])?.focus();
  return closed.then((value) => value || null);
}

/** Opens a dialog; `closed` resolves with its return value ("" when dismissed). The element leaves the page on closing. */
export function openDialog(title: string, body: Child[], wide = false): { dialog: HTMLDialogElement; closed: Promise<string> } {
  const opener = document.activeElement;
  const heading = h("h2", { id: `dialog-${Math.random().toString(36).slice(2)}` }, title);
  const dialog = h("dialog", { class: wide ? "wide" : "", "aria-labelledby": heading.id }, h("div", { class: "dialog-body" }, heading, ...body));
  document.body.append(dialog);
  dialog.tabIndex = -1;
  dialog.showModal();
  dialog.focus(); // not the first button: Enter by habit must not choose anything
  const closed = new Promise<string>((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
      resolve(dialog.returnValue);
    });
  });
  return { dialog, closed };
}

export function isDialogOpen(): boolean {
  return document.querySelector("dialog[open]") !== null;
}
