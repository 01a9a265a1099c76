/**
 * SECURITY.md 3 and 4: what a holder signs without asking is worth what it may give, once, below its own grant, at either of two
 * gateways. Everything else is refused under its own name, and nothing arrives.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readJws, signJws } from '../../gateway/grant/chain/jws.ts'
import { type OfflineDelegation, signOffline } from '../../gateway/grant/holder.ts'
import type { IssuedView, OpenTaskBody } from '../../gateway/protocol/control.ts'
import type { Authority } from '../../gateway/protocol/grant.ts'
import { call, detailsOf, idOf, type Key, LEVELS, newKey, open, openPair, type Pair, said } from './pair.fixture.ts'
import { entriesOf } from './services.fixture.ts'

const READ: Authority = { operations: ['notes:read'] }
const ALL: Authority = { operations: ['notes:*'] }

let pair: Pair
beforeAll(async () => {
  pair = await openPair({
    policies: {
      only: true,
      text: `@id("all") @owner("test") permit (principal, action, resource);
        @id("not-to-deeper") @owner("test")
        forbid (principal == Agent::"${idOf('deeper')}", action == Action::"delegate", resource);`,
    },
  })
})
afterAll(() => pair.stop())

interface Bound {
  readonly view: IssuedView
  readonly key: Key
}

async function root(body: Partial<OpenTaskBody> = {}): Promise<Bound> {
  const key = newKey()
  const { control } = pair.replicas[0]
  const asked = { agent: idOf('lead'), purpose: 'sign offline', scope: 'notes:read', ...body }
  return { view: await control.openBoundTask({ ...asked, dpop_jkt: key.jkt }), key }
}

/** @param o.level names the agent that it is for. */
function hop(
  parent: string,
  by: Key,
  o: Partial<OfflineDelegation> & { to?: Key; level?: number; until: number },
): string {
  const { to, level = 1, until, ...more } = o
  return signOffline({
    parent,
    key: by.key,
    agent: idOf(LEVELS[level] ?? 'h'),
    authority: [READ],
    issuedAt: Math.floor(Date.now() / 1000),
    expiresAt: until,
    ...(to && { cnf: { jkt: to.jkt } }),
    ...more,
  })
}

/** The newest hop with other claims, signed by the key given. */
function respoken(token: string, by: Key, change: object): string {
  const [own = '', ...above] = token.split('~')
  const { header, payload } = readJws(own, 20_000)
  const { alg: _, ...rest } = header
  return [signJws(rest, { ...payload, ...change }, by.key), ...above].join('~')
}

const idIn = (token: string) => String(readJws(token.split('~')[0] ?? '', 20_000).payload.jti)

/** What both gateways say, and how many calls arrived. */
async function tried(token: string, path?: string): Promise<readonly unknown[]> {
  const before = pair.upstream.requests.length
  const answers = [await call(pair.replicas[0], token, path), await call(pair.replicas[1], token, path)].map(said)
  return [...answers, pair.upstream.requests.length - before]
}
const refused = (code: string) => [code, code, 0]

/** root → one → two, the last one for whoever has it. */
async function chain(body: Partial<OpenTaskBody> = {}) {
  const { view, key } = await root(body)
  const next = newKey()
  const one = hop(view.token, key, { to: next, until: view.expires_at })
  const two = hop(one, next, { level: 2, until: view.expires_at })
  const [newest = '', above = ''] = two.split('~')
  return { view, key, next, one, two, newest, above }
}

describe('a delegation that was signed offline', () => {
  it('works at both gateways, however many present it at once, and is made once', async () => {
    const { two, view } = await chain()
    const answers = await Promise.all(Array.from({ length: 24 }, (_, i) => call(pair.replicas[i % 2 ? 0 : 1], two)))
    expect(new Set(answers.map(said))).toEqual(new Set([200]))
    const { grants } = await pair.replicas[0].control.task(view.task)
    expect(grants.map(({ depth }) => depth).toSorted()).toEqual([0, 1, 2])
  })

  it('spends the budget of the grant above it, and is in the log with its signer', async () => {
    const { view, key } = await root({
      scope: undefined as never,
      authorization_details: detailsOf({ ...READ, constraints: { max_calls: 6 } }),
    })
    const authority = [{ ...READ, constraints: { max_calls: 6 } }]
    const all = [1, 2, 3].map((level) => hop(view.token, key, { level, authority, until: view.expires_at }))
    const before = pair.upstream.requests.length
    await Promise.all(Array.from({ length: 30 }, (_, i) => call(pair.replicas[i % 2 ? 0 : 1], all[i % 3] as string)))
    expect(pair.upstream.requests.length - before).toBe(6)
    const entries = await entriesOf(pair.replicas[0].settings.dataDir)
    const others = await entriesOf(pair.replicas[1].settings.dataDir)
    const made = [...entries, ...others].filter((entry) => JSON.stringify(entry).includes(idIn(all[0] as string)))
    expect(made.length).toBeGreaterThan(0)
  })
})

