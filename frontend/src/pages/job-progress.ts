/** Live progress of elements with data-job-url: polled while the job lives, the page is loaded anew when it ends. */

import { isDialogOpen } from "../dialog";
import { isTextEntry } from "../dom";
import { getJson } from "../http";

interface JobAnswer {
  state: string;
  stage: string;
  progress: number;
}

const LIVE = new Set(["queued", "running"]);
const EVERY_MS = 1500;
const SLOWEST_MS = 15000;

export function startJobProgress(): void {
  for (const element of document.querySelectorAll<HTMLElement>("[data-job-url]")) {
    const state = element.querySelector<HTMLElement>("[data-job-state]")?.dataset["state"];
    if (!state || LIVE.has(state)) void follow(element, element.dataset["jobUrl"] ?? "");
  }
}

async function follow(element: HTMLElement, url: string): Promise<void> {
  let wait = EVERY_MS;
  while (element.isConnected) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (document.hidden) continue;
    try {
      const job = await getJson<JobAnswer>(url);
      wait = EVERY_MS;
      show(element, job);
      if (!LIVE.has(job.state)) return showResult(element);
    } catch {
      wait = Math.min(SLOWEST_MS, wait * 2); // offline or restarting: the page keeps what it last knew
    }
  }
}

function show(element: HTMLElement, job: JobAnswer): void {
  const badge = element.querySelector<HTMLElement>("[data-job-state]");
  if (badge) {
    badge.dataset["state"] = job.state;
    badge.textContent = job.state === "queued" ? "waiting" : job.state;
  }
  const bar = element.querySelector<HTMLProgressElement>("[data-job-progress]");
  if (bar) bar.value = job.progress;
  const percent = element.querySelector<HTMLElement>("[data-job-percent]");
  if (percent) percent.textContent = job.state === "running" ? `${Math.floor(job.progress * 100)} %` : "";
  const stage = element.querySelector<HTMLElement>("[data-job-stage]");
  if (stage) stage.textContent = job.stage;
}

/** Loads the page anew, except where that would take away what someone is typing or reading in a dialog. */
function showResult(element: HTMLElement): void {
  const busy = isDialogOpen() || isTextEntry(document.activeElement) || document.querySelector("[data-uploading]") !== null;
  if (!busy) return location.reload();
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = "Show result";
  element.append(" ", link);
}
