/** A second parser behind the gateway reads as many requests as the log says were decided: the same methods, paths and contents. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { canonicalPath } from '../../gateway/protocol/target.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'
import { FRAMINGS } from './framings.fixture.ts'
import { nearly } from './mutations.ts'
import { type Reference, startH11, startNginx } from './references.fixture.ts'
import { bytesOf, converse, type Message, SHAPES, type Shape } from './shapes.fixture.ts'
import { type Fuzzed, openFuzzed } from './site.fixture.ts'
import { PLAIN, WORDINGS } from './wordings.fixture.ts'

const MUTATIONS = 400
const AT_ONCE = 12
const PATIENCE_MS = 3_000

const FIELDS = [
  '',
  'X-Note: one\r\nX-Note: two\r\n',
  'Connection: keep-alive, x-note\r\nX-Note: 1\r\n',
  'Content-Length: 5\r\n',
  'Content-Length: 5\r\nX-Note: 1\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked\r\nTrailer: X-Late\r\n',
  'Connection: Upgrade\r\nUpgrade: h2c\r\n',
]
const BODIES = ['', 'hello', '5\r\nhello\r\n0\r\n\r\n', '2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX-Late: 1\r\n\r\n']
const message: fc.Arbitrary<Message> = fc
  .record({
    method: fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom('GET', 'POST', 'PUT', 'DELETE') },
      { weight: 1, arbitrary: nearly(['POST'], 2) },
    ),
    path: fc.oneof({ weight: 2, arbitrary: fc.constantFrom('/x') }, { weight: 1, arbitrary: nearly(PLAIN, 2) }),
    version: fc.oneof(
      { weight: 9, arbitrary: fc.constant('HTTP/1.1') },
      { weight: 1, arbitrary: nearly(['HTTP/1.1', 'HTTP/1.0'], 1) },
    ),
    framing: fc.constantFrom(
      ...FIELDS.flatMap((fields, i) =>
        i < 3 || i === 7
          ? [[fields, BODIES[0]]]
          : i < 5
            ? [[fields, BODIES[1]]]
            : [
                [fields, BODIES[2]],
                [fields, BODIES[3]],
              ],
      ),
    ),
    edits: fc.tuple(fc.nat(3), fc.nat(3)),
  })
  .chain(({ framing: [fields = '', body = ''], edits: [inFields, inBody], ...rest }) =>
    fc
      .record({ fields: nearly([fields], inFields), body: nearly([body], inBody) })
      .map((given) => ({ ...rest, ...given })),
  )

/** The same in every run: what is found can be found again. */
const CORPUS: readonly Message[] = [
  ...FRAMINGS.map((one) => one.message),
  ...WORDINGS.map((one) => one.message),
  ...fc.sample(message, { seed: 20_261, numRuns: MUTATIONS }),
].filter(({ path }) => path !== '/ws') // neither of the two speaks WebSocket

const shapes = SHAPES.filter(({ name }) => ['absolute form, http', 'CONNECT in the clear', 'SOCKS5'].includes(name))

describe.each<[string, () => Promise<Reference>]>([
  ['nginx', startNginx],
  ['h11', startH11],
])('%s', (_name, open) => {
  let reference: Reference
  let fuzzed: Fuzzed
  beforeAll(async () => {
    reference = await open()
    fuzzed = await openFuzzed({ tlsPort: 1, cleartextPort: reference.port, caPem: (await makeAuthority()).pem })
  }, 120_000)
  afterAll(async () => {
    await fuzzed?.stop()
    await reference?.stop()
  })

  async function tell(given: Message, n: number): Promise<void> {
    const { site } = fuzzed
    const shape = shapes[n % shapes.length] as Shape
    const behind = bytesOf({ path: `/behind/${n}`, fields: 'Connection: close\r\n' }, shape, site)
    await converse(await shape.open(site), bytesOf(given, shape, site) + behind, PATIENCE_MS)
  }

  it(`reads what was decided, of ${CORPUS.length} requests that are nearly right`, async () => {
    const left = CORPUS.map((given, n) => [given, n] as const).values()
    const tellAll = async () => {
      for (const [given, n] of left) await tell(given, n)
    }
    await Promise.all(Array.from({ length: AT_ONCE }, tellAll))
    const decided = (await fuzzed.decisions()).filter(({ isAllowed, error }) => isAllowed && error === null)
    const { whole, wrong } = await reference.read()
    expect(wrong).toEqual([])
    expect(decided.length).toBeGreaterThan(300)
    const theirs = whole.map(({ method, target, bytes }) => `${method} ${canonicalPath(target)} ${bytes}`)
    expect(theirs.sort()).toEqual(decided.map(({ method, path, bytesOut }) => `${method} ${path} ${bytesOut}`).sort())
  }, 120_000)
})
