/**
 * Whatever an agent writes, and whichever way it comes: what the upstream reads is what the log says was decided, or nothing.
 * Behind each request stands another one, so that whoever reads too much or too little of the first is seen.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { canonicalPath } from '../../gateway/protocol/target.ts'
import { type Attack, FRAMINGS } from './framings.fixture.ts'
import { type Received, type Recorder, startRecorder } from './recorder.fixture.ts'
import { bytesOf, converse, type Message, SHAPES, type Shape } from './shapes.fixture.ts'
import { type Decided, type Fuzzed, openFuzzed } from './site.fixture.ts'
import { WATCHED, WORDINGS } from './wordings.fixture.ts'

const PATIENCE_MS = 5_000
const GLANCE_MS = 150

let recorder: Recorder
let fuzzed: Fuzzed

beforeAll(async () => {
  recorder = await startRecorder(['safe.keyless.test', 'modern.keyless.test'])
  fuzzed = await openFuzzed(recorder)
})
afterAll(async () => {
  await fuzzed?.stop()
  await recorder?.stop()
})

const BEHIND: Message = { path: '/behind', fields: 'Connection: close\r\n' }

interface Seen {
  readonly said: string
  readonly decided: readonly Decided[]
  readonly arrived: readonly Received[]
}

async function tell(shape: Shape, message: Message): Promise<Seen> {
  const { site } = fuzzed
  const before = recorder.requests.length
  const stream = await shape.open(site)
  const said = await converse(
    stream,
    bytesOf(message, shape, site) + bytesOf(BEHIND, shape, site),
    message.isOpen ? GLANCE_MS : PATIENCE_MS,
  )
  const decided = await fuzzed.decisions()
  return { said, decided, arrived: recorder.requests.slice(before) }
}

/** Every request that arrived is one that was allowed, by method and path, and none was allowed for two. */
function requireDecided({ decided, arrived }: Seen): void {
  const allowed = decided.filter(({ isAllowed }) => isAllowed).map(({ method, path }) => `${method} ${path}`)
  for (const { method, target } of arrived) {
    const at = allowed.indexOf(`${method} ${canonicalPath(target)}`)
    expect(at, `${method} ${target} was decided, of ${JSON.stringify(decided)}`).not.toBe(-1)
    allowed.splice(at, 1)
  }
}

function requireSent({ name, message, sent, names }: Attack, { arrived, said }: Seen): void {
  const asked = arrived.filter(({ target }) => target !== '/behind')
  expect(arrived.length - asked.length, 'requests behind it').toBeLessThanOrEqual(1)
  const { method = 'GET' } = message
  expect(
    asked.map(({ method, target, body }) => ({ method, target, body })),
    `${name}: ${said.slice(0, 400)}`,
  ).toEqual(sent === null ? [] : [{ method, ...sent }])
  if (names === undefined) return
  const watched = asked.flatMap(({ fields }) => fields.map(([field]) => field.toLowerCase()))
  expect(watched.filter((field) => WATCHED.test(field))).toEqual(names)
}

describe.each(SHAPES)('$name', (shape) => {
  it.each(shape.isDoor ? FRAMINGS : [...FRAMINGS, ...WORDINGS])('$name', async (attack) => {
    const seen = await tell(shape, attack.message)
    expect(recorder.strange.splice(0)).toEqual([])
    requireDecided(seen)
    requireSent(attack, seen)
  })
})
