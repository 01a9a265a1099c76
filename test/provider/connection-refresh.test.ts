import { createSecretKey, randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { type Connection, type ConnectionRows, connectionRows } from '../../gateway/provider/connection/connection.ts'
import { type Refresh, Refreshes } from '../../gateway/provider/connection/refresh.ts'
import { createSealed } from '../../gateway/provider/sealed/sealed.ts'
import { openSqliteSealed } from '../../gateway/provider/sealed/sqlite.ts'
import { manualClock } from '../rig/clock.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-refresh-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const ana = { credential: 'mail', human: { iss: 'https://id.acme.test', sub: 'ana' } }
const SERVER = 'server and client'
const CLAIM_MS = 30_000

/** A server that rotates strictly: an old token that is shown again ends the family (RFC 9700 §4.14.2). */
function strictServer(o: { grace?: boolean; rotates?: boolean } = {}) {
  const { grace = false, rotates = true } = o
  const server = {
    current: 'R0',
    alive: true,
    shown: [] as string[],
    before: undefined as string | undefined,
    refresh: (async (token) => {
      const text = token.reveal()
      server.shown.push(text)
      await new Promise(setImmediate)
      const isGraced = grace && text === server.before
      if (!server.alive || (text !== server.current && !isGraced)) {
        server.alive = false
        return 'invalid_grant'
      }
      if (rotates) {
        if (!isGraced) server.before = text
        server.current = `R${server.shown.length}-${randomUUID()}`
      }
      return answerWith(rotates ? server.current : undefined)
    }) as Refresh,
  }
  return server
}

const answerWith = (refreshToken: string | undefined) => ({
  accessToken: new Secret(`A-${randomUUID()}`),
  expiresAt: 2_000_000_000,
  refreshToken: refreshToken === undefined ? undefined : new Secret(refreshToken),
  scope: undefined,
  refusal: undefined,
})

interface Replica {
  readonly refreshes: Refreshes
  readonly lost: Connection[]
}

/** One store, on which any number of replicas work; `rows` can be spoilt for one of them. */
async function scene() {
  const clock = manualClock()
  const path = join(dir, `${randomUUID()}.sqlite`)
  const key = createSecretKey(randomBytes(32))
  const keys = { current: async () => ({ id: 0, key }), find: async () => key }
  const open = () => connectionRows(createSealed({ rows: openSqliteSealed({ path, clock }), keys, tenant: 'acme' }))
  const rows = open()
  const connect = (changes: Partial<Connection> = {}) =>
    rows.write(
      { ...ana, refreshToken: new Secret('R0'), issuedTo: SERVER, connectedAt: 1, state: 'connected', ...changes },
      0,
    )
  await connect()
  const replica = (spoilt: Partial<ConnectionRows> = {}): Replica => {
    const lost: Connection[] = []
    return {
      lost,
      refreshes: new Refreshes({ rows: { ...open(), ...spoilt }, clock, lost: async (one) => void lost.push(one) }),
    }
  }
  const kept = async () => (await rows.read(ana))?.connection
  return { clock, rows, replica, kept, connect }
}

const run = ({ refreshes }: Replica, refresh: Refresh, signal = new AbortController().signal) =>
  refreshes.run(ana, SERVER, refresh, signal)
const never = () => new Promise<never>(() => undefined)

describe('a refresh token', () => {
  it('is replaced before anybody has what came with it, and the one before is kept until the new one has proved itself', async () => {
    const { replica, kept } = await scene()
    const server = strictServer()
    const one = replica()
    for (let i = 0; i < 3; i++) {
      await run(one, server.refresh)
      const stored = await kept()
      expect(stored?.refreshToken.reveal()).toBe(server.current)
      expect(stored?.previous?.reveal()).toBe(server.shown.at(-1))
    }
    expect(new Set(server.shown).size).toBe(3)
  })

  it('stays the same where the server does not rotate', async () => {
    const { replica, kept } = await scene()
    const server = strictServer({ rotates: false })
    const one = replica()
    for (let i = 0; i < 3; i++) await run(one, server.refresh)
    expect(server.shown).toEqual(['R0', 'R0', 'R0'])
    expect((await kept())?.refreshToken.reveal()).toBe('R0')
    expect((await kept())?.previous).toBeUndefined()
  })

  it('is never shown twice by two replicas with twenty calls at once each', async () => {
    const { replica } = await scene()
    const server = strictServer()
    const [one, two] = [replica(), replica()]
    const calls = Array.from({ length: 40 }, (_, i) => run(i % 2 ? one : two, server.refresh))
    const tokens = (await Promise.all(calls)).map(({ accessToken }) => accessToken.reveal())
    expect(new Set(tokens).size).toBe(40)
    expect(server.alive).toBe(true)
    expect(new Set(server.shown).size).toBe(40)
  })

  it('is sent to no other server or client than it came from', async () => {
    const { replica } = await scene()
    const server = strictServer()
    const one = replica()
    const { signal } = new AbortController()
    await expect(one.refreshes.run(ana, 'another server', server.refresh, signal)).rejects.toMatchObject({
      code: 'reauthorize',
    })
    const bob = { ...ana, human: { ...ana.human, sub: 'bob' } }
    const anaElsewhere = { ...ana, human: { ...ana.human, iss: 'https://evil.test' } }
    for (const stranger of [bob, anaElsewhere, { ...ana, human: undefined }, { ...ana, credential: 'mail2' }])
      await expect(one.refreshes.run(stranger, SERVER, server.refresh, signal)).rejects.toMatchObject({
        code: 'reauthorize',
      })
    expect(server.shown).toEqual([])
    await run(one, server.refresh) // and the connection is as it was
  })
})

describe('a process that dies', () => {
  it('after it claimed the connection leaves the token as it was, for the next one', async () => {
    const { clock, rows, replica } = await scene()
    const server = strictServer()
    await rows.claim(ana, CLAIM_MS) // it dies here
    const waiting = run(replica(), server.refresh)
    await new Promise((done) => setTimeout(done, 60))
    expect(server.shown).toEqual([]) // it may be alive still
    clock.advance(CLAIM_MS)
    await waiting
    expect(server.alive).toBe(true)
  })

  it.each([
    ['with a time of grace gives another token', true],
    ['without one says so, and the human is asked', false],
  ])('after the server answered and before that was stored: a server %s', async (_what, grace) => {
    const { clock, replica, kept } = await scene()
    const server = strictServer({ grace })
    void run(replica({ write: never }), server.refresh) // the answer is there, and it dies
    await expect.poll(() => server.shown.length).toBe(1)
    clock.advance(CLAIM_MS)
    const next = replica()
    if (grace) {
      await run(next, server.refresh)
      expect((await kept())?.refreshToken.reveal()).toBe(server.current)
      expect(server.alive).toBe(true)
    } else {
      await expect(run(next, server.refresh)).rejects.toMatchObject({ code: 'reauthorize' })
      expect(next.lost).toHaveLength(1)
      expect(await kept()).toMatchObject({ state: 'reauthorize' })
    }
  })

  it('after that was stored leaves a connection that goes on', async () => {
    const { replica } = await scene()
    const server = strictServer()
    await run(replica(), server.refresh) // and nobody uses the access token
    await run(replica(), server.refresh)
    expect(server.alive).toBe(true)
  })

  it('and was only slow finds its late answer kept, unless somebody has a newer one', async () => {
    const { clock, rows, replica, kept } = await scene()
    const server = strictServer()
    const held = Promise.withResolvers<void>()
    const slow = run(replica(), async (...asked) => {
      const answer = await server.refresh(...asked)
      await held.promise
      return answer
    })
    await expect.poll(() => server.shown.length).toBe(1)
    clock.advance(CLAIM_MS)
    expect(await rows.claim(ana, CLAIM_MS)).toMatchObject({ version: expect.any(Number) }) // another has it, with the old token
    held.resolve()
    await slow
    expect((await kept())?.refreshToken.reveal()).toBe(server.current)
  })
})

describe('a failing server', () => {
  const failing = (refresh: Refresh, times: number): Refresh => {
    let left = times
    return async (...asked) => {
      const answer = await refresh(...asked)
      if (left-- > 0) throw new GatewayError('credential_unavailable', '500')
      return answer
    }
  }

  it('that fails after it rotated is shown the token again: with a time of grace all is well', async () => {
    const { replica } = await scene()
    const server = strictServer({ grace: true })
    const one = replica()
    const refresh = failing(server.refresh, 1)
    await expect(run(one, refresh)).rejects.toMatchObject({ code: 'credential_unavailable' })
    await run(one, refresh)
    await run(one, refresh)
    expect(server.alive).toBe(true)
  })

  it('and without one the human is asked, once, and the server is left alone', async () => {
    const { replica, kept } = await scene()
    const server = strictServer()
    const one = replica()
    const refresh = failing(server.refresh, 1)
    await expect(run(one, refresh)).rejects.toMatchObject({ code: 'credential_unavailable' })
    expect(await kept()).toMatchObject({ state: 'connected' })
    for (let i = 0; i < 5; i++) await expect(run(one, refresh)).rejects.toMatchObject({ code: 'reauthorize' })
    expect(server.shown).toEqual(['R0', 'R0'])
    expect(one.lost).toMatchObject([ana])
  })

  it('is shown the token before, when it does not know the one that it gave', async () => {
    const { replica, kept } = await scene()
    const one = replica()
    await run(one, strictServer().refresh)
    const given = (await kept())?.refreshToken.reveal()
    const shown: string[] = []
    await run(one, async (token) => {
      shown.push(token.reveal())
      return token.reveal() === 'R0' ? answerWith('R9') : 'invalid_grant'
    })
    expect(shown).toEqual([given, 'R0'])
    expect((await kept())?.refreshToken.reveal()).toBe('R9')
  })
})

describe('a failing store', () => {
  it('never lets an access token out whose refresh token is not stored, and stores it as soon as it can', async () => {
    const { clock, rows, replica, kept } = await scene()
    const server = strictServer()
    let isAway = false
    const spoilt = (): Partial<ConnectionRows> => ({
      async write(...given) {
        if (isAway) throw new GatewayError('store_unavailable', 'away')
        return rows.write(...given)
      },
    })
    const one = replica(spoilt())
    const call = run(one, async (...asked) => {
      const answer = await server.refresh(...asked)
      isAway = true
      clock.advance(CLAIM_MS)
      return answer
    })
    await new Promise((done) => setTimeout(done, 250))
    clock.advance(CLAIM_MS)
    await expect(call).rejects.toMatchObject({ code: 'store_unavailable' })
    expect((await kept())?.refreshToken.reveal()).toBe('R0')
    isAway = false
    await run(one, server.refresh)
    expect(server.alive).toBe(true)
    expect((await kept())?.refreshToken.reveal()).toBe(server.current)
  })
})

describe('a caller that leaves', () => {
  it('is answered at once, and the token that comes is kept all the same', async () => {
    const { replica, kept } = await scene()
    const server = strictServer()
    const one = replica()
    const held = Promise.withResolvers<void>()
    const leaving = new AbortController()
    const call = run(
      one,
      async (...asked) => {
        await held.promise
        return server.refresh(...asked)
      },
      leaving.signal,
    )
    setImmediate(() => leaving.abort())
    await expect(call).rejects.toMatchObject({ code: 'credential_unavailable' })
    held.resolve()
    await one.refreshes.close() // as the gateway does when it stops
    expect((await kept())?.refreshToken.reveal()).toBe(server.current)
    await expect(run(one, server.refresh, AbortSignal.abort())).rejects.toMatchObject({
      code: 'credential_unavailable',
    })
    expect(server.shown).toHaveLength(1)
  })
})
