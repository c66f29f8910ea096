/** The list of keys valid now, with the switches of WCAG 2.1.4: single keys off, keys moved. */

import { openDialog } from "./dialog";
import { h, listen } from "./dom";
import { keyInWords, problemOfKey, type Command, type Keys } from "./keys";

export function showKeyHelp(keys: Keys, onChange: () => void): void {
  const list = h("div", {});
  const problem = h("p", { class: "field-error", role: "status" });
  const draw = () => {
    list.replaceChildren(...groups(keys.valid().filter((command) => !command.unlisted)).map(([group, commands]) => section(group, commands)));
    onChange();
  };
  const section = (group: string, commands: Command[]) =>
    h(
      "div",
      {},
      h("h3", {}, group),
      h("table", { class: "key-list" }, h("tbody", {}, ...commands.map((command) => row(command)))),
    );
  const row = (command: Command) => {
    const isMovable = command.key.length === 1;
    const change = h("button", { type: "button", class: "button quiet small", "aria-label": `Change key: ${command.words}`, onclick: () => listenForKey(command, change) }, "Change");
    return h(
      "tr",
      {},
      h("td", {}, h("kbd", {}, keyInWords(keys.keyOf(command))), command.release ? " hold" : ""),
      h("td", {}, command.words),
      h("td", { class: "shrink" }, isMovable ? change : null),
    );
  };
  const listenForKey = (command: Command, button: HTMLElement) => {
    button.textContent = "Press a key";
    const stop = listen(
      dialog,
      "keydown",
      (event) => {
        const press = event as KeyboardEvent;
        if (["Shift", "Control", "Alt", "Meta"].includes(press.key)) return;
        press.preventDefault();
        press.stopPropagation();
        stop();
        const key = press.key.toLowerCase();
        problem.textContent = press.key === "Escape" ? "" : problemOfKey(key, command.id, keys.commands, (other) => keys.keyOf(other));
        if (press.key !== "Escape" && !problem.textContent) keys.change({ moved: { ...keys.settings.moved, [command.id]: key } });
        draw();
      },
      { capture: true },
    );
  };
  const body = [
    h("div", { class: "stack" }, switchOf("Single keys are on", !keys.settings.off, (on) => keys.change({ off: !on })), switchOf("After a decision go to the next undecided lesion", keys.settings.autoAdvance, (on) => keys.change({ autoAdvance: on }))),
    problem,
    list,
  ];
  const { dialog } = openDialog("Keys that work now", body, true);
  const reset = () => {
    keys.change({ moved: {} });
    draw();
  };
  dialog.append(
    h(
      "div",
      { class: "dialog-actions" },
      h("button", { type: "button", class: "button", onclick: reset }, "All keys as delivered"),
      h("button", { type: "button", class: "button primary", onclick: () => dialog.close() }, "Close"),
    ),
  );
  draw();
}

function switchOf(words: string, isOn: boolean, onChange: (on: boolean) => void): HTMLElement {
  const box = h("input", { type: "checkbox", checked: isOn, onchange: () => onChange(box.checked) });
  return h("label", { class: "choice" }, box, words);
}

function groups(commands: Command[]): [string, Command[]][] {
  const order = ["Decide", "Draw", "Look", "Move", "Page"];
  return order.map((group): [string, Command[]] => [group, commands.filter((command) => command.group === group)]).filter(([, some]) => some.length > 0);
}

/** The foot of the page: the keys that matter most now. */
export function drawFoot(place: HTMLElement, keys: Keys): void {
  const commands = keys.valid().filter((command) => command.foot);
  const byOrder = new Map<number, Command[]>();
  for (const command of commands.sort((a, b) => a.foot!.order - b.foot!.order)) {
    byOrder.set(command.foot!.order, [...(byOrder.get(command.foot!.order) ?? []), command]);
  }
  const notes = [...byOrder.values()].map((some) =>
    h("span", {}, ...some.map((command) => h("kbd", {}, keyInWords(keys.keyOf(command)))), some.at(-1)!.foot!.words),
  );
  if (keys.settings.off) notes.unshift(h("span", {}, "Single keys are switched off (menu Keys)."));
  place.replaceChildren(...notes);
}
