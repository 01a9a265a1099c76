/** SECURITY.md 3 and 4: what holders can make of their grants: other keys, other names, other tenants, other traces and steps. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readJws } from '../../gateway/grant/chain/jws.ts'
import { signOffline } from '../../gateway/grant/holder.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { forward, openTunnel, say } from './agent.fixture.ts'
import {
  asHolder,
  attest,
  call,
  delegate,
  detailsOf,
  idOf,
  newKey,
  open,
  openPair,
  type Pair,
  READ,
  said,
} from './pair.fixture.ts'
import { entriesOf } from './services.fixture.ts'

let pair: Pair
let one: TestGateway
let ca: string
beforeAll(async () => {
  pair = await openPair({
    policies: {
      text: `@id("wipe-signed-only") @owner("test")
        forbid (principal, action == Action::"notes:wipe", resource) when { context.on_behalf };`,
    },
  })
  one = pair.replicas[0]
  ca = (await one.control.status()).ca_pem
})
afterAll(() => pair.stop())

const host = () => `notes.keyless.test:${pair.upstream.tlsPort}`
const handleOf = ({ handle = '' }: Pick<IssuedView, 'handle'>) => handle

async function arrivals(work: () => Promise<unknown>): Promise<number> {
  const before = pair.upstream.requests.length
  await work()
  return pair.upstream.requests.length - before
}

/** A token exchange over TCP, by whoever holds the subject. */
async function exchange(subject: string, form: Readonly<Record<string, string>>) {
  const answer = await fetch(`${one.gateway.control}/oauth/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: subject,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      requested_actor: idOf('mid'),
      ...form,
    }),
  })
  return (await answer.json()) as Readonly<Record<string, string>>
}

describe('a grant that is bound to a key', () => {
  it('has no handle, and its token alone is nothing at any door', async () => {
    const key = newKey()
    const view = await one.control.openBoundTask({
      agent: idOf('lead'),
      scope: 'notes:read',
      purpose: 'be bound',
      dpop_jkt: key.jkt,
    })
    expect(view.handle).toBeUndefined()
    const { token } = view
    const basic = Buffer.from(`task:${token}`).toString('base64')
    const arrived = await arrivals(async () => {
      for (const scheme of [`Bearer ${token}`, `DPoP ${token}`, `Basic ${basic}`, token]) {
        for (const name of ['Authorization', 'Proxy-Authorization']) {
          const answer = await say(
            one.proxyPort,
            `GET ${READ} HTTP/1.1\r\nHost: x\r\n${name}: ${scheme}\r\nConnection: close\r\n\r\n`,
          )
          expect(said(answer), `${name}: ${scheme.slice(0, 6)}`).toMatch(/^(grant_invalid|grant_missing|dpop_\w+)$/)
        }
      }
      const answer = await forward(one.proxyPort, token, { url: `https://${host()}/echo/acme`, host: host() })
      expect(said(answer)).toBe('grant_invalid')
      await expect(openTunnel(one.proxyPort, { handle: token, authority: host(), ca })).rejects.toThrow(/40[17]/)
    })
    expect(arrived).toBe(0)
    const stolen = await asHolder(one, token, `/tasks/${view.task}/intent`, { purpose: 'stolen' })
    expect([stolen.status, stolen.body?.code]).toEqual([401, 'grant_invalid'])
    expect(await exchange(token, { scope: 'notes:read' })).toMatchObject({ error: expect.any(String) })
    // Naming it by its id, as the owner of the socket may, does not sign in its holder's name.
    await expect(one.control.delegate({ parent: view.grant, agent: idOf('mid') })).rejects.toMatchObject({
      code: 'lineage_truncated',
    })
  })
})

interface Step {
  readonly grant?: string
  readonly on_behalf?: boolean
}

describe('who signed for whom', () => {
  it('cannot be forged: nobody signs for a holder without a key, and nobody claims to be the gateway', async () => {
    const root = await open(one)
    const forger = newKey()
    const authority = [{ operations: ['notes:read'] }]
    const proof = attest(root, forger, { agent: idOf('mid'), authority })
    const asked = { scope: 'notes:read', actor_proof: proof }
    expect(await exchange(root.handle, asked)).toMatchObject({ keyless_code: 'lineage_spliced' })
    const child = await exchange(root.handle, { scope: 'notes:*' })
    const [newest = ''] = (await one.control.grant(child.grant ?? '')).actor_proofs
    expect(readJws(newest, 20_000).payload).toMatchObject({ att: 'gateway-on-behalf' })
    // What the gateway signed for one child says nothing for another, and is no credential.
    expect(await exchange(root.handle, { scope: 'notes:*', actor_proof: newest })).toMatchObject({
      keyless_code: expect.stringMatching(/^lineage_/),
    })
    for (const token of [newest, `${newest}~${newest}`, `${newest}~${child.access_token}`])
      expect(await arrivals(() => call(one, token))).toBe(0)
  })

  it('is told to policy and to the log as it is, however far down', async () => {
    const root = await open(one)
    const child = await delegate(one, root)
    const leaf = await delegate(one, child, { agent: idOf('leaf') })
    expect(said(await call(one, root.handle, READ, 'DELETE'))).toBe(200)
    for (const grant of [child, leaf])
      expect(said(await call(one, handleOf(grant), READ, 'DELETE'))).toBe('policy_denied')
    expect(said(await call(one, handleOf(leaf)))).toBe(200)
    const chains = (await entriesOf(one.settings.dataDir)).map(({ lineage }) => (lineage ?? []) as readonly Step[])
    const own = chains.filter((steps) => steps.at(-1)?.grant === leaf.grant)
    expect(own.length).toBeGreaterThan(1)
    for (const steps of own) expect(steps.map((step) => step.on_behalf ?? false)).toEqual([false, false, true, true])
  })
})

