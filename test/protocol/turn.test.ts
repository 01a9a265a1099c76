import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { atEndOfTurn } from '../../gateway/protocol/turn.ts'

test('what waits is done at the end of the turn, in the order in which it came', async () => {
  const done: number[] = []
  const later = atEndOfTurn((item: number) => done.push(item))
  later(1)
  await Promise.resolve().then(() => later(2))
  process.nextTick(later, 3)
  expect(done).toEqual([])
  await nextTurn()
  expect(done).toEqual([1, 2, 3])
})

test('what comes while others are done waits for the next turn, so that one turn cannot go on for ever', async () => {
  const done: number[] = []
  const later = atEndOfTurn((item: number) => {
    done.push(item)
    if (item < 3) later(item + 1)
  })
  later(1)
  await nextTurn()
  expect(done).toEqual([1])
  await nextTurn()
  expect(done).toEqual([1, 2])
  await nextTurn()
  expect(done).toEqual([1, 2, 3])
})

test('two kinds of work do not wait for each other', async () => {
  const done: string[] = []
  const [first, second] = ['a', 'b'].map((kind) => atEndOfTurn((item: number) => done.push(`${kind}${item}`)))
  first?.(1)
  second?.(1)
  first?.(2)
  await nextTurn()
  expect(done).toEqual(['a1', 'a2', 'b1'])
})
