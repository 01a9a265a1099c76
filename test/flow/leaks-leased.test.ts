/**
 * What the gateway lent is recognised wherever it turns up, by a hash that only the gateway can make: GitHub may report it, a scan finds it.
 * Requirements 99, 103, 104, 128.
 */
import { createSign, generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { findingsIn } from '../../gateway/cli/scan/finder.ts'
import { knownHere } from '../../gateway/cli/scan/known.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'

const KEY = 'an-opaque-standing-key-0123456789'
const ID = 'ab'.repeat(32)
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
let upstream: WebSocketUpstream
let site: OpenSite
let door: string
let dir: string

beforeAll(async () => {
  upstream = await startWebSockets(['notes.keyless.test'], (_request, response) => void response.end('{}'))
  dir = await mkdtemp(join(tmpdir(), 'keyless-leaks-'))
  const pem = join(dir, 'github.pem')
  await writeFile(pem, publicKey.export({ type: 'spki', format: 'pem' }))
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [{ name: 'notes', operations: { read: { match: ['GET /plain/{n}'], access: 'read' } } }],
      credentials: { notes: KEY },
      settings: { leaks: { github: { keys: { [ID]: pem } }, standing_keys: 'block', ends: 'task' } },
    },
  )
  door = `http://127.0.0.1:${new URL((await site.gateway.control.status()).control).port}`
})

afterAll(async () => {
  await site.stop()
  await upstream.stop()
  await rm(dir, { recursive: true, force: true })
})

async function call(handle: string) {
  const answer = await fetch(`http://127.0.0.1:${site.gateway.proxyPort}/notes/plain/1`, {
    headers: { authorization: `Bearer ${handle}` },
  })
  await answer.arrayBuffer()
  return answer.headers.get('keyless-error') ?? String(answer.status)
}

async function fromGithub(reports: unknown, by = privateKey) {
  const body = JSON.stringify(reports)
  const answer = await fetch(`${door}/leaks`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'github-public-key-identifier': ID,
      'github-public-key-signature': createSign('sha256').update(body).sign(by).toString('base64'),
    },
    body,
  })
  return { status: answer.status, body: (await answer.json()) as { label: string }[] }
}

it('takes what GitHub signs, ends the task of a handle, and answers as GitHub takes feedback', async () => {
  const { handle = '' } = await site.gateway.control.openTask({ scope: 'notes:*', purpose: 'test' })
  expect(await call(handle)).toBe('200')
  const told = [
    { token: handle, type: 'keyless_handle', url: 'https://github.test/a/b/blob/c/d', source: 'commit' },
    { token: 'nothing-of-ours', type: 'keyless_handle', url: '', source: 'content' },
  ]
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  expect((await fromGithub(told, stranger)).status).toBe(401)
  expect(await call(handle)).toBe('200')
  const { status, body } = await fromGithub(told)
  expect(status).toBe(200)
  expect(body).toEqual([
    { token_hash: expect.stringMatching(/^[0-9a-f]{64}$/), token_type: 'keyless_handle', label: 'true_positive' },
    { token_hash: expect.stringMatching(/^[0-9a-f]{64}$/), token_type: 'keyless_handle', label: 'false_positive' },
  ])
  expect(await call(handle)).toBe('grant_revoked')
  expect((await fromGithub(told)).body[0]?.label, 'a message that is repeated').toBe('true_positive')
})

it('recognises an opaque key that it lent, in a scan and in a report, and closes it where settings say so', async () => {
  const { handle = '' } = await site.gateway.control.openTask({ scope: 'notes:*', purpose: 'test' })
  expect(await call(handle)).toBe('200')
  const scanned = async () => {
    const known = await knownHere({ config: join(site.gateway.dir, 'keyless.yaml') })
    const found = []
    for await (const one of findingsIn('-', [Buffer.from(`x: "${KEY}"`)], { secrets: () => [], ...known }))
      found.push(one)
    return found
  }
  await expect.poll(scanned).toMatchObject([{ rule: 'leased', name: 'notes' }]) // the index follows the log
  expect(await site.gateway.control.reportLeaks({ leaks: [{ token: KEY }] })).toMatchObject([
    { kind: 'credential', outcome: 'blocked' },
  ])
  expect(await call(handle)).toBe('access_blocked')
  const entries = await entriesOf(site.gateway.settings.dataDir)
  expect(
    entries.find(({ kind, facts }) => kind === 'leak.reported' && facts?.what === 'credential')?.facts,
  ).toMatchObject({
    from: 'socket',
    credential: 'notes',
    ephemeral: false,
    action: 'block',
  })
  expect(JSON.stringify(entries)).not.toContain(KEY)
})
