/** Milliseconds by stage. */
export type Timings = Record<string, number>;

/** Adds what something takes to `timings[stage]`. */
export function timed<T>(timings: Timings, stage: string, run: () => T): T {
  const began = performance.now();
  try {
    return run();
  } finally {
    timings[stage] = (timings[stage] ?? 0) + performance.now() - began;
  }
}

/** As `timed`, of something that takes its time. */
export async function timedAsync<T>(timings: Timings, stage: string, run: () => Promise<T>): Promise<T> {
  const began = performance.now();
  try {
    return await run();
  } finally {
    timings[stage] = (timings[stage] ?? 0) + performance.now() - began;
  }
}
