/**
 * Time as a promise may be held to it on a machine that is busy with other things: the watch all but stands still while this
 * process, and with it the gateway under test, does not get to run.
 */
const TICK_MS = 10

export interface Stopwatch extends Disposable {
  /** Milliseconds since its start in which this process could run; of each pause of more than two ticks, two ticks. */
  readonly ms: number
}

/** Runs until it is disposed of. */
export function stopwatch(): Stopwatch {
  let ms = 0
  let lastMs = performance.now()
  const read = (): number => {
    const nowMs = performance.now()
    ms += Math.min(nowMs - lastMs, 2 * TICK_MS)
    lastMs = nowMs
    return ms
  }
  const timer = setInterval(read, TICK_MS)
  return {
    get ms() {
      return read()
    },
    [Symbol.dispose]: () => clearInterval(timer),
  }
}
