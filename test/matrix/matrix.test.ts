/** SECURITY.md 9: every client of docs/clients.md works unmodified, with the variables named there, and never holds a key. */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findCanary } from '../rig/canary.ts'
import { type Ended, run } from '../rig/process.ts'
import { type Case, clients, type MatrixClient } from './clients.ts'
import { commandOf, environmentOf, type Matrix, Missing, openMatrix } from './rig.ts'
import { DOWNLOAD_BYTES } from './upstream.ts'

let matrix: Matrix

beforeAll(async () => {
  matrix = await openMatrix()
})
afterAll(() => matrix.stop())

const proxyUrl = (handle: string) => `http://${matrix.task.task}:${handle}@127.0.0.1:${matrix.site.gateway.proxyPort}`
const filled = (bytes: number, letter: string) => ({
  bytes,
  sha256: createHash('sha256').update(letter.repeat(bytes)).digest('hex'),
})

/** What each case has to bring back, whichever client asks. */
const EXPECTED: Readonly<Record<Case, object>> = {
  get: { authorization: expect.stringMatching(/^Bearer \*+$/) },
  post: { got: expect.anything() },
  upload: filled(96 * 32_768, 'u'),
  download: filled(DOWNLOAD_BYTES, 'd'),
  sse: { events: ['one', 'two', 'three'] },
  ws: { greeting: 'hello', echo: 'ping' },
}
/** Package managers read another document, and unpack what they downloaded. */
const OF_PACKAGES: Partial<Record<Case, object>> = { get: { latest: '1.0.0' }, download: { found: true } }

const expectedOf = ({ service }: MatrixClient, one: Case) =>
  (service === 'npm' || service === 'pypi' ? OF_PACKAGES[one] : undefined) ?? EXPECTED[one]

function foundIn({ stdout, stderr }: Ended): Map<string, unknown> {
  const lines = stdout.split('\n').filter((line) => line.startsWith('{"case":'))
  expect(lines.length, `${stdout}\n${stderr}`).toBeGreaterThan(0)
  return new Map(
    lines.map((line) => {
      const { case: name, found } = JSON.parse(line)
      return [name, found]
    }),
  )
}

describe.concurrent('with nothing but the variables that docs/clients.md names', () => {
  it.for(clients)('$title', { timeout: 360_000 }, async (client, { expect, skip }) => {
    const command = await commandOf(client)
    if (command instanceof Missing) return skip(command.what)
    const [program = '', ...args] = command
    const ask = (handle: string, cases: readonly string[]) =>
      run(program, [...args, matrix.baseOf(client), ...cases], {
        env: environmentOf(client, proxyUrl(handle), matrix.caFile),
        timeoutMs: 40_000,
      })
    const ended = await ask(matrix.task.handle, [...client.works, 'refused'])
    const found = foundIn(ended)
    for (const one of client.works) expect.soft(found.get(one), ended.stderr).toEqual(expectedOf(client, one))
    expect.soft(JSON.stringify(found.get('refused'))).toMatch(client.shown)

    const turnedAway = await ask('kh_nobody', client.works.slice(0, 1))
    expect.soft(turnedAway.stdout + turnedAway.stderr).toMatch(client.unknown)

    expect(findCanary(JSON.stringify([ended, turnedAway]), matrix.canary)).toEqual([])
    const arrivals = matrix.upstream.arrivals.filter((arrival) => arrival.client === client.id)
    expect(arrivals.length).toBeGreaterThanOrEqual(client.works.length)
    expect(new Set(arrivals.map(({ credential }) => credential))).toEqual(new Set([matrix.canary]))
    expect(arrivals.filter(({ head }) => /placeholder/i.test(head))).toEqual([])
  })
})
