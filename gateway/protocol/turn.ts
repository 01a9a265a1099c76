/**
 * Work that waits for the end of the event loop's turn, to be done for all calls of the turn in one go. One step for many calls finds its
 * code in the processor's caches; all steps for one call after the other do not, which costs a fifth more under load.
 */

/**
 * @param step must not throw: it would take those behind it along.
 * @returns puts an item behind those that wait already. At the end of the turn, after all sockets that are readable in it were read, each
 *   goes through `step`, in order.
 */
export function atEndOfTurn<T>(step: (item: T) => void): (item: T) => void {
  let waiting: T[] = []
  const run = () => {
    const items = waiting
    waiting = []
    for (const item of items) step(item)
  }
  return (item) => {
    if (waiting.push(item) === 1) setImmediate(run)
  }
}
