/** Who may read the records, and that every reading over TCP is recorded before it is answered. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { parseEntry } from '../../gateway/audit/entries/entry.ts'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { ROOT, run } from '../rig/process.ts'
import { ask } from './door.fixture.ts'

const token = randomBytes(24).toString('base64url')
let dir: string
let test: TestGateway
let port: number

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-readers-'))
  await writeFile(join(dir, 'token'), `${token}\n`)
  test = await startGateway(`services: [github]\naudit:\n  readers:\n    siem: { token: { file: ${dir}/token } }\n`)
  port = Number(new URL(test.gateway.control).port)
  await vi.waitFor(async () => expect((await local('/records')).status).toBe(200), 10_000)
}, 30_000)
afterAll(async () => {
  await test.stop()
  await rm(dir, { recursive: true, force: true })
})

const local = (path: string) => ask({ socketPath: test.settings.listen.controlSocket }, { path })
const remote = (path: string, authorization?: string) =>
  ask({ port }, { path, headers: authorization === undefined ? {} : { authorization } })
const asReader = (path: string) => remote(path, `Bearer ${token}`)

interface Listed {
  readonly records: { seq: number; kind: string; detail?: { facts: Record<string, unknown> } }[]
  readonly next?: string
}
const listed = (answer: { json: Record<string, unknown> }) => answer.json as unknown as Listed

/** The index follows the log within a moment. */
async function readings(): Promise<NonNullable<Listed['records'][number]['detail']>['facts'][]> {
  const { records } = listed(await local('/records?kind=admin.records_read&order=oldest'))
  return records.map(({ detail }) => detail?.facts ?? {})
}

describe('the records at the control door', () => {
  it('are shown over TCP to nobody but readers, whatever else is sent', async () => {
    const wrong = [
      undefined,
      '',
      'Bearer',
      `Bearer ${token}x`,
      `Bearer ${token.slice(1)}`,
      `Basic ${token}`,
      `Bearer ${token} ${token}`,
    ]
    for (const field of wrong) {
      const answer = await remote('/records', field)
      expect([answer.status, answer.json.code], field).toEqual([401, 'client_invalid'])
      expect(answer.headers['content-type']).toContain('application/problem+json')
      expect(answer.text).not.toContain(token)
    }
    expect((await remote('/records/0')).status).toBe(401)
    expect((await remote('/log/tile/entries/000')).status).toBe(401)
  })

  it('are shown to a reader, who is in the log with what was asked before the answer is there', async () => {
    const answer = await asReader('/records?kind=log.opened')
    expect(listed(answer).records.map(({ kind }) => kind)).toEqual(['log.opened'])
    expect(answer.headers['cache-control']).toBe('no-store')
    await vi.waitFor(async () => expect(await readings()).toHaveLength(1), 5_000)
    expect(await readings()).toEqual([
      {
        reader: 'siem',
        address: '127.0.0.1',
        filter: { kind: 'log.opened' },
        found: 1,
        log: test.settings.audit.origin,
      },
    ])
    await local('/records')
    expect(await readings()).toHaveLength(1)
  })

  it('say of each what the log has, with a proof', async () => {
    const { json } = await local('/records/0?prove=true')
    const { entries, proofs } = json as { entries: { kind: string }[]; proofs: string[] }
    expect(entries.map(({ kind }) => kind)).toEqual(['log.opened'])
    const extra = /^extra (.+)$/m.exec(proofs[0] ?? '')?.[1] ?? ''
    expect(parseEntry(Buffer.from(extra, 'base64'))).toEqual(entries[0])
    expect((await local('/records/999999')).status).toBe(404)
  })

  it('come page by page', async () => {
    const seen: number[] = []
    for (let path = '/records?limit=1&until=2200-01-01'; path !== ''; ) {
      const page = listed(await local(path))
      seen.push(...page.records.map(({ seq }) => seq))
      path = page.next === undefined ? '' : `/records?limit=1&after=${page.next}`
    }
    expect(seen).toEqual([...seen].sort((a, b) => b - a))
    expect(new Set(seen).size).toBe(seen.length)
    expect(seen.at(-1)).toBe(0)
  })

  it.each([
    'limit=0',
    'limit=501',
    'limit=x',
    'limit=5&limit=6',
    'status=4',
    'since=yesterday',
    'after=x',
    'effect=maybe',
    'text=!!',
    'nothing=1',
    'human=',
    `human=${'a'.repeat(1025)}`,
  ])('refuse %.20s, and say what is allowed', async (query) => {
    const answer = await local(`/records?${query}`)
    expect([answer.status, answer.json.code]).toEqual([400, 'instruction_invalid'])
    expect(answer.json.detail).toMatch(/allowed|known/)
  })

  it('take what is meant for a database for what it is: text', async () => {
    for (const value of [
      "' OR 1=1 --",
      '" OR "',
      'a* OR b',
      '{"$gt":""}',
      '%',
      '\u0000',
      '): DROP TABLE records; --',
    ]) {
      for (const name of ['human', 'host', 'credential', 'log'])
        expect(
          listed(await local(`/records?${name}=${encodeURIComponent(value)}`)).records,
          `${name} ${value}`,
        ).toEqual([])
    }
    expect(listed(await local('/records?text=opened%20OR%20nothing')).records).toEqual([])
    expect(listed(await local('/records?kind=log.*')).records.length).toBeGreaterThan(0)
  })

  it('say in the status how far behind they are', async () => {
    await vi.waitFor(async () => {
      const { audit } = (await local('/status')).json as { audit: { index?: object } }
      expect(audit.index).toEqual({ lag_entries: 0, lag_seconds: 0 })
    }, 5_000)
  })

  it('are described where all routes are', async () => {
    const { json } = await remote('/openapi.json')
    const { paths } = json as { paths: Record<string, { get: { parameters: { name: string }[] } }> }
    expect(paths['/records']?.get.parameters.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['human', 'ancestor', 'after', 'since']),
    )
  })
})

describe('keyless log find', () => {
  const find = (...args: string[]) =>
    run(process.execPath, ['gateway/keyless.ts', 'log', 'find', '--data', test.settings.dataDir, ...args], {
      cwd: ROOT,
    })

  it('finds the same beside a running gateway', async () => {
    const { stdout, code } = await find('--kind', 'log.opened', '--json')
    expect([code, JSON.parse(stdout)]).toEqual([0, expect.objectContaining({ seq: 0, kind: 'log.opened' })])
    expect((await find('--kind', 'log.opened', '--count')).stdout).toBe('1\n')
  })

  it('says what is wrong with a question in one line', async () => {
    const { stderr, code } = await find('--status', 'teapot')
    expect([code, stderr.split('\n').length]).toEqual([1, 2])
    expect(stderr).toContain('allowed is a status such as 404')
  })
})

it('records a reader who hangs up before the answer, and where it came from', async () => {
  const before = (await readings()).length
  for (let i = 0; i < 10; i++) {
    const socket = connect(port, '127.0.0.1')
    socket.end(
      `GET /records?limit=500 HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${token}\r\n\r\n`,
      () => socket.destroy(),
    )
    await once(socket, 'close')
  }
  await vi.waitFor(async () => expect((await readings()).length).toBeGreaterThan(before + 4), 5_000)
  for (const { address } of await readings()) expect(address).toMatch(/^(127\.0\.0\.1|unknown)$/)
})

it('leaves a sound log', async () => {
  expect((await verifyLog(join(test.settings.dataDir, 'audit'))).faults).toEqual([])
})
