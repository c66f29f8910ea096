/** Seconds during which the reader was at work: the page in front and something done within the last half minute. */

const IDLE_AFTER_MS = 30_000;

export class ActiveTime {
  #seconds = 0;
  #since: number | null = null;
  #lastAct: number;

  constructor(private readonly now: () => number = () => performance.now()) {
    this.#lastAct = this.now();
    this.#since = this.#lastAct;
  }

  /** A movement, key or click. */
  act(): void {
    this.settle();
    this.#lastAct = this.now();
    this.#since ??= this.#lastAct;
  }

  /** The page went to the back. */
  pause(): void {
    this.settle();
    this.#since = null;
  }

  /** Books the time up to now, at most up to the moment the reader counted as idle. */
  settle(): void {
    if (this.#since === null) return;
    const now = this.now();
    const until = Math.min(now, this.#lastAct + IDLE_AFTER_MS);
    this.#seconds += Math.max(0, until - this.#since) / 1000;
    this.#since = now > this.#lastAct + IDLE_AFTER_MS ? null : now;
  }

  /** Takes the seconds booked since the last call. */
  take(): number {
    this.settle();
    const seconds = this.#seconds;
    this.#seconds = 0;
    return seconds;
  }

  giveBack(seconds: number): void {
    this.#seconds += seconds;
  }
}
