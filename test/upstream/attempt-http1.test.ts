import type { Dispatcher } from 'undici'
import { expect, test } from 'vitest'
import type { Outbound } from '../../gateway/protocol/message.ts'
import type { Answer } from '../../gateway/upstream/answer.ts'
import type { AttemptOwner } from '../../gateway/upstream/attempt.ts'
import { Http1Attempt } from '../../gateway/upstream/attempt-http1.ts'
import type { Connection } from '../../gateway/upstream/connection.ts'

test('a call whose connection was given back neither holds up nor lets go on the call that has it now', () => {
  const asked: string[] = []
  const controller = {
    pause: () => asked.push('pause'),
    resume: () => asked.push('resume'),
    rawHeaders: [],
    rawTrailers: [],
  } as unknown as Dispatcher.DispatchController
  const connection = { isReset: false, client: { dispatch: () => true } } as unknown as Connection
  const answer = { start: () => {}, data: () => {}, finish: () => {} } as unknown as Answer
  const owner = { newHash: () => undefined, challenged: () => false } as unknown as AttemptOwner
  const keeper = { release: () => asked.push('release'), discard: () => asked.push('discard') }

  const attempt = new Http1Attempt(owner, () => answer, keeper, connection)
  attempt.send({ path: '/', method: 'GET', headers: [] } as unknown as Outbound, null)
  attempt.onRequestStart(controller)
  attempt.onResponseStart(controller, 200, {})
  attempt.pause()
  attempt.resume()
  attempt.onResponseEnd(controller)
  attempt.pause()
  attempt.resume()

  expect(asked).toEqual(['pause', 'resume', 'release'])
})
