/** SECURITY.md 1: every grant and every lease ends in minutes; a standing upstream key is marked, and its lease ends all the same. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'
import { codeOf, openTunnel, reverse } from './agent.fixture.ts'
import { entriesOf, openTimedSite, type TimedSite } from './services.fixture.ts'

const TOKEN_TTL_S = 120
let echo: EchoUpstream
let issuer: TestUpstream
let clock: ManualClock
let site: TimedSite

beforeAll(async () => {
  ;[echo, issuer] = await Promise.all([
    startEcho({ names: ['standing.keyless.test', 'issued.keyless.test'] }),
    startUpstream({ tokenTtlS: TOKEN_TTL_S }),
  ])
  clock = manualClock(Date.now())
  const operations = {
    read: { match: ['GET /echo'], access: 'read' },
    'write.briefly': { match: ['POST /echo'], access: 'write' },
    'write.once': { match: ['DELETE /echo'], access: 'write' },
  } as const
  const shaped = Object.fromEntries(
    Object.entries(operations).map(([id, { match, access }]) => [id, { match: [...match], access }]),
  )
  const { facts } = issuer
  site = await openTimedSite(
    { port: echo.tlsPort, caPem: `${echo.caPem}\n${issuer.caPem}` },
    {
      services: [
        { name: 'standing', operations: shaped },
        { name: 'issued', operations: shaped },
      ],
      credentials: {
        standing: 'a-standing-key-of-some-length',
        issued: {
          provider: 'oauth_client_credentials',
          token_url: facts.token_url,
          client_id: facts.client_id,
          client_auth: 'client_secret_basic',
          client_secret: { file: facts.client_secret_file },
          addresses: ['127.0.0.1/32'],
        },
      },
      settings: {
        grants: { max_ttl_s: 1_800 },
        upstream: { hosts: { [new URL(facts.token_url).hostname]: '127.0.0.1' } },
      },
      policies: {
        text: ['standing', 'issued']
          .map(
            (name) => `@id("briefly-${name}") @owner("test") @ttl("30")
            permit (principal, action == Action::"${name}:write.briefly", resource);
            @id("once-${name}") @owner("test") @single_use("true")
            permit (principal, action == Action::"${name}:write.once", resource);`,
          )
          .join('\n'),
      },
    },
    clock,
  )
})

afterAll(async () => {
  await site.stop()
  await Promise.all([echo.stop(), issuer.stop()])
})

const open = (ttl_s?: number) =>
  site.control.openTask({
    scope: 'standing:* issued:*',
    purpose: 'live briefly',
    ...(ttl_s === undefined ? {} : { ttl_s }),
  })
const nowS = () => clock.nowMs() / 1000
const call = (handle: string, service: string, method = 'GET') =>
  reverse(site.proxyPort, handle, { method, path: `/${service}/echo` })

/** `lease.issued` entries of a grant. */
async function leasesOf(grant: string): Promise<Record<string, unknown>[]> {
  return (await entriesOf(site.dataDir))
    .filter((entry) => entry.kind === 'lease.issued' && entry.facts?.grant === grant)
    .map((entry) => entry.facts as Record<string, unknown>)
}

describe('a grant', () => {
  it('lives for a quarter of an hour when nothing is asked for', async () => {
    const task = await open()
    expect(task.expires_in).toBeLessThanOrEqual(900)
    expect(task.expires_at).toBeLessThanOrEqual(Math.floor(nowS()) + 900)
  })

  it('is never opened for longer than the settings allow, whatever is asked', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(fc.integer(), fc.double(), fc.constantFrom(1_799, 1_800, 1_801, 3_600, 3_601, 2 ** 31, 2 ** 53)),
        async (ttl) => {
          const opened = await open(ttl).catch((cause: unknown) => cause)
          if (opened instanceof Error) {
            expect(opened).toMatchObject({ code: 'instruction_invalid' })
            return
          }
          const task = opened as Awaited<ReturnType<typeof open>>
          expect(task.expires_at).toBeLessThanOrEqual(Math.floor(nowS()) + 1_800)
        },
      ),
      { numRuns: 60, examples: [[1_800], [1_801], [3_601], [0], [-1], [1.5]] },
    )
    await expect(open(1_800)).resolves.toBeDefined()
    await expect(open(1_801)).rejects.toMatchObject({ code: 'instruction_invalid' })
  })

  it('says the same end in its handle, its token and its record', async () => {
    const task = await open(77)
    const claims = JSON.parse(Buffer.from(task.token.split('.')[1] ?? '', 'base64url').toString())
    expect(claims.exp).toBe(task.expires_at)
    expect(claims.exp - claims.iat).toBe(77)
  })

  it('is refused from its last second on, as handle and as token', async () => {
    const task = await open(60)
    for (const credential of [task.handle, task.token]) expect((await call(credential, 'standing')).status).toBe(200)
    clock.advance(task.expires_at * 1000 - clock.nowMs() - 1)
    for (const credential of [task.handle, task.token]) expect((await call(credential, 'standing')).status).toBe(200)
    clock.advance(1)
    const before = echo.requests.length
    for (const credential of [task.handle, task.token]) {
      const answer = await call(credential, 'standing')
      expect([answer.status, codeOf(answer)]).toEqual([401, 'grant_expired'])
    }
    expect(echo.requests.length).toBe(before)
  })

  it('ends inside a tunnel that is open, and nothing more is sent', async () => {
    const task = await open(5)
    const authority = `standing.keyless.test:${echo.tlsPort}`
    const tunnel = await openTunnel(site.proxyPort, {
      handle: task.handle,
      authority,
      ca: (await site.control.status()).ca_pem,
    })
    expect((await tunnel.ask('GET', '/echo')).status).toBe(200)
    clock.advance(5_000)
    const before = echo.requests.length
    const answer = await tunnel.ask('GET', '/echo')
    expect([answer.status, codeOf(answer)]).toEqual([403, 'grant_expired'])
    expect(echo.requests.length).toBe(before)
    tunnel.close()
  })
})

