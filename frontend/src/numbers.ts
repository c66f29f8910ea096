/** Numbers as people read them. */

/** As the server's pages count them: a KB is 1,024 bytes. */
export function bytesInWords(bytes: number): string {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** A length with as many digits as a pathologist uses: 0.24 mm, 2.4 mm, 12 mm. */
export function millimetres(mm: number | null): string {
  if (mm === null || !Number.isFinite(mm)) return "no scale";
  return `${mm < 1 ? mm.toFixed(2) : mm < 10 ? mm.toFixed(1) : mm.toFixed(0)} mm`;
}

export function percent(share: number): string {
  const value = share * 100;
  return `${value > 0 && value < 1 ? "<1" : value > 99 && value < 100 ? ">99" : value.toFixed(0)} %`;
}

/** A probability; never rounded up to 1.00 or down to 0.00 when it is neither. */
export function probability(p: number): string {
  if (p > 0.994 && p < 1) return ">0.99";
  if (p > 0 && p < 0.006) return "<0.01";
  return p.toFixed(2);
}

/** A threshold with all digits that a model card gives it (four): what lies just below must not read as if it lay on it. */
export function limit(threshold: number): string {
  return threshold.toFixed(4).replace(/0{1,2}$/, "");
}

/** A score that stands beside its threshold: two digits, and as many more as it takes to see on which side it lies. */
export function scoreBeside(threshold: number, score: number): string {
  const shown = Number(limit(threshold));
  for (const digits of [2, 3, 4]) {
    if (Number(score.toFixed(digits)) >= shown === score >= threshold) return digits === 2 ? probability(score) : score.toFixed(digits);
  }
  return String(score);
}
