/** A value and those who want to know when it changes. */

export interface Store<T> {
  get(): T;
  set(change: Partial<T>): void;
  subscribe(listener: (value: T, before: T) => void): () => void;
}

export function createStore<T extends object>(initial: T): Store<T> {
  let value = initial;
  const listeners = new Set<(value: T, before: T) => void>();
  return {
    get: () => value,
    set(change) {
      const before = value;
      if ((Object.keys(change) as (keyof T)[]).every((name) => Object.is(change[name], before[name]))) return;
      value = { ...value, ...change };
      for (const listener of [...listeners]) listener(value, before);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
