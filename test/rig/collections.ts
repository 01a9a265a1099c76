/** What small collections leave of work that comes and goes. Where something old still points to it, they leave it. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type Collect = (options?: { type: 'minor' }) => void

/**
 * Begin and end work, 64 pieces at a time, with what holds it long promoted.
 * @param begin starts piece `n`. @returns ends it.
 * @returns bytes left on the heap by 5,000 pieces.
 */
export function leftByWork(begin: (n: number) => () => void): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as Collect
  setFlagsFromString('--no-expose-gc')
  const ends: (() => void)[] = []
  const work = (pieces: number) => {
    for (let n = 0; n < pieces; n++) {
      ends[n % 64]?.()
      ends[n % 64] = begin(n)
      if (n % 500 === 0) collect({ type: 'minor' })
    }
  }
  work(64)
  collect() // what is there now is old from here on
  const before = process.memoryUsage().heapUsed
  work(5000)
  const left = process.memoryUsage().heapUsed - before
  for (const end of ends) end()
  return left
}
