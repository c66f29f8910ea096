/** Forms with data-api: their fields are sent as JSON, the server's words of refusal are shown inside the form. */

import { ApiError, LoggedOut, send } from "../http";

export function startApiForms(): void {
  document.addEventListener("submit", (event) => {
    const form = event.target as HTMLFormElement;
    const url = form.dataset["api"];
    if (!url) return;
    event.preventDefault();
    void sendForm(form, url);
  });
}

async function sendForm(form: HTMLFormElement, url: string): Promise<void> {
  const buttons = [...form.querySelectorAll<HTMLButtonElement>("button")];
  for (const button of buttons) button.disabled = true;
  showError(form, "");
  try {
    await send(url, { method: "POST", json: fieldsOf(form) });
    const next = form.dataset["apiNext"];
    if (next) location.assign(next);
    else location.reload();
  } catch (error) {
    for (const button of buttons) button.disabled = false;
    showError(form, wordsOf(error));
  }
}

export function fieldsOf(form: HTMLFormElement): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const [name, value] of new FormData(form)) {
    if (name === "csrfmiddlewaretoken" || typeof value !== "string") continue;
    const input = form.elements.namedItem(name);
    const isNumber = input instanceof HTMLInputElement && input.type === "number" && value !== "";
    fields[name] = isNumber ? Number(value) : value;
  }
  return fields;
}

function wordsOf(error: unknown): string {
  if (error instanceof LoggedOut) return "Your session has ended. Load the page again and log in.";
  if (error instanceof ApiError) {
    const fields = error.body["fields"];
    return fields && typeof fields === "object" ? `${error.message} ${Object.entries(fields).map(([name, words]) => `${name}: ${String(words)}`).join(" ")}` : error.message;
  }
  return error instanceof Error ? `${error.message} Nothing was changed; try again.` : "Nothing was changed; try again.";
}

function showError(form: HTMLFormElement, words: string): void {
  let place = form.querySelector<HTMLElement>("[data-api-error]");
  if (!place) {
    place = document.createElement("p");
    place.dataset["apiError"] = "";
    form.append(place);
  }
  place.className = "field-error";
  place.setAttribute("role", "alert");
  place.textContent = words;
  place.hidden = !words;
}
