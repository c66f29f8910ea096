/** One file on its way: SHA-256 first, then a resumable tus upload that names it. States are told to `onChange`. */

import { DetailedError, Upload } from "tus-js-client";
import type { DigestAnswer } from "./digest.worker";

export type UploadState = "waiting" | "checking" | "sending" | "paused" | "received" | "failed" | "cancelled";

export interface Destination {
  endpoint: string;
  csrf: () => string;
  accession: string;
  node: string;
}

/** Small enough that a lost piece costs seconds, large enough that the round trip does not dominate. */
const CHUNK_BYTES = 8 * 2 ** 20;
const RETRY_DELAYS_MS = [0, 1000, 3000, 5000, 10000, 20000, 30000];

export class FileUpload {
  state: UploadState = "waiting";
  /** Share of the present step, 0 to 1. */
  share = 0;
  reason = "";
  resumedAt = 0;
  #tus: Upload | null = null;
  #worker: Worker | null = null;
  #sha256 = "";

  constructor(
    readonly file: File,
    readonly destination: Destination,
    private readonly onChange: () => void,
  ) {}

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
      if (!this.#sha256) await this.#check();
      if (this.state === "checking") await this.#send(); // else paused or cancelled meanwhile
    } catch (error) {
      this.#set("failed", reasonOf(error));
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

  async #check(): Promise<void> {
    const worker = new Worker(new URL("./digest.worker.ts", import.meta.url), { type: "module" });
    this.#worker = worker;
    await new Promise<void>((resolve, reject) => {
      worker.onerror = () => reject(new Error("The file could not be read."));
      worker.onmessage = (event: MessageEvent<DigestAnswer>) => {
        const answer = event.data;
        if ("share" in answer) {
          this.share = answer.share;
          this.onChange();
          return;
        }
        if ("sha256" in answer) this.#sha256 = answer.sha256;
        this.#stopWorker();
        if ("failure" in answer) reject(new Error(`The file could not be read: ${answer.failure}`));
        else resolve();
      };
      worker.postMessage(this.file);
    });
  }

  async #send(): Promise<void> {
    const { endpoint, csrf, accession, node } = this.destination;
    const tus = new Upload(this.file, {
      endpoint,
      chunkSize: CHUNK_BYTES,
      retryDelays: RETRY_DELAYS_MS,
      removeFingerprintOnSuccess: true,
      metadata: { filename: this.file.name, case: accession, node, sha256: this.#sha256 },
      onBeforeRequest: (request) => request.setHeader("X-CSRFToken", csrf()),
      onShouldRetry: (error) => mayHelpToRetry(error),
      onProgress: (sent, total) => {
        this.share = total ? sent / total : 1;
        this.onChange();
      },
      onSuccess: () => this.#set("received"),
      onError: (error) => this.#set("failed", reasonOf(error)),
    });
    const earlier = (await tus.findPreviousUploads()).find((upload) => upload.metadata["case"] === accession);
    if (earlier) tus.resumeFromPreviousUpload(earlier);
    if (this.state !== "checking") return; // paused or cancelled meanwhile
    this.#tus = tus;
    this.#set("sending");
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

/** Network trouble and a busy server pass; a refusal (4xx) does not, except a lock held by the piece that was cut off. */
export function mayHelpToRetry(error: Error): boolean {
  const status = error instanceof DetailedError ? (error.originalResponse?.getStatus() ?? 0) : 0;
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
  return error instanceof Error ? error.message : String(error);
}