describe('a grant for one trace', () => {
  const TRACE = '0af7651916cd43dd8448eb211c80319c'
  const parent = (trace: string) => `traceparent: 00-${trace}-b7ad6b7169203331-01\r\n`

  it('and all below it pass with that trace only, at every door', async () => {
    const root = await open(one, { trace: TRACE, preset: 'per-prompt' })
    const child = await delegate(one, root)
    const other = TRACE.replace('0', '1')
    for (const { handle = '' } of [root, child]) {
      expect(said(await call(one, handle, READ, 'GET', parent(TRACE)))).toBe(200)
      const arrived = await arrivals(async () => {
        for (const fields of [
          '',
          parent(other),
          parent(TRACE.toUpperCase()),
          parent(TRACE) + parent(other),
          parent(other) + parent(TRACE),
          parent(TRACE) + parent(TRACE),
          `traceparent: ${TRACE}\r\n`,
          `traceparent: 00-${TRACE}-0000000000000000-01\r\n`,
          `x-traceparent: 00-${TRACE}-b7ad6b7169203331-01\r\n`,
          `tracestate: ${TRACE}=1\r\nbaggage: trace=${TRACE}\r\n`,
        ])
          expect(said(await call(one, handle, READ, 'GET', fields)), fields).toBe('constraint_unmet')
        const url = `https://${host()}/echo/acme`
        expect(said(await forward(one.proxyPort, handle, { url, host: host(), fields: parent(other) }))).toBe(
          'constraint_unmet',
        )
        const tunnel = await openTunnel(one.proxyPort, { handle, authority: host(), ca })
        expect(said(await tunnel.ask('GET', '/echo/acme', parent(other)))).toBe('constraint_unmet')
        tunnel.close()
      })
      expect(arrived).toBe(0)
    }
    await expect(delegate(one, root, { trace: other })).rejects.toMatchObject({ code: 'invalid_scope' })
    const cut = { trace: other, allow_narrowing: true }
    await expect(delegate(one, root, cut)).rejects.toMatchObject({ code: 'invalid_scope' })
  })
})

describe('what is narrowed on demand', () => {
  it('is told, and is never more than there was', async () => {
    const constraints = { max_calls: 2, params: { 'query.state': { one_of: ['open', 'shut'] } } }
    const root = await one.control.openTask({
      agent: idOf('lead'),
      purpose: 'be narrow',
      authorization_details: detailsOf({ operations: ['notes:read', 'notes:write'], actions: ['GET'], constraints }),
    })
    const wide = detailsOf(
      { operations: ['notes:*'] },
      {
        operations: ['notes:read'],
        constraints: { ...constraints, max_calls: 2, params: { 'query.state': { prefix: 'o' } } },
      },
      { operations: ['notes:wipe'] },
    )
    await expect(delegate(one, root, { authorization_details: wide })).rejects.toMatchObject({ code: 'invalid_scope' })
    const child = await delegate(one, root, { authorization_details: wide, allow_narrowing: true })
    expect(child.narrowed?.length).toBeGreaterThan(0)
    const arrived = await arrivals(async () => {
      for (const path of [READ, `${READ}?state=gone`, `${READ}?state=open&state=gone`, `${READ}?State=open`])
        expect(said(await call(one, handleOf(child), path)), path).toBe('constraint_unmet')
      expect(said(await call(one, handleOf(child), READ, 'DELETE'))).toBe('scope_exceeded')
      for (let i = 0; i < 4; i++) await call(one, handleOf(child), `${READ}?state=open`)
    })
    expect(arrived).toBe(2)
  })
})

describe('another tenant on the same Redis, with the same keys', () => {
  let other: TestGateway
  beforeAll(async () => {
    other = await startGateway(`${pair.yaml}tenant: umbrella\n`)
  })
  afterAll(() => other.stop())

  it('knows nothing of a grant, by whatever name, and can neither pass it on nor end it', async () => {
    const root = await open(one)
    const child = await delegate(one, root)
    const arrived = await arrivals(async () => {
      for (const credential of [root.handle, root.token, handleOf(child), child.token])
        expect(said(await call(other, credential))).toBe('grant_invalid')
    })
    expect(arrived).toBe(0)
    for (const name of [root.grant, root.handle, root.token]) {
      await expect(other.control.delegate({ parent: name, agent: idOf('mid') })).rejects.toMatchObject({
        code: 'grant_invalid',
      })
      await expect(other.control.revoke(name)).rejects.toMatchObject({ code: 'grant_invalid' })
    }
    await expect(other.control.completeTask(root.task)).rejects.toMatchObject({ code: 'task_unknown' })
    await expect(other.control.suspendTask(root.task)).rejects.toMatchObject({ code: 'task_unknown' })
    expect(await other.control.tasks()).toEqual([])
    expect(said(await call(one, handleOf(child)))).toBe(200)
  })

  it('gains nothing from a delegation that was signed for the first', async () => {
    const key = newKey()
    const view = await one.control.openBoundTask({
      agent: idOf('lead'),
      scope: 'notes:read',
      purpose: 'x',
      dpop_jkt: key.jkt,
    })

    const issuedAt = Math.floor(Date.now() / 1000)
    const token = signOffline({
      parent: view.token,
      key: key.key,
      agent: idOf('mid'),
      authority: [{ operations: ['notes:read'] }],
      issuedAt,
      expiresAt: view.expires_at,
    })
    expect(said(await call(other, token))).toBe('lineage_truncated')
    expect(said(await call(one, token))).toBe(200)
    expect(said(await call(other, token))).toBe('lineage_truncated')
  })
})