describe('a delegation is refused under its own name', () => {
  it('spliced: signed by a key that the grant above is not bound to', async () => {
    const { one, view, key } = await chain()
    const thief = newKey()
    expect(await tried(hop(one, thief, { level: 2, until: view.expires_at }))).toEqual(refused('lineage_spliced'))
    expect(await tried(hop(view.token, thief, { until: view.expires_at }))).toEqual(refused('lineage_spliced'))
    // The key of the root says nothing two hops further down.
    expect(await tried(hop(one, key, { level: 2, until: view.expires_at }))).toEqual(refused('lineage_spliced'))
  })

  it('truncated: a hop above it is missing, or the grant above that', async () => {
    const { newest } = await chain()
    expect(await tried(newest)).toEqual(refused('lineage_truncated'))
    expect(await tried(`${newest}~`)).toEqual(refused('lineage_invalid'))
  })

  it('reordered, duplicated', async () => {
    const { newest, above } = await chain()
    expect(await tried(`${above}~${newest}`)).toEqual(refused('lineage_reordered'))
    expect(await tried(`${newest}~${above}~${above}`)).toEqual(refused('lineage_duplicated'))
    expect(await tried(`${newest}~${newest}~${above}`)).toEqual(refused('lineage_duplicated'))
  })

  it('grafted: below another task, another parent or another chain', async () => {
    const [mine, other] = [await chain(), await chain()]
    const move = (change: object) => respoken(mine.one, mine.key, change)
    const { payload } = readJws(other.above, 20_000)
    expect(await tried(`${mine.newest}~${other.above}`)).toEqual(refused('lineage_grafted'))
    expect(await tried(move({ txn: other.view.task }))).toEqual(refused('lineage_grafted'))
    expect(await tried(move({ txn: other.view.task, par: other.view.grant, par_hash: payload.par_hash }))).toEqual(
      refused('lineage_spliced'),
    )
    expect(await tried(move({ par_hash: payload.par_hash }))).toEqual(refused('lineage_grafted'))
    expect(
      await tried(
        move({
          target: { aud: 'http://elsewhere.test' },
          act: { ...(payload.act as object), iss: 'http://elsewhere.test' },
        }),
      ),
    ).toEqual(refused('lineage_grafted'))
  })

  it('re-encoded: the same claims in other bytes', async () => {
    const { newest, above, one } = await chain()
    const [head = '', body = '', signature = ''] = one.split('.')
    const spaced = Buffer.from(JSON.stringify(JSON.parse(Buffer.from(body, 'base64url').toString()), null, 1)).toString(
      'base64url',
    )
    expect(await tried(`${head}.${spaced}.${signature}`)).toEqual(refused('lineage_reencoded'))
    expect(await tried(`${head}.${body}.${signature}=`)).toEqual(refused('grant_invalid'))
    expect(
      await tried(`${newest}~${above.replace(/.$/, (last) => String.fromCharCode(last.charCodeAt(0) + 1))}`),
    ).toMatchObject([expect.stringMatching(/^lineage_/), expect.stringMatching(/^lineage_/), 0])
  })

  it('signed by nobody, by a shared secret, or with a say in how it is verified', async () => {
    const { one, key } = await chain()
    const [head = '', body = '', signature = ''] = one.split('.')
    const header = JSON.parse(Buffer.from(head, 'base64url').toString()) as object
    const headed = (change: object) => Buffer.from(JSON.stringify({ ...header, ...change })).toString('base64url')
    for (const token of [
      `${headed({ alg: 'none' })}.${body}.`,
      `${headed({ alg: 'HS256' })}.${body}.${signature}`,
      `${headed({ kid: 'x' })}.${body}.${signature}`,
      signJws({ ...header, crit: ['b64'] }, readJws(one, 20_000).payload, key.key),
      respoken(one, key, { att: 'gateway-on-behalf' }),
      respoken(one, key, { admin: true }),
    ])
      expect((await tried(token)).slice(2), token).toEqual([0])
  })

  it('wider than the grant above, in operations, places, time or depth', async () => {
    const { view, key, next, one } = await chain()
    const until = view.expires_at
    expect(await tried(hop(view.token, key, { authority: [ALL], until }))).toEqual(refused('invalid_scope'))
    expect(await tried(hop(one, next, { level: 2, authority: [ALL], until }))).toEqual(refused('invalid_scope'))
    expect(await tried(hop(view.token, key, { authority: [READ, { operations: ['notes:write'] }], until }))).toEqual(
      refused('invalid_scope'),
    )
    expect(await tried(hop(view.token, key, { until: until + 1 }))).toEqual(refused('lineage_invalid'))
    expect(await tried(hop(view.token, key, { maxDepth: 9, until }))).toMatchObject(
      [/./, /./, 0].map((x) => (x === 0 ? 0 : expect.any(String))),
    )
  })

  it('of a grant that cannot be delegated, or was handed on without a key', async () => {
    const fixed = await root({ delegable: false })
    expect(await tried(hop(fixed.view.token, fixed.key, { until: fixed.view.expires_at }))).toEqual(
      refused('delegation_refused'),
    )
    const { view, key } = await root()
    const next = newKey()
    const one = hop(view.token, key, { to: next, delegable: false, until: view.expires_at })
    expect(await tried(hop(one, next, { level: 2, until: view.expires_at }))).toEqual(refused('delegation_refused'))
    const bare = hop(view.token, key, { until: view.expires_at })
    expect(await tried(hop(bare, next, { level: 2, until: view.expires_at }))).toEqual(refused('lineage_spliced'))
  })

  it('for an agent that is not registered, or to whom policy lets nobody delegate', async () => {
    const { view, key } = await root()
    expect(await tried(hop(view.token, key, { agent: 'spiffe://test/agent/nobody', until: view.expires_at }))).toEqual(
      refused('agent_unknown'),
    )
    expect(await tried(hop(view.token, key, { level: 4, until: view.expires_at }))).toEqual(refused('policy_denied'))
  })

  it('below a grant that is revoked, suspended, of an ended task, or expired', async () => {
    const { control } = pair.replicas[1]
    const [revoked, suspended, completed] = [await chain(), await chain(), await chain()]
    await control.revoke(revoked.view.grant)
    await control.suspendTask(suspended.view.task)
    await control.completeTask(completed.view.task)
    expect(await tried(revoked.two)).toEqual(refused('grant_revoked'))
    expect(await tried(suspended.two)).toEqual(refused('task_suspended'))
    expect(await tried(completed.two)).toEqual(refused('grant_revoked'))
    const short = await chain({ ttl_s: 1 })
    await pause(1_000)
    expect(await tried(short.two)).toEqual(refused('grant_expired'))
  })

  it('after its own hop was revoked before anyone presented it', async () => {
    const { one, two, next } = await chain()
    await pair.replicas[0].control.revoke(idIn(one)).catch(() => {})
    const { gateway } = pair.replicas[0]
    void next
    const answer = await fetch(`${gateway.control}/oauth/revoke`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ token: two }).toString(),
    })
    expect(answer.status).toBe(200)
    expect(await tried(two)).toEqual(refused('grant_revoked'))
  })

  it('nine hops deep', async () => {
    const first = await root({ max_depth: 8 })
    const keys = Array.from({ length: 10 }, newKey)
    const until = first.view.expires_at
    let token = hop(first.view.token, first.key, { to: keys[0] as Key, until })
    const level = (i: number) => (i === 4 ? 5 : i % LEVELS.length)
    for (let i = 1; i < 8; i++) token = hop(token, keys[i - 1] as Key, { to: keys[i] as Key, level: level(i), until })
    const bare = hop(token.split('~').slice(1).join('~'), keys[6] as Key, { level: 7, until })
    expect(await tried(bare)).toEqual([200, 200, 2])
    expect((await tried(hop(token, keys[7] as Key, { level: 8, until }))).slice(2)).toEqual([0])
  })
})

