/** Entry of the slide viewer in its three modes: a reader's read, an operator's look, an auditor's comparison. */

import { h } from "./dom";
import { ApiError, LoggedOut, setCsrf } from "./http";
import { drawFoot, showKeyHelp } from "./key-help";
import { Keys } from "./keys";
import { startAuditMode } from "./review/audit-mode";
import { startReadMode } from "./review/read-mode";
import type { Boot } from "./review/types";
import { openStage, type Stage } from "./viewer/stage";

const root = document.getElementById("viewer-root");
const bootText = document.getElementById("boot")?.textContent;
if (root && bootText) void start(root, JSON.parse(bootText) as Boot);

async function start(place: HTMLElement, boot: Boot): Promise<void> {
  setCsrf(boot.csrf);
  if (new URLSearchParams(location.search).has("selftest")) {
    const { runSelfTest } = await import("./selftest/page");
    return runSelfTest(place);
  }
  const stageElement = h("div", { class: "stage" });
  const side = h("aside", { class: "side", "aria-label": "Panel" });
  place.replaceChildren(stageElement, side);
  if (boot.mode === "look") place.classList.add("is-panel-closed");
  let stage: Stage;
  try {
    stage = await openStage(stageElement, boot.urls["view"] ?? `/api/slides/${boot.slide_id}/view/`, labelOf(boot));
    const keys = new Keys();
    const foot = document.getElementById("viewer-keys");
    const onChange = () => foot && drawFoot(foot, keys);
    keys.add([...stage.commands, ...pageCommands(place, boot, keys, onChange)]);
    addPageButtons(stageElement, place, boot, keys, onChange);
    if (boot.mode === "read") keys.add((await startReadMode(boot, stage, side, keys, onChange)).commands);
    if (boot.mode === "audit") keys.add(await startAuditMode(boot, stage, side, keys, onChange));
    onChange();
  } catch (error) {
    showFailure(place, boot, error);
  }
}

function labelOf(boot: Boot): string {
  return `Slide ${boot.slide?.name ?? ""} of case ${boot.case.accession}`;
}

function pageCommands(place: HTMLElement, boot: Boot, keys: Keys, onChange: () => void) {
  return [
    { id: "keys", key: "?", words: "List of keys", group: "Page" as const, run: () => showKeyHelp(keys, onChange), foot: { order: 1, words: "keys" } },
    { id: "panel", key: "b", words: "Show or hide the panel", group: "Look" as const, isValid: () => boot.mode !== "look", run: () => place.classList.toggle("is-panel-closed") },
  ];
}

function addPageButtons(stageElement: HTMLElement, place: HTMLElement, boot: Boot, keys: Keys, onChange: () => void): void {
  const tools = stageElement.querySelector(".stage-tools");
  tools?.append(h("button", { type: "button", class: "button", title: "List of keys", "aria-label": "List of keys", onclick: () => showKeyHelp(keys, onChange) }, "?"));
  if (boot.mode === "look") return;
  tools?.append(h("button", { type: "button", class: "button", title: "Show or hide the panel", "aria-label": "Show or hide the panel", onclick: () => place.classList.toggle("is-panel-closed") }, "\u21e5"));
}

/** The slide cannot be shown: what happened, since when if known, and what to do. */
function showFailure(place: HTMLElement, boot: Boot, error: unknown): void {
  const words =
    error instanceof LoggedOut
      ? "Your session has ended."
      : error instanceof ApiError && error.status === 404
        ? "This slide is not there, not ready yet, or not assigned to you."
        : error instanceof Error
          ? error.message
          : String(error);
  const back = boot.urls["case"] ?? boot.urls["worklist"] ?? "/";
  place.classList.add("is-panel-closed");
  place.replaceChildren(
    h(
      "div",
      { class: "main narrow" },
      h(
        "section",
        { class: "card", role: "alert" },
        h("h1", {}, "The slide cannot be opened"),
        h("p", {}, words),
        h("div", { class: "actions" }, h("button", { type: "button", class: "button primary", onclick: () => location.reload() }, "Try again"), h("a", { class: "button", href: back }, "Back")),
      ),
    ),
  );
  if (!(error instanceof ApiError) && !(error instanceof LoggedOut)) console.error(error);
}