/** Members that only auditors read. */
const credOf = (cred: Entry['cred']) => cred as unknown as { readonly expires: number; readonly cred_id: string }

describe('a lease', () => {
  it('ends with the grant where neither policy nor upstream ends it earlier', async () => {
    const task = await open(600)
    await call(task.handle, 'standing')
    expect((await leasesOf(task.grant)).map(({ expires }) => expires)).toEqual([task.expires_at])
  })

  it('ends before its upstream credential does', async () => {
    const task = await open(600)
    await call(task.handle, 'issued')
    const [lease] = await leasesOf(task.grant)
    expect(lease?.expires).toBeLessThan(Math.floor(nowS()) + TOKEN_TTL_S)
    expect(lease?.expires).toBeGreaterThan(Math.floor(nowS()) + TOKEN_TTL_S / 2)
  })

  it.each(['standing', 'issued'])('ends when policy says, also where %s lives longer', async (service) => {
    const task = await open(600)
    await call(task.handle, service, 'POST')
    const [lease] = await leasesOf(task.grant)
    expect(lease?.expires).toBeLessThanOrEqual(Math.floor(nowS()) + 30)
  })

  it('of another operation is not used beyond what policy says of this one', async () => {
    const task = await open(600)
    await call(task.handle, 'standing')
    await call(task.handle, 'standing', 'POST')
    clock.advance(31_000)
    await call(task.handle, 'standing', 'POST')
    const ends = (await leasesOf(task.grant)).map(({ expires }) => Number(expires))
    expect(ends.length).toBeGreaterThanOrEqual(3)
    expect(ends.at(-1)).toBeLessThanOrEqual(Math.floor(nowS()) + 30)
  })

  it('is renewed with a credential that lives, never stretched', async () => {
    const task = await open(1_200)
    for (let n = 0; n < 6; n++) {
      expect((await call(task.handle, 'issued')).status).toBe(200)
      clock.advance(60_000)
    }
    // Outcomes name the end of the credential they were made with: it was ahead of each decision.
    const entries = await entriesOf(site.dataDir)
    const outcomes = entries.filter(
      ({ kind, lineage }) => kind === 'call.outcome' && lineage?.at(-1)?.grant === task.grant,
    )
    expect(outcomes).toHaveLength(6)
    for (const { cred, req } of outcomes) {
      const decided = entries.find((entry) => entry.kind === 'call.decision' && entry.req === req)
      expect(credOf(cred).expires).toBeGreaterThan(Date.parse(decided?.ts ?? '') / 1000)
    }
    expect(new Set(outcomes.map(({ cred }) => credOf(cred).cred_id)).size).toBeGreaterThanOrEqual(3)
  })

  it('of a single use is used once, and of a task that ended not at all', async () => {
    const task = await open(600)
    expect((await call(task.handle, 'issued', 'DELETE')).status).toBe(200)
    expect(codeOf(await call(task.handle, 'issued', 'DELETE'))).toBe('use_spent')
    await site.control.completeTask(task.task)
    expect(codeOf(await call(task.handle, 'issued'))).toBe('grant_revoked')
  })
})

describe('the record', () => {
  const last = async (service: string): Promise<[Entry | undefined, Record<string, unknown> | undefined]> => {
    const task = await open(600)
    await call(task.handle, service)
    const entries = await entriesOf(site.dataDir)
    const outcome = entries.findLast(
      ({ kind, lineage }) => kind === 'call.outcome' && lineage?.at(-1)?.grant === task.grant,
    )
    return [outcome, (await leasesOf(task.grant))[0]]
  }

  it('marks a standing key as one that does not end', async () => {
    const [outcome, lease] = await last('standing')
    expect(outcome?.cred).toMatchObject({ provider: 'static', ephemeral: false })
    expect(lease).toMatchObject({ provider: 'static', ephemeral: false })
  })

  it('marks an issued token as one that does', async () => {
    const [outcome, lease] = await last('issued')
    expect(outcome?.cred).toMatchObject({ provider: 'oauth_client_credentials', ephemeral: true })
    expect(lease).toMatchObject({ ephemeral: true })
  })
})
