/** The upload part of the operator's page: case, drop zone, one line per file. */

import { h } from "../dom";
import { getJson, send, inWords } from "../http";
import { bytesInWords } from "../numbers";
import { filesOfDrop, filesOfPicker } from "./dropped-files";
import { groupSlides, type DroppedFile } from "./slide-groups";
import { SlideUpload, type Unfinished, type UploadState } from "./uploader";

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

const MOST_NAMES_SHOWN = 3;

export function mountUpload(root: HTMLElement): void {
  const endpoint = root.dataset["endpoint"] ?? "/api/uploads/";
  const csrf = () => document.querySelector<HTMLInputElement>("input[name=csrfmiddlewaretoken]")?.value ?? "";
  const uploads: SlideUpload[] = [];
  const rows = new Map<SlideUpload, HTMLElement>();

  const accession = h("input", { id: "upload-case", name: "case", required: true, maxlength: 64, autocomplete: "off", list: "case-list" });
  const node = h("input", { id: "upload-node", name: "node", maxlength: 64, autocomplete: "off", size: 10 });
  const problem = h("p", { class: "field-error", role: "alert", hidden: true });
  const list = h("ul", { class: "uploads", "aria-label": "Files" });
  const summary = h("p", { class: "soft small", role: "status" });
  const unfinished = h("div", {});
  const leftOut = h("p", { class: "soft small", role: "status", hidden: true });
  const picker = filePicker(false, (files) => void add(files).catch(sayProblem));
  const folder = filePicker(true, (files) => void add(files).catch(sayProblem));
  const zone = h(
    "div",
    { class: "drop" },
    h("p", {}, h("strong", {}, "Drop slide files, folders or zip archives here")),
    h("p", { class: "soft small" }, "SVS, tiled TIFF, OME-TIFF and other pyramidal formats; MRXS with its folder, VMS with its pictures, folders of a DICOM series. An upload that breaks off goes on where it stopped."),
    h("div", { class: "actions" }, picker.button("Choose files"), folder.button("Choose a folder")),
    picker.input,
    folder.input,
  );

  async function add(files: DroppedFile[]): Promise<void> {
    problem.hidden = Boolean(accession.value.trim());
    if (!problem.hidden) {
      problem.textContent = "Say first which case the slides belong to.";
      accession.setAttribute("aria-invalid", "true");
      accession.focus();
      return;
    }
    accession.removeAttribute("aria-invalid");
    const destination = { endpoint, csrf, accession: accession.value.trim(), node: node.value.trim() };
    const grouped = await groupSlides(files);
    leftOut.hidden = grouped.leftOut.length === 0;
    leftOut.textContent = wordsForLeftOut(grouped.leftOut);
    if (files.length === 0) sayProblem("There is no file in what was dropped.");
    for (const slide of grouped.slides) {
      const upload = new SlideUpload(slide, destination, () => update(upload));
      uploads.push(upload);
      const row = h("li", { class: "upload" });
      rows.set(upload, row);
      list.append(row);
      update(upload);
    }
    startNext();
  }

  function sayProblem(error: unknown): void {
    problem.hidden = false;
    problem.textContent = inWords(error);
  }

  function startNext(): void {
    for (const upload of uploads) {
      if (uploads.filter((other) => other.isActive).length >= AT_ONCE) return;
      if (upload.state === "waiting") void upload.start();
    }
  }

  function update(upload: SlideUpload): void {
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
    if (upload.isOver) void showUnfinished();
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
    leftOut,
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
    if (event.dataTransfer) void filesOfDrop(event.dataTransfer).then(add).catch(sayProblem);
  });
  addEventListener("beforeunload", (event) => {
    if (uploads.some((upload) => upload.isActive)) event.preventDefault();
  });

  /** Uploads that broke off earlier: the browser may not open the file by itself, so the person is asked to choose it again. */
  async function showUnfinished(): Promise<void> {
    let found: Unfinished[];
    try {
      found = (await getJson<{ results: Unfinished[] }>(endpoint)).results;
    } catch {
      return; // only a reminder; uploading itself tells what is wrong
    }
    const here = new Set(uploads.filter((upload) => !upload.isOver).map((upload) => upload.sha256));
    const lines = found.filter((upload) => !here.has(upload.sha256)).map((upload) =>
      h(
        "li",
        {},
        `${upload.filename}, case ${upload.case}: ${bytesInWords(upload.offset)} of ${bytesInWords(upload.size)} are here `,
        h("button", { type: "button", class: "button small", "aria-label": `Give up ${upload.filename}`, onclick: () => void giveUp(upload) }, "Give up"),
      ),
    );
    unfinished.replaceChildren(
      lines.length
        ? h("div", { class: "notice warn" }, h("p", {}, "Unfinished uploads. Choose the same file or folder and the same case again, and they go on where they stopped:"), h("ul", {}, ...lines))
        : "",
    );
  }

  async function giveUp(upload: Unfinished): Promise<void> {
    try {
      await send(`${upload.url}dismiss/`, { method: "POST" });
    } catch (error) {
      sayProblem(error);
    }
    await showUnfinished();
  }

  void showUnfinished();
}

