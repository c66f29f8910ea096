/** One slide on its way: SHA-256 first, then a resumable tus upload that names it. States are told to `onChange`. */

import { DetailedError, Upload } from "tus-js-client";
import { getJson, inWords } from "../http";
import type { Digest } from "./digest";
import type { DigestAnswer } from "./digest.worker";
import { sizeOf, type SlideFiles } from "./slide-groups";
import { zipOf } from "./stored-zip";

export type UploadState = "waiting" | "checking" | "sending" | "paused" | "received" | "failed" | "cancelled";

/** An upload that the server holds the beginning of. */
export interface Unfinished {
  id: string;
  url: string;
  filename: string;
  case: string;
  size: number;
  offset: number;
  sha256: string;
}

export interface Destination {
  endpoint: string;
  csrf: () => string;
  accession: string;
  node: string;
}

/** Small enough that a lost piece costs seconds, large enough that the round trip does not dominate. */
const CHUNK_BYTES = 8 * 2 ** 20;
const RETRY_DELAYS_MS = [0, 1000, 3000, 5000, 10000, 20000, 30000];

export class SlideUpload {
  state: UploadState = "waiting";
  /** Share of the present step, 0 to 1. */
  share = 0;
  reason = "";
  /** Share that the server had already when sending began. */
  resumedAt = 0;
  readonly size: number;
  #tus: Upload | null = null;
  #worker: Worker | null = null;
  #digest: Digest | null = null;

  constructor(
    readonly slide: SlideFiles,
    readonly destination: Destination,
    private readonly onChange: () => void,
  ) {
    this.size = sizeOf(slide);
    if (slide.problem) [this.state, this.reason] = ["failed", slide.problem];
  }

  get sha256(): string {
    return this.#digest?.sha256 ?? "";
  }

  /** Whether to try once more could help; what is wrong with the files themselves stays wrong. */
  get mayTryAgain(): boolean {
    return this.state === "failed" && !this.slide.problem;
  }

  get isActive(): boolean {
    return this.state === "checking" || this.state === "sending";
  }

  get isOver(): boolean {
    return this.state === "received" || this.state === "cancelled";
  }

  async start(): Promise<void> {
    this.reason = "";
    try {
      this.#set("checking");
      this.#digest ??= await this.#check();
      if (this.state === "checking") await this.#send(this.#digest); // else paused or cancelled meanwhile
    } catch (error) {
      if (this.isActive) this.#set("failed", reasonOf(error));
    }
  }

  /** The piece under way is given up; the server keeps what it has. */
  async pause(): Promise<void> {
    if (this.state === "checking") this.#stopWorker();
    this.#set("paused");
    await this.#tus?.abort(false);
  }

  async cancel(): Promise<void> {
    const tus = this.#tus;
    this.#stopWorker();
    this.#set("cancelled");
    if (!tus) return;
    try {
      await tus.abort(true);
    } catch {
      this.#set("cancelled", "The server could not be told; it discards unfinished uploads by itself.");
    }
  }

  async #check(): Promise<Digest> {
    const worker = new Worker(new URL("./digest.worker.ts", import.meta.url), { type: "module" });
    this.#worker = worker;
    return new Promise<Digest>((resolve, reject) => {
      worker.onerror = () => reject(new Error("The file could not be read."));
      worker.onmessage = (event: MessageEvent<DigestAnswer>) => {
        const answer = event.data;
        if ("share" in answer) {
          this.share = answer.share;
          this.onChange();
          return;
        }
        this.#stopWorker();
        if ("failure" in answer) reject(new Error(`The file could not be read: ${answer.failure}`));
        else resolve(answer);
      };
      worker.postMessage(this.slide.files);
    });
  }

  async #send(digest: Digest): Promise<void> {
    const { endpoint, csrf, accession, node } = this.destination;
    const { files, name } = this.slide;
    const packed = files.length > 1;
    const data = packed ? zipOf(files, digest.checkSums) : files[0]!.file;
    // The server knows by the content what it has the beginning of: also after a reload, or from another browser.
    const earlier = await unfinishedOf(endpoint, digest.sha256, accession, data.size);
    if (this.state !== "checking") return; // paused or cancelled meanwhile
    const tus = new Upload(data, {
      endpoint,
      uploadUrl: earlier?.url ?? null,
      chunkSize: CHUNK_BYTES,
      retryDelays: RETRY_DELAYS_MS,
      storeFingerprintForResuming: false,
      metadata: { filename: packed ? `${name}.zip` : name, case: accession, node, sha256: digest.sha256 },
      onBeforeRequest: (request) => request.setHeader("X-CSRFToken", csrf()),
      onShouldRetry: (error) => mayHelpToRetry(error),
      onProgress: (sent, total) => {
        this.share = total ? sent / total : 1;
        this.onChange();
      },
      onSuccess: () => this.#set("received"),
      onError: (error) => this.#set("failed", reasonOf(error)),
    });
    this.#tus = tus;
    this.#set("sending");
    this.resumedAt = earlier ? earlier.offset / earlier.size : 0;
    tus.start();
  }

  #stopWorker(): void {
    this.#worker?.terminate();
    this.#worker = null;
  }

  #set(state: UploadState, reason = ""): void {
    if (state !== this.state && state !== "paused") this.share = 0;
    this.state = state;
    this.reason = reason;
    this.onChange();
  }
}

async function unfinishedOf(endpoint: string, sha256: string, accession: string, size: number): Promise<Unfinished | undefined> {
  const answer = await getJson<{ results: Unfinished[] }>(`${endpoint}?sha256=${sha256}`);
  return answer.results.find((upload) => upload.case === accession && upload.size === size);
}

/** Network trouble and a busy server pass; a refusal (4xx) and a full disk do not, a lock held by a piece cut off does. */
export function mayHelpToRetry(error: Error): boolean {
  const status = error instanceof DetailedError ? (error.originalResponse?.getStatus() ?? 0) : 0;
  if (status === 507) return false; // somebody has to make room first
  return status === 0 || status >= 500 || status === 409 || status === 423 || status === 429;
}

export function reasonOf(error: unknown): string {
  if (error instanceof DetailedError && error.originalResponse) {
    const status = error.originalResponse.getStatus();
    try {
      const body = JSON.parse(error.originalResponse.getBody()) as { message?: string };
      if (body.message) return body.message;
    } catch {
      // Not JSON: a proxy answered; the status is all there is.
    }
    if (status === 401 || status === 403) return "Your session has ended, or you may not upload. Load the page again and log in.";
    return `The server refused the file (status ${status}).`;
  }
  if (error instanceof DetailedError) return "The connection was lost and did not come back. What was sent is kept: press Resume.";
  return inWords(error);
}
