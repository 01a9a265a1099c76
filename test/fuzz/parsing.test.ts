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
import { AUTHORITIES, SAME, WATCHED, WORDINGS } from './wordings.fixture.ts'

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

/** Nothing is done of which nobody hears. */
function requireAnswered({ said, arrived }: Seen): void {
  expect(said.match(/HTTP\/1\.[01] (?:200|101) /g)?.length ?? 0).toBeGreaterThanOrEqual(arrived.length)
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
    requireAnswered(seen)
    requireSent(attack, seen)
  })
})

const fill = (text: string, host: string, port: number) =>
  text.replaceAll('{host}', host).replaceAll('{HOST}', host.toUpperCase()).replaceAll('{port}', String(port))

describe('an authority that names no place, or another one', () => {
  const absolute = SHAPES.find(({ name }) => name === 'absolute form, http') as Shape
  const cleartext = SHAPES.find(({ name }) => name === 'CONNECT in the clear') as Shape
  const written = (text: string) =>
    Buffer.from(fill(text, 'plain.keyless.test', fuzzed.site.cleartextPort)).toString('latin1')

  it.each(AUTHORITIES)('%j leads nowhere in a target, a Host field, or a CONNECT', async (text) => {
    const ways: readonly [Shape, Message][] = [
      [absolute, { target: () => `http://${written(text)}/x` }],
      [absolute, { host: `Host: ${written(text)}\r\n` }],
      [cleartext, { host: `Host: ${written(text)}\r\n` }],
      [cleartext, { target: () => `http://${written(text)}/x` }],
      [absolute, { method: 'CONNECT', target: () => written(text) }],
    ]
    for (const [shape, message] of ways) {
      const seen = await tell(shape, message)
      expect(seen.arrived.filter(({ target }) => target !== '/behind')).toEqual([])
      requireDecided(seen)
    }
  })

  it.each(SAME)('%j is the true one, and goes on as it was decided', async (text) => {
    for (const [shape, message] of [
      [absolute, { target: () => `http://${written(text)}/x` }],
      [absolute, { host: `Host: ${written(text)}\r\n` }],
      [cleartext, { host: `Host: ${written(text)}\r\n` }],
    ] as const) {
      const { arrived } = await tell(shape, message)
      expect(arrived.map(({ target, fields }) => [target, ...fields.filter(([name]) => /^host$/i.test(name))])).toEqual(
        [
          ['/x', ['host', written('{host}:{port}')]],
          ['/behind', ['host', written('{host}:{port}')]],
        ],
      )
    }
  })
})
