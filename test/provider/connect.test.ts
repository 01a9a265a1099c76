import { createSecretKey, randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { Connect } from '../../gateway/provider/connection/connect.ts'
import { connectingRows } from '../../gateway/provider/connection/connecting.ts'
import { connectionRows } from '../../gateway/provider/connection/connection.ts'
import type { ConnectionServer } from '../../gateway/provider/connection/server.ts'
import { createSealed } from '../../gateway/provider/sealed/sealed.ts'
import { openSqliteSealed } from '../../gateway/provider/sealed/sqlite.ts'
import { manualClock } from '../rig/clock.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-connect-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

type Poll = Awaited<ReturnType<ConnectionServer['pollDevice']>> | GatewayError

/** A server whose device endpoint answers these, one after the other. */
function scene(tenant: string, ...polls: Poll[]) {
  const clock = manualClock()
  const key = createSecretKey(randomBytes(32))
  const keys = { current: async () => ({ id: 0, key }), find: async () => key }
  const path = join(dir, `${randomUUID()}.sqlite`)
  const recorded: string[] = []
  const revoked: string[] = []
  const open = (of: string) => {
    const sealed = createSealed({ rows: openSqliteSealed({ path, clock }), keys, tenant: of })
    const server: Partial<ConnectionServer> = {
      host: 'id.acme.test',
      issuedTo: 'server and client',
      startDevice: async () => ({
        deviceCode: new Secret('device'),
        userCode: 'ABCD-EFGH',
        verificationUri: 'https://id.acme.test/device',
        verificationUriComplete: undefined,
        expiresInS: 600,
        intervalS: 5,
      }),
      async pollDevice() {
        const next = polls.shift()
        if (next === undefined) throw new Error('asked too often')
        if (next instanceof GatewayError) throw next
        return next
      },
      authorizationUrl: async ({ state }) => `https://id.acme.test/?state=${state}`,
      revoke: async (token) => revoked.push(token.reveal()) > 0,
    }
    const connections = connectionRows(sealed)
    const connect = new Connect({
      connecting: connectingRows(sealed, () => clock.nowMs()),
      connections,
      connectable: () => ({ server: server as ConnectionServer, scope: 'mail:read', per: 'human' }),
      clock,
      base: 'https://keyless.test/connect',
      record: async (kind) => recorded.push(kind),
    })
    return { connect, connections }
  }
  return { clock, recorded, revoked, open, ...open(tenant) }
}

const ana = { credential: 'mail', human: { iss: 'https://id.acme.test', sub: 'ana' } }
const tokens = (changes: object = {}) => ({
  accessToken: new Secret('A'),
  expiresAt: 2_000_000_000,
  refreshToken: new Secret('R'),
  scope: undefined,
  refusal: undefined,
  ...changes,
})

it('asks after a device code at the pace of its server, slower when told to, also when it is silent, until it is typed', async () => {
  const silent = new GatewayError('credential_unavailable', 'down')
  const { clock, connect, connections, recorded } = scene('acme', 'pending', 'slow_down', silent, tokens())
  const { ticket } = await connect.beginDevice(ana)
  expect(await connect.progress(ticket)).toEqual({ state: 'pending', intervalS: 5 }) // nobody was asked
  for (const [passedMs, intervalS] of [
    [5_000, 5],
    [5_000, 10],
    [10_000, 15],
  ] as const) {
    clock.advance(passedMs)
    expect(await connect.progress(ticket)).toEqual({ state: 'pending', intervalS })
    expect(await connect.progress(ticket)).toEqual({ state: 'pending', intervalS })
  }
  clock.advance(15_000)
  expect(await connect.progress(ticket)).toEqual({ state: 'done' })
  expect((await connections.read(ana))?.connection).toMatchObject({ state: 'connected', scope: 'mail:read' })
  expect(recorded).toEqual(['admin.connected'])
  expect(await connect.progress(ticket)).toEqual({ state: 'done' }) // and nobody is asked again
})

it.each([
  ['no refresh token', tokens({ refreshToken: undefined }), /no refresh token/, ['A']],
  ['more scope than was asked for', tokens({ scope: 'mail:read admin' }), /admin/, ['R']],
])('makes no connection of an answer with %s, and gives it back', async (_what, answer, words, given) => {
  const { clock, connect, connections, recorded, revoked } = scene('acme', answer)
  const { ticket } = await connect.beginDevice(ana)
  clock.advance(5_000)
  expect(await connect.progress(ticket)).toMatchObject({ state: 'failed', why: expect.stringMatching(words) })
  expect(await connections.read(ana)).toBeUndefined()
  expect([recorded, revoked]).toEqual([[], given])
})

it('lets a link end after ten minutes, and sweeps it away', async () => {
  const { clock, connect } = scene('acme')
  const { ticket } = await connect.begin(ana)
  expect((await connect.offer(ticket)).connector).toEqual(ana)
  clock.advance(600_000)
  await expect(connect.offer(ticket)).rejects.toMatchObject({ code: 'instruction_invalid' })
  await connect.begin(ana)
  await expect(connect.progress(ticket)).rejects.toMatchObject({ code: 'instruction_invalid' })
})

it('shows nothing of one tenant to another that shares its store and keys', async () => {
  const { clock, connect, open } = scene('acme', tokens())
  const { ticket } = await connect.beginDevice(ana)
  clock.advance(5_000)
  await connect.progress(ticket)
  const other = open('other')
  await expect(other.connect.progress(ticket)).rejects.toMatchObject({ code: 'instruction_invalid' })
  expect(await other.connections.read(ana)).toBeUndefined()
  expect(await other.connections.list()).toEqual([])
})

it('takes a state with other characters than its own for that of a stranger', async () => {
  const { connect } = scene('acme')
  const { ticket } = await connect.begin(ana)
  const state = new URL(await connect.leave(ticket, 'browser')).searchParams.get('state') ?? ''
  for (const odd of [`${state.slice(0, -1)}ä`, `${state.slice(0, -1)}\u{20ac}`, state.slice(0, -1), ''])
    await expect(connect.callback(new URLSearchParams({ state: odd }), 'browser')).rejects.toMatchObject({
      code: 'instruction_invalid',
    })
})