describe('an id that somebody chose', () => {
  it('of another grant is refused, wherever in the chain it stands', async () => {
    const [{ view, key, next, one }, victim] = [await chain(), await open(pair.replicas[0])]
    const until = view.expires_at
    expect(await tried(respoken(hop(view.token, key, { until }), key, { jti: victim.grant }))).toEqual(
      refused('grant_invalid'),
    )
    // In the middle: nobody has looked at this hop, which gives more than there is.
    for (const jti of [victim.grant, view.grant]) {
      const wide = respoken(hop(view.token, key, { to: next, authority: [ALL], until }), key, { jti })
      expect((await tried(hop(wide, next, { level: 2, authority: [ALL], until }))).slice(2), 'wide').toEqual([0])
      const narrow = respoken(one, key, { jti })
      expect(await tried(hop(narrow, next, { level: 2, until }))).toEqual(refused('lineage_duplicated'))
    }
    expect(said(await call(pair.replicas[0], victim.handle))).toBe(200)
  })

  it('of a task, of a step or of nothing that an id is, is refused', async () => {
    const { view, key } = await root()
    const token = hop(view.token, key, { until: view.expires_at })
    for (const jti of [view.task, `${view.task}/step`, '', '*', '00000000-0000-0000-0000-000000000000', '../x'])
      expect((await tried(respoken(token, key, { jti }))).slice(2), jti).toEqual([0])
  })

  it('twice is one grant for the first text only', async () => {
    const { view, key } = await root()
    const token = hop(view.token, key, { until: view.expires_at })
    expect(await tried(token)).toEqual([200, 200, 2])
    const twin = respoken(token, key, { reason: 'the same, differently' })
    expect(await tried(twin)).toEqual(refused('grant_invalid'))
    expect(await tried(token)).toEqual([200, 200, 2])
  })
})