function drawRow(row: HTMLElement, upload: SlideUpload): void {
  const { state } = upload;
  const progress = state === "checking" || state === "sending" || state === "paused";
  const focused = row.contains(document.activeElement) ? document.activeElement?.textContent : null;
  row.replaceChildren(
    h("div", { class: "upload-name" }, upload.slide.name, h("p", { class: "hint" }, `${filesInWords(upload)}${bytesInWords(upload.size)}, case ${upload.destination.accession}${wentOnInWords(upload)}`)),
    progress ? h("progress", { max: 1, value: upload.share, "aria-label": `Progress of ${upload.slide.name}` }) : h("p", { class: upload.reason ? "field-error" : "hint" }, upload.reason || (state === "received" ? "Preparation has started." : "")),
    h("span", { class: "badge", "data-state": BADGE[state] }, progress ? `${WORDS[state]} ${Math.floor(upload.share * 100)} %` : WORDS[state]),
    h("div", { class: "actions" }, ...buttonsOf(upload)),
  );
  // The row is drawn anew on every step: the button under the fingers keeps the focus.
  if (focused) [...row.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
}

function filesInWords(upload: SlideUpload): string {
  const count = upload.slide.files.length;
  return count > 1 ? `one slide of ${count} files, ` : "";
}

function wentOnInWords(upload: SlideUpload): string {
  return upload.resumedAt > 0 ? `; went on at ${Math.floor(upload.resumedAt * 100)} %` : "";
}

function buttonsOf(upload: SlideUpload): HTMLElement[] {
  const button = (words: string, act: () => void) =>
    h("button", { type: "button", class: "button small", onclick: act, "aria-label": `${words} ${upload.slide.name}` }, words);
  const buttons: HTMLElement[] = [];
  if (upload.isActive) buttons.push(button("Pause", () => void upload.pause()));
  if (upload.state === "paused") buttons.push(button("Resume", () => void upload.start()));
  if (upload.mayTryAgain) buttons.push(button("Try again", () => void upload.start()));
  if (!upload.isOver) buttons.push(button(upload.slide.problem ? "Remove" : upload.state === "failed" ? "Give up" : "Cancel", () => void upload.cancel()));
  return buttons;
}

function filePicker(folder: boolean, onFiles: (files: DroppedFile[]) => void) {
  const input = h("input", { type: "file", multiple: true, hidden: true, webkitdirectory: folder });
  input.addEventListener("change", () => {
    onFiles(filesOfPicker(input.files ?? []));
    input.value = "";
  });
  return { input, button: (words: string) => h("button", { type: "button", class: "button", onclick: () => input.click() }, words) };
}

function wordsForLeftOut(paths: string[]): string {
  const shown = paths.slice(0, MOST_NAMES_SHOWN).join(", ");
  const more = paths.length > MOST_NAMES_SHOWN ? ` and ${paths.length - MOST_NAMES_SHOWN} more` : "";
  return paths.length ? `Left out, because they are no slides: ${shown}${more}.` : "";
}
