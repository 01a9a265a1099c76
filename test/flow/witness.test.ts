/** A gateway whose log is witnessed: by `keyless witness`, by another gateway, by witnesses that are slow, lying or gone. */
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { loadLogKey } from '../../gateway/audit/key.ts'
import { openCheckpoint } from '../../gateway/audit/tree/checkpoint.ts'
import { leafHash, treeRoot } from '../../gateway/audit/tree/merkle.ts'
import { parseNote, parseVerifier } from '../../gateway/audit/tree/note.ts'
import { cosignedAt, formatWitnessKey, parseWitnessKey } from '../../gateway/audit/witness/cosignature.ts'
import { note, openTestLog } from '../audit/log.fixture.ts'
import { playedWitness } from '../audit/witness.fixture.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { freePort } from '../rig/ports.ts'
import { run } from '../rig/process.ts'
import { startWitness, type TestWitness } from '../rig/witness.ts'

const BARE = 'services: []\n'
const witnessedBy = (settings: Record<string, string>, rest = '') => {
  const lines = Object.entries(settings).map(([name, setting]) => `    ${name}: ${setting}\n`)
  return `${BARE}audit:\n  witness_every_s: 1\n${rest}  witnesses:\n${lines.join('')}`
}

let dir: string
let said: string
const open: TestGateway[] = []
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-witnessed-'))
  said = ''
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said += text
    return true
  })
})
afterEach(async () => {
  for (const gateway of open.splice(0)) await gateway.stop()
  vi.restoreAllMocks()
  await rm(dir, { recursive: true, force: true })
})

async function start(yaml: string, home = dir): Promise<TestGateway> {
  const gateway = await startGateway(yaml, { dir: home })
  open.push(gateway)
  return gateway
}

async function stop(gateway: TestGateway): Promise<void> {
  open.splice(open.indexOf(gateway), 1)
  await gateway.stop()
}

const grow = async ({ gateway }: TestGateway, count = 3) => {
  for (let policies = 0; policies < count; policies++)
    await gateway.house.audit.record('policy.loaded', 'default', { policy_set: '', policies, files: [], services: [] })
}
const views = ({ gateway }: TestGateway) => gateway.house.witnesses.views
const control = ({ gateway }: TestGateway, path: string, init?: RequestInit) => fetch(gateway.control + path, init)
const auditOf = (home: string) => join(home, 'data/audit')
const logKey = (home: string) => join(auditOf(home), 'log.pub')
/** Of a log in the settings of which none is named. */
const ORIGIN = 'keyless.local/default'

