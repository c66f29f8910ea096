/** What the reader did, on its way to the server: one after the other, kept in this browser until it has arrived.
 *
 * Each write carries its own Idempotency-Key, so that a repeat after a lost answer is answered and not done twice, and the
 * version it expects, so that two windows on one read cannot overwrite each other unseen. */

import { ApiError, LoggedOut, Unreachable } from "../http";

export interface Write {
  key: string;
  path: string;
  body: Record<string, unknown>;
  /** What the reader did, for messages: "reject lesion 3". */
  words: string;
  /** Set when it is sent for the first time; a repeat must send the same body. */
  expected_version?: number;
}

export type SaveState = "saved" | "saving" | "waiting" | "logged_out";

export interface WriteQueueOptions<State extends { version: number }> {
  version: number;
  send: (path: string, body: Record<string, unknown>, key: string) => Promise<State>;
  onState: (state: State) => void;
  onSaveState: (state: SaveState, pending: readonly Write[]) => void;
  /** The read is not as this window believed; none of `lost` was done. */
  onStale: (current: State | null, lost: readonly Write[]) => void;
  onRefused: (write: Write, error: Error) => void;
  storage: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null;
  storageKey: string;
  newKey?: () => string;
  wait?: (ms: number) => Promise<void>;
}

const AGAIN_MS = [1000, 2000, 5000, 10000, 20000];

export class WriteQueue<State extends { version: number }> {
  #pending: Write[];
  #version: number;
  #running = false;
  #wake: (() => void) | null = null;
  #idle: (() => void)[] = [];

  constructor(private readonly options: WriteQueueOptions<State>) {
    this.#version = options.version;
    this.#pending = this.#load();
    if (this.#pending.length > 0) void this.#run();
  }

  get pending(): readonly Write[] {
    return this.#pending;
  }

  push(path: string, body: Record<string, unknown>, words: string): void {
    this.#pending = [...this.#pending, { key: (this.options.newKey ?? (() => crypto.randomUUID()))(), path, body, words }];
    this.#save();
    this.options.onSaveState("saving", this.#pending);
    void this.#run();
  }

  /** Tries again at once: the network or the session is back. */
  resume(): void {
    if (this.#wake) this.#wake();
    else void this.#run();
  }

  /** The version a state fetched outside the queue has. */
  setVersion(version: number): void {
    this.#version = version;
  }

  /** Resolves when nothing is left to send. */
  settled(): Promise<void> {
    if (this.#pending.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    let failures = 0;
    while (this.#pending[0]) {
      const outcome = await this.#sendFirst(this.#pending[0]);
      if (outcome === "sent") failures = 0;
      else if (outcome === "logged_out") await this.#sleep(null);
      else await this.#sleep(AGAIN_MS[Math.min(failures++, AGAIN_MS.length - 1)] as number);
    }
    this.#running = false;
    this.options.onSaveState("saved", []);
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  async #sendFirst(write: Write): Promise<"sent" | "again" | "logged_out"> {
    write.expected_version ??= this.#version;
    this.#save();
    try {
      const state = await this.options.send(write.path, { ...write.body, expected_version: write.expected_version }, write.key);
      this.#version = state.version;
      this.#drop(1);
      this.options.onState(state);
      this.options.onSaveState(this.#pending.length ? "saving" : "saved", this.#pending);
      return "sent";
    } catch (error) {
      return this.#handle(write, error);
    }
  }

  #handle(write: Write, error: unknown): "sent" | "again" | "logged_out" {
    if (error instanceof LoggedOut) {
      this.options.onSaveState("logged_out", this.#pending);
      return "logged_out";
    }
    if (error instanceof ApiError && error.code === "stale") {
      const current = (error.body["current"] ?? null) as State | null;
      if (current) this.#version = current.version;
      this.options.onStale(current, this.#drop(this.#pending.length));
      return "sent";
    }
    if (error instanceof ApiError && error.status < 500) {
      this.#drop(1);
      this.options.onRefused(write, error);
      return "sent";
    }
    if (!(error instanceof Unreachable) && !(error instanceof ApiError)) throw error;
    this.options.onSaveState("waiting", this.#pending);
    return "again";
  }

  #drop(count: number): Write[] {
    const dropped = this.#pending.slice(0, count);
    this.#pending = this.#pending.slice(count);
    this.#save();
    return dropped;
  }

  async #sleep(ms: number | null): Promise<void> {
    const woken = new Promise<void>((resolve) => (this.#wake = resolve));
    const wait = this.options.wait ?? ((time: number) => new Promise<void>((resolve) => setTimeout(resolve, time)));
    await (ms === null ? woken : Promise.race([woken, wait(ms)]));
    this.#wake = null;
  }

  #load(): Write[] {
    try {
      return JSON.parse(this.options.storage?.getItem(this.options.storageKey) ?? "[]") as Write[];
    } catch {
      return []; // unreadable: nothing can be recovered from it
    }
  }

  #save(): void {
    const { storage, storageKey } = this.options;
    try {
      if (this.#pending.length) storage?.setItem(storageKey, JSON.stringify(this.#pending));
      else storage?.removeItem(storageKey);
    } catch {
      // Storage full or forbidden: the queue then lives as long as the page.
    }
  }
}
