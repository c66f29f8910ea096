/** Keys on tables whose rows open something: J/K (N/P) move, Enter opens, `/` goes to the search field. */

import { isDialogOpen } from "../dialog";
import { isTextEntry } from "../dom";
import { keysSwitchedOff } from "../keys-settings";

export function startRowKeys(): void {
  const rows = () => [...document.querySelectorAll<HTMLTableRowElement>("tr[data-row-href]")];
  document.addEventListener("click", (event) => openClickedRow(event));
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (isTextEntry(event.target) || isDialogOpen() || keysSwitchedOff()) return;
    if (event.key === "/") return focusSearch(event);
    const step = { j: 1, n: 1, k: -1, p: -1 }[event.key.toLowerCase()];
    if (step) moveCurrent(rows(), step);
    else if (event.key === "Enter" && event.target === document.body) openCurrent(rows());
  });
}

function focusSearch(event: KeyboardEvent): void {
  const search = document.querySelector<HTMLInputElement>("input[type=search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
  search.select();
}

/** The row's own link takes the focus, so that Enter stays the browser's and a screen reader reads the row. */
function moveCurrent(rows: HTMLTableRowElement[], step: number): void {
  if (rows.length === 0) return;
  const at = rows.findIndex((row) => row.classList.contains("is-current"));
  const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + step))];
  rows[at]?.classList.remove("is-current");
  if (!next) return;
  next.classList.add("is-current");
  next.querySelector<HTMLAnchorElement>("a[href]")?.focus();
  next.scrollIntoView({ block: "nearest" });
}

function openCurrent(rows: HTMLTableRowElement[]): void {
  const href = rows.find((row) => row.classList.contains("is-current"))?.dataset["rowHref"];
  if (href) location.assign(href);
}

function openClickedRow(event: MouseEvent): void {
  const target = event.target as Element;
  if (target.closest("a, button, input, select, label, summary, form") || String(getSelection())) return;
  const href = target.closest<HTMLTableRowElement>("tr[data-row-href]")?.dataset["rowHref"];
  if (!href) return;
  if (event.ctrlKey || event.metaKey) window.open(href, "_blank", "noopener");
  else location.assign(href);
}
