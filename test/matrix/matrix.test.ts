/** SECURITY.md 9: every client of docs/clients.md works unmodified, with the variables named there, and never holds a key. */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, type ExpectStatic, expect, it } from 'vitest'
import { findCanary } from '../rig/canary.ts'
import { type Ended, ROOT, run } from '../rig/process.ts'
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

function foundIn({ stdout, stderr }: Pick<Ended, 'stdout' | 'stderr'>): Map<string, unknown> {
  const lines = stdout.split('\n').filter((line) => line.startsWith('{"case":'))
  expect(lines.length, `${stdout}\n${stderr}`).toBeGreaterThan(0)
  return new Map(
    lines.map((line) => {
      const { case: name, found } = JSON.parse(line)
      return [name, found]
    }),
  )
}

/** What came upstream on one way of one client: our credential every time, and nothing that the client held. */
function arrivedOn(expect: ExpectStatic, way: string): number {
  const arrivals = matrix.upstream.arrivals.filter(({ client }) => client === way)
  expect(new Set(arrivals.map(({ credential }) => credential))).toEqual(new Set([matrix.canary]))
  expect(arrivals.filter(({ head }) => /placeholder/i.test(head))).toEqual([])
  return arrivals.length
}

const led = clients.filter(({ proxy }) => proxy.length > 0)

describe.concurrent('with nothing but the variables that docs/clients.md names', () => {
  it.for(led)('$title', { timeout: 360_000 }, async (client, { expect, skip }) => {
    const command = await commandOf(client)
    if (command instanceof Missing) return skip(command.what)
    const [program = '', ...args] = command
    const ask = (handle: string, cases: readonly string[]) =>
      run(program, [...args, matrix.baseOf(client, 'led'), ...cases], {
        env: environmentOf(client, proxyUrl(handle), matrix.caFile),
        timeoutMs: 40_000,
      })
    const ended = await ask(matrix.task.handle, [...client.works, 'refused'])
    const found = foundIn(ended)
    for (const one of client.works) expect.soft(found.get(one), ended.stderr).toEqual(expectedOf(client, one))
    expect.soft(JSON.stringify(found.get('refused'))).toMatch(client.shown)

    if (client.unknown !== undefined) {
      const turnedAway = await ask('kh_nobody', client.works.slice(0, 1))
      expect.soft(turnedAway.stdout + turnedAway.stderr).toMatch(client.unknown)
    }
    expect(findCanary(JSON.stringify(ended), matrix.canary)).toEqual([])
    expect(arrivedOn(expect, `${client.id}-led`)).toBeGreaterThanOrEqual(client.works.length)
  })
})

describe('under keyless run, told nothing', () => {
  /** id → what it said. Whoever is not led by variables does everything here, the others one thing. */
  let said: Map<string, Pick<Ended, 'stdout' | 'stderr'>>
  const missing = new Map<string, string>()
  const casesOf = ({ proxy, works }: MatrixClient) => (proxy.length > 0 ? works.slice(0, 1) : [...works, 'refused'])

  beforeAll(async () => {
    const jobs: { id: string; command: readonly string[] }[] = []
    for (const client of clients) {
      const command = await commandOf(client)
      if (command instanceof Missing) missing.set(client.id, command.what)
      else jobs.push({ id: client.id, command: [...command, matrix.baseOf(client, 'run'), ...casesOf(client)] })
    }
    const file = join(matrix.site.gateway.dir, 'jobs.json')
    await writeFile(file, JSON.stringify(jobs))
    const keyless = [
      join(ROOT, 'gateway', 'keyless.ts'),
      'run',
      '--config',
      join(matrix.site.gateway.dir, 'keyless.yaml'),
    ]
    const all = ['--task', 'be every client', '--', process.execPath, join(ROOT, 'test/matrix/programs/all.mjs'), file]
    const { stdout, stderr } = await run(process.execPath, [...keyless, ...all], { timeoutMs: 240_000 })
    const lines = stdout.split('\n').filter((line) => line !== '')
    expect(lines.length, stderr).toBe(jobs.length)
    said = new Map(
      lines.map((line) => {
        const { id, ...rest } = JSON.parse(line)
        return [id, rest]
      }),
    )
  }, 360_000)

  it.for(clients)('$title', (client, { expect, skip }) => {
    const why = missing.get(client.id)
    if (why !== undefined) return skip(why)
    const ended = said.get(client.id) ?? { stdout: '', stderr: 'it said nothing' }
    const found = foundIn(ended)
    for (const one of client.works.slice(0, client.proxy.length > 0 ? 1 : client.works.length))
      expect.soft(found.get(one), ended.stderr).toEqual(expectedOf(client, one))
    if (found.has('refused')) expect.soft(JSON.stringify(found.get('refused'))).toMatch(client.shown)
    expect(findCanary(JSON.stringify(ended), matrix.canary)).toEqual([])
    expect(arrivedOn(expect, `${client.id}-run`)).toBeGreaterThan(0)
  })
})
