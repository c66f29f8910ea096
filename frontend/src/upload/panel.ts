/** The upload part of the operator's page: case, drop zone, one line per file. */

import { h } from "../dom";
import { getJson } from "../http";
import { bytesInWords } from "../numbers";
import { filesOfDrop, withoutLitter } from "./dropped-files";
import { FileUpload, type UploadState } from "./uploader";

/** Two at once: one file is checked while another is sent, and the disk is not thrashed. */
const AT_ONCE = 2;

const WORDS: Record<UploadState, string> = {
  waiting: "waiting",
  checking: "checking file",
  sending: "sending",
  paused: "paused",
  received: "received",
  failed: "failed",
  cancelled: "cancelled",
};
const BADGE: Record<UploadState, string> = {
  waiting: "queued",
  checking: "checking",
  sending: "uploading",
  paused: "queued",
  received: "ready",
  failed: "failed",
  cancelled: "cancelled",
};

interface Unfinished {
  id: string;
  filename: string;
  case?: string;
  size: number;
  offset: number;
}

export function mountUpload(root: HTMLElement): void {
  const endpoint = root.dataset["endpoint"] ?? "/api/uploads/";
  const csrf = () => document.querySelector<HTMLInputElement>("input[name=csrfmiddlewaretoken]")?.value ?? "";
  const uploads: FileUpload[] = [];
  const rows = new Map<FileUpload, HTMLElement>();

  const accession = h("input", { id: "upload-case", name: "case", required: true, maxlength: 64, autocomplete: "off", list: "case-list" });
  const node = h("input", { id: "upload-node", name: "node", maxlength: 64, autocomplete: "off", size: 10 });
  const problem = h("p", { class: "field-error", role: "alert", hidden: true });
  const list = h("ul", { class: "uploads", "aria-label": "Files" });
  const summary = h("p", { class: "soft small", role: "status" });
  const unfinished = h("div", {});
  const picker = filePicker(false, (files) => add(files));
  const folder = filePicker(true, (files) => add(files));
  const zone = h(
    "div",
    { class: "drop" },
    h("p", {}, h("strong", {}, "Drop slide files or folders here")),
    h("p", { class: "soft small" }, "SVS, tiled TIFF, OME-TIFF and other pyramidal formats. An upload that breaks off goes on where it stopped."),
    h("div", { class: "actions" }, picker.button("Choose files"), folder.button("Choose a folder")),
    picker.input,
    folder.input,
  );

  function add(files: File[]): void {
    problem.hidden = Boolean(accession.value.trim());
    if (!problem.hidden) {
      problem.textContent = "Say first which case the slides belong to.";
      accession.setAttribute("aria-invalid", "true");
      accession.focus();
      return;
    }
    accession.removeAttribute("aria-invalid");
    const destination = { endpoint, csrf, accession: accession.value.trim(), node: node.value.trim() };
    for (const file of files) {
      const upload = new FileUpload(file, destination, () => update(upload));
      uploads.push(upload);
      const row = h("li", { class: "upload" });
      rows.set(upload, row);
      list.append(row);
      update(upload);
    }
    startNext();
  }

  function startNext(): void {
    for (const upload of uploads) {
      if (uploads.filter((other) => other.isActive).length >= AT_ONCE) return;
      if (upload.state === "waiting") void upload.start();
    }
  }

  function update(upload: FileUpload): void {
    const row = rows.get(upload);
    if (row) drawRow(row, upload);
    const open = uploads.filter((other) => !other.isOver && other.state !== "failed").length;
    const received = uploads.filter((other) => other.state === "received").length;
    const failed = uploads.filter((other) => other.state === "failed").length;
    root.toggleAttribute("data-uploading", open > 0);
    summary.replaceChildren(
      uploads.length ? `${received} of ${uploads.length} received${failed ? `, ${failed} failed` : ""}. ` : "",
      received > 0 && open === 0 ? h("a", { href: location.href }, "Show the slides in the list") : "",
    );
    if (!upload.isActive) startNext();
    if (upload.isOver) void showUnfinished(unfinished, endpoint);
  }

  root.replaceChildren(
    h(
      "div",
      { class: "field-row" },
      h("div", { class: "field" }, h("label", { for: accession.id }, "Case (accession number)"), accession),
      h("div", { class: "field" }, h("label", { for: node.id }, "Lymph node (if known)"), node),
    ),
    problem,
    unfinished,
    zone,
    list,
    summary,
  );

  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("is-over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("is-over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("is-over");
    if (event.dataTransfer) void filesOfDrop(event.dataTransfer).then(add);
  });
  addEventListener("beforeunload", (event) => {
    if (uploads.some((upload) => upload.isActive)) event.preventDefault();
  });
  void showUnfinished(unfinished, endpoint);
}

