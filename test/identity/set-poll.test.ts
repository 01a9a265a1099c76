/** Fetching security event tokens: what was settled is acknowledged at once, and what has to wait is asked for again, but not at once. */
import { expect, it } from 'vitest'
import { SetRefused } from '../../gateway/identity/set.ts'
import { type PollOptions, pollSignals } from '../../gateway/identity/set-poll.ts'

interface Question {
  readonly ack: readonly string[]
  readonly setErrs: Readonly<Record<string, unknown>>
}

/** An issuer that has these tokens until they are acknowledged, and says after each answer that it has more. */
function issuer(tokens: readonly string[], take: PollOptions['take'], pauses: number) {
  const left = new Set(tokens)
  const questions: Question[] = []
  const warnings: string[] = []
  const stop = new AbortController()
  const run = pollSignals(
    {
      everyMs: 1000,
      async ask(body) {
        const { maxEvents, ack, setErrs } = JSON.parse(body) as Question & { readonly maxEvents: number }
        questions.push({ ack, setErrs })
        for (const jti of [...ack, ...Object.keys(setErrs)]) left.delete(jti)
        const sets = Object.fromEntries([...left].slice(0, maxEvents).map((jti) => [jti, jti]))
        return { status: 200, text: JSON.stringify({ sets, moreAvailable: true }) }
      },
      take,
      warn: (text) => warnings.push(text),
      async sleep() {
        pauses -= 1
        if (pauses === 0) stop.abort()
      },
    },
    stop.signal,
  )
  return { run, questions, warnings, left }
}

it('goes on without a pause while tokens are settled, and says of each what became of it', async () => {
  const tokens = Array.from({ length: 120 }, (_, n) => `t${n}`)
  const { run, questions, left } = issuer(
    tokens,
    async (token) => {
      if (token === 't7') throw new SetRefused('invalid_audience', 'it is for somebody else')
    },
    1,
  )
  await run
  expect([...left]).toEqual([])
  expect(questions).toHaveLength(4)
  expect(questions[1]).toMatchObject({ setErrs: { t7: { err: 'invalid_audience' } } })
})

it('pauses while nothing can be settled, however much more there is, and says so once', async () => {
  const { run, questions, warnings, left } = issuer(
    ['a', 'b', 'c'],
    async () => {
      throw new Error('the store is away')
    },
    3,
  )
  await run
  expect(left.size).toBe(3)
  expect(questions, 'one before each pause').toHaveLength(3)
  expect(warnings).toEqual([expect.stringContaining('the store is away')])
})