describe('with a witness', () => {
  let witness: TestWitness
  let data: string
  let home: string
  /** A copy of the gateway's directory when the witness had seen it for the first time. */
  let copy: string
  beforeAll(async () => {
    data = await mkdtemp(join(tmpdir(), 'keyless-witness-'))
    home = join(data, 'gw')
    copy = join(data, 'copy')
    await loadLogKey(auditOf(home), ORIGIN)
    witness = await startWitness(join(data, 'w'), [logKey(home)])
    const gateway = await startGateway(witnessedBy({ sec: witness.setting }), { dir: home })
    await gateway.stop()
    await cp(home, copy, { recursive: true })
  })
  afterAll(async () => {
    await witness.process.stop()
    await rm(data, { recursive: true, force: true })
  })

  it('serves a checkpoint that is cosigned, hashes that lead to its root, and entries to no stranger', async () => {
    const gateway = await start(witnessedBy({ sec: witness.setting }), home)
    await grow(gateway)
    await expect.poll(() => views(gateway)[0]?.size).toBe(gateway.gateway.house.audit.size)
    const answer = await control(gateway, '/log/checkpoint')
    expect(answer.headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(answer.headers.get('cache-control')).toBe('no-cache')
    const shown = Buffer.from(await answer.arrayBuffer())
    const { size, root } = openCheckpoint(shown, parseVerifier((await readFile(logKey(home), 'utf8')).trim()))
    const { text, signatures } = parseNote(shown)
    expect(cosignedAt(text, signatures, parseWitnessKey(witness.key))).toBeDefined()

    const tile = await control(gateway, `/log/tile/0/000.p/${size}`)
    expect(tile.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
    const hashes = Buffer.from(await tile.arrayBuffer())
    const leaves = Array.from({ length: size }, (_, i) => hashes.subarray(i * 32, i * 32 + 32))
    expect(treeRoot(leaves).equals(root)).toBe(true)
    const lines = (await readFile(join(auditOf(home), 'entries.jsonl'), 'utf8')).split('\n')
    expect(leaves[0]?.equals(leafHash(Buffer.from(lines[0] ?? '')))).toBe(true)

    // By whatever name: a load balancer's, or a replica's own.
    const named = ['-sS', '-H', 'host: pod-7.gateways', `${gateway.gateway.control}/log/checkpoint`]
    expect((await run('curl', named)).stdout).toBe(shown.toString())
    for (const path of [
      `tile/0/000.p/${size + 50}`,
      'tile/0/000',
      'tile/0/0',
      'tile/9/000',
      'tile/',
      '../keys/log.key',
    ])
      expect((await control(gateway, `/log/${path}`)).status, path).toBe(404)
    expect((await control(gateway, `/log/tile/entries/000.p/${size}`)).status).toBeGreaterThanOrEqual(401)
    // Its last entry is witnessed before it is gone.
    await grow(gateway)
    await stop(gateway)
    const files = ['checkpoint.witnessed', 'checkpoint'].map((name) => readFile(join(auditOf(home), name)))
    const [kept, signed] = (await Promise.all(files)).map((file) => parseNote(file).text)
    expect(kept).toBe(signed)
  })

  it('does not start with a log whose end is missing: truncation', async () => {
    const old = join(data, 'truncated')
    await cp(copy, old, { recursive: true })
    await expect(startGateway(witnessedBy({ sec: witness.setting }), { dir: old })).rejects.toThrow(
      /TRUNCATION: witness sec has cosigned \d+ entries of keyless.local\/default, and this log has only \d+: its end is missing/,
    )
  })

  it('does not start with an empty log under the old key either, nor, without any witness, with less than was cosigned', async () => {
    const [empty, kept] = [join(data, 'empty'), join(data, 'kept')]
    await mkdir(auditOf(empty), { recursive: true })
    for (const file of ['log.key', 'log.pub']) await cp(join(auditOf(home), file), join(auditOf(empty), file))
    await expect(startGateway(witnessedBy({ sec: witness.setting }), { dir: empty })).rejects.toThrow(
      /TRUNCATION: .* this log has only 0/,
    )
    await cp(copy, kept, { recursive: true })
    await cp(join(auditOf(home), 'checkpoint.witnessed'), join(auditOf(kept), 'checkpoint.witnessed'))
    await expect(startGateway(BARE, { dir: kept })).rejects.toThrow('TRUNCATION: the last cosigned checkpoint')
  })

  it('does not start with a log that was put back and went on: rollback', async () => {
    const old = join(data, 'rolled')
    await cp(copy, old, { recursive: true })
    const unwatched = await openTestLog(auditOf(old), { origin: ORIGIN })
    for (let n = 0; n < 60; n++) await unwatched.append(note({ n }))
    await unwatched.close()
    await expect(startGateway(witnessedBy({ sec: witness.setting }), { dir: old })).rejects.toThrow(
      /ROLLBACK: witness sec has cosigned \d+ entries .* put back to an earlier state .* does not start. Stop whatever/s,
    )
    await witness.process.says(/ROLLBACK: the log keyless.local\/default shows/)
  })

  it('says once and records when a second holder of its key signs another history: fork', async () => {
    const gateway = await start(witnessedBy({ sec: witness.setting }), home)
    const twin = join(data, 'twin')
    await expect.poll(() => views(gateway)[0]?.size).toBe(gateway.gateway.house.audit.size)
    await cp(home, twin, { recursive: true, filter: (path) => !/\.(?:sock|new)$/.test(path) })
    const other = await start(witnessedBy({ sec: witness.setting }), twin)
    await grow(other, 2)
    await expect.poll(() => views(other)[0]?.size).toBe(other.gateway.house.audit.size)
    await grow(gateway, 9)
    await expect.poll(() => views(gateway)[0]?.state).toBe('conflict')
    expect(views(gateway)[0]?.trouble).toContain('fork: witness sec has cosigned')
    expect(said).toContain('FORK: witness sec has cosigned')
    await expect
      .poll(async () => (await entriesIn(home)).find(({ kind }) => kind === 'log.witness_conflict')?.facts)
      .toMatchObject({ witness: 'sec', divergence: 'fork' })
    // Calls go on, in both; it is not said again.
    await grow(gateway)
    await grow(other)
    const { size } = gateway.gateway.house.audit
    await expect.poll(() => views(gateway)[0]?.trouble).toContain(`the first of these ${size}:`)
    await stop(other)
    await stop(gateway)
    expect((await entriesIn(home)).filter(({ kind }) => kind === 'log.witness_conflict')).toHaveLength(1)
  })
})

async function entriesIn(home: string): Promise<{ kind: string; facts: Record<string, unknown> }[]> {
  const lines = (await readFile(join(auditOf(home), 'entries.jsonl'), 'utf8')).split('\n').filter(Boolean)
  return lines.map((line) => JSON.parse(line))
}

describe('without a good witness', () => {
  const servers: Server[] = []
  afterEach(async () => {
    for (const server of servers.splice(0)) {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    }
  })

  async function played(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
    const server = createServer(answer)
    servers.push(server)
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    const key = formatWitnessKey(playedWitness([]).verifier)
    return `{ url: "http://127.0.0.1:${(server.address() as AddressInfo).port}", key: "${key}", addresses: ["127.0.0.1/32"] }`
  }
  const says = (status: number, body: string, type = 'text/plain') =>
    played((request, response) =>
      request.resume().on('end', () => response.writeHead(status, { 'content-type': type }).end(body)),
    )

  it('starts with a warning, says why each is of no use, and neither calls nor the end wait for them', async () => {
    const line = `— witness.test/w1 ${Buffer.alloc(76).toString('base64')}\n`
    const silent = await played(() => undefined)
    const began = performance.now()
    const gateway = await start(
      witnessedBy({
        silent,
        gone: (await says(200, '')).replace(/127.0.0.1:\d+/, `127.0.0.1:${await freePort()}`),
        inward: (await says(200, '')).replace('127.0.0.1/32', '10.0.0.0/8'),
        strange: await says(200, line),
        noise: await says(200, 'x'.repeat(1000)),
        flood: await says(200, 'y'.repeat(600_000)),
        unknown: await says(404, ''),
        refusing: await says(403, ''),
        broken: await says(500, ''),
        odd: await says(409, '1x\n', 'text/x.tlog.size'),
      }),
    )
    expect(performance.now() - began).toBeLessThan(6_000)
    const troubles = views(gateway).map(({ name, state, trouble }) => [name, `${state}: ${trouble}`])
    expect(Object.fromEntries(troubles)).toMatchObject({
      silent: 'useless: it does not answer in time',
      gone: expect.stringContaining('ECONNREFUSED'),
      inward: expect.stringContaining('loopback address'),
      strange: 'useless: it answers without a cosignature of its key in the settings',
      noise: expect.stringContaining('no cosignature'),
      flood: expect.stringContaining('useless: '),
      unknown: expect.stringContaining("give it this log's log.pub"),
      refusing: expect.stringContaining('knows another key'),
      broken: 'useless: it answers HTTP 500',
      odd: expect.stringContaining('useless: '),
    })
    expect(said).toContain('witness gone')
    const before = performance.now()
    await grow(gateway, 20)
    expect(performance.now() - before).toBeLessThan(5_000)
    expect((await control(gateway, '/log/checkpoint')).status).toBe(200)
    await stop(gateway)
    expect(performance.now() - began).toBeLessThan(12_000)
  })
})

it('two gateways witness each other, and each tells of a past that the other has lost', async () => {
  const homes = [join(dir, 'a'), join(dir, 'b')] as const
  const named = (name: string) => `  origin: ${name}.acme.test/log\n`
  for (const [i, home] of homes.entries()) {
    await loadLogKey(auditOf(home), `gw-${i}.acme.test/log`)
  }
  const [keyA, keyB] = await Promise.all(homes.map(async (home) => (await readFile(logKey(home), 'utf8')).trim()))
  const b = await start(`${BARE}audit:\n${named('gw-1')}  witness_for: ["${keyA}"]\n`, homes[1])
  const { audit } = await b.control.status()
  const seat = `{ url: "${b.gateway.control}/witness", key: "${audit.witness_key}", addresses: ["127.0.0.1/32"] }`
  const rest = `${named('gw-0')}  witness_for: ["${keyB}"]\n`
  const a = await start(witnessedBy({ b: seat }, rest), homes[0])
  await grow(a)
  await expect.poll(() => views(a)[0]).toMatchObject({ state: 'cosigning', size: a.gateway.house.audit.size })
  await stop(b)
  const back = `{ url: "${a.gateway.control}/witness", key: "${(await a.control.status()).audit.witness_key}", addresses: ["127.0.0.1/32"] }`
  await cp(homes[1], join(dir, 'b-before'), { recursive: true })
  const again = await start(witnessedBy({ a: back }, `${named('gw-1')}  witness_for: ["${keyA}"]\n`), homes[1])
  expect(views(again)[0]).toMatchObject({ name: 'a', state: 'cosigning' })
  await stop(again)
  await expect(
    startGateway(witnessedBy({ a: back }, `${named('gw-1')}`), { dir: join(dir, 'b-before') }),
  ).rejects.toThrow('TRUNCATION: witness a has cosigned')
})

it('refuses to witness a log that has the name of its own', async () => {
  await loadLogKey(auditOf(dir), ORIGIN)
  const key = (await readFile(logKey(dir), 'utf8')).trim()
  await expect(startGateway(`${BARE}audit: { witness_for: ["${key}"] }\n`, { dir })).rejects.toThrow(
    'Give every replica an audit.origin of its own',
  )
})
