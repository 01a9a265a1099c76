import { expect, it } from 'vitest'
import { together } from '../../gateway/upstream/lookup.ts'

/** A resolver that answers when it is told to. */
function resolver() {
  const asked: { host: string; answer: PromiseWithResolvers<readonly string[]> }[] = []
  const resolve = (host: string) => {
    const answer = Promise.withResolvers<readonly string[]>()
    asked.push({ host, answer })
    return answer.promise
  }
  return { asked, resolve }
}

it('asks for a name once while it is being asked for, whoever asks', async () => {
  const { asked, resolve } = resolver()
  const shared = together(resolve, 60_000)
  const all = [...Array.from({ length: 100 }, () => shared('a.test')), shared('b.test')]
  expect(asked.map(({ host }) => host)).toEqual(['a.test', 'b.test'])
  asked[0]?.answer.resolve(['192.0.2.1'])
  asked[1]?.answer.resolve(['192.0.2.2'])
  expect((await Promise.all(all)).at(0)).toEqual(['192.0.2.1'])
  expect((await Promise.all(all)).at(-1)).toEqual(['192.0.2.2'])
})

it('keeps no answer and no failure', async () => {
  const { asked, resolve } = resolver()
  const shared = together(resolve, 60_000)
  const first = shared('a.test')
  asked[0]?.answer.reject(new Error('no such name'))
  await expect(first).rejects.toThrow('no such name')
  const second = shared('a.test')
  asked[1]?.answer.resolve(['192.0.2.1'])
  expect(await second).toEqual(['192.0.2.1'])
  void shared('a.test')
  expect(asked).toHaveLength(3)
})

it('asks anew for a name whose answer does not come', async () => {
  const { asked, resolve } = resolver()
  const shared = together(resolve, 1)
  void shared('a.test')
  await expect
    .poll(() => {
      void shared('a.test')
      return asked.length
    })
    .toBeGreaterThan(1)
})