function drawRow(row: HTMLElement, upload: FileUpload): void {
  const { state } = upload;
  const progress = state === "checking" || state === "sending" || state === "paused";
  const focused = row.contains(document.activeElement) ? document.activeElement?.textContent : null;
  row.replaceChildren(
    h("div", { class: "upload-name" }, upload.file.name, h("p", { class: "hint" }, `${bytesInWords(upload.file.size)}, case ${upload.destination.accession}`)),
    progress ? h("progress", { max: 1, value: upload.share, "aria-label": `Progress of ${upload.file.name}` }) : h("p", { class: upload.reason ? "field-error" : "hint" }, upload.reason || (state === "received" ? "Preparation has started." : "")),
    h("span", { class: "badge", "data-state": BADGE[state] }, progress ? `${WORDS[state]} ${Math.floor(upload.share * 100)} %` : WORDS[state]),
    h("div", { class: "actions" }, ...buttonsOf(upload)),
  );
  // The row is drawn anew on every step: the button under the fingers keeps the focus.
  if (focused) [...row.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
}

function buttonsOf(upload: FileUpload): HTMLElement[] {
  const button = (words: string, act: () => void) =>
    h("button", { type: "button", class: "button small", onclick: act, "aria-label": `${words} ${upload.file.name}` }, words);
  const buttons: HTMLElement[] = [];
  if (upload.isActive) buttons.push(button("Pause", () => void upload.pause()));
  if (upload.state === "paused") buttons.push(button("Resume", () => void upload.start()));
  if (upload.state === "failed") buttons.push(button("Try again", () => void upload.start()));
  if (!upload.isOver) buttons.push(button(upload.state === "failed" ? "Give up" : "Cancel", () => void upload.cancel()));
  return buttons;
}

function filePicker(folder: boolean, onFiles: (files: File[]) => void) {
  const input = h("input", { type: "file", multiple: true, hidden: true, webkitdirectory: folder });
  input.addEventListener("change", () => {
    onFiles(withoutLitter([...(input.files ?? [])]));
    input.value = "";
  });
  return { input, button: (words: string) => h("button", { type: "button", class: "button", onclick: () => input.click() }, words) };
}

/** Uploads that broke off earlier: the browser may not open the file by itself, so the person is asked to choose it again. */
async function showUnfinished(place: HTMLElement, endpoint: string): Promise<void> {
  let found: Unfinished[];
  try {
    const answer = await getJson<Unfinished[] | { results: Unfinished[] }>(endpoint);
    found = Array.isArray(answer) ? answer : answer.results;
  } catch {
    return; // only a reminder; uploading itself tells what is wrong
  }
  if (!found?.length) return place.replaceChildren();
  const lines = found.map((upload) =>
    h("li", {}, `${upload.filename}${upload.case ? `, case ${upload.case}` : ""}: ${bytesInWords(upload.offset)} of ${bytesInWords(upload.size)} are here`),
  );
  place.replaceChildren(
    h("div", { class: "notice warn" }, h("p", {}, "Unfinished uploads. Choose the same file and the same case again, and they go on where they stopped:"), h("ul", {}, ...lines)),
  );
}
