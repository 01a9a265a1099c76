/** The life of tasks and grants at the control door: for the owner on the socket, for holders on either listener. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { newHolderKey } from '../grant/delegate.fixture.ts'
import { presenting } from '../grant/grant.fixture.ts'
import { ask, openRig, type Rig, triage } from './door.fixture.ts'

const search = { ...triage, id: 'spiffe://acme.test/agents/search' }
const KEY = newHolderKey()

let rig: Rig
beforeEach(async () => {
  rig = await openRig({
    agents: [triage, search],
    identities: {
      client: async () => undefined,
      // Proofs are read in the room of identities; here one is good for one URL and one token.
      proof: async (dpop, { method, url, accessToken }) => {
        if (dpop !== `${method} ${url} ${accessToken}`) throw new GatewayError('dpop_invalid', 'another request')
        return { jkt: KEY.jkt }
      },
      nonce: () => 'n1',
    },
  })
})
afterEach(() => rig.close())

const good = { purpose: 'triage issue 42', scope: 'github:*' }
const isAlive = (handle: string) =>
  Promise.resolve()
    .then(() => rig.grants.authenticate(presenting(handle)))
    .then(
      () => true,
      () => false,
    )
const post = (path: string, body: object, headers: Record<string, string> = {}) =>
  ask(
    { port: rig.door.port },
    { method: 'POST', path, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) },
  )
const bearer = (grant: string) => ({ authorization: `Bearer ${grant}` })

describe('the owner of the socket', () => {
  it('asks for everything that a grant can be bound to', async () => {
    const details = [{ type: 'keyless_access', operations: ['github:issues.read'], constraints: { max_calls: 3 } }]
    const opened = await rig.client.openTask({
      purpose: 'x',
      authorization_details: details,
      preset: 'per-prompt',
      trace: 'a'.repeat(32),
      step: 'one',
      delegable: false,
      max_depth: 1,
    })
    expect(opened.authorization_details).toEqual(details)
    expect(await rig.client.grant(opened.grant)).toMatchObject({
      preset: 'per-prompt',
      trace: 'a'.repeat(32),
      step: 'one',
      delegable: false,
      max_depth: 1,
      depth: 0,
      attested: false,
      authorization_details: details,
    })
  })

  it('delegates, sees the chain, exports it, and revokes', async () => {
    const opened = await rig.client.openTask(good)
    rig.clock.advance(1) // ids sort by time
    const child = await rig.client.delegate({ parent: opened.grant, agent: search.id, scope: 'github:issues.read' })
    expect(child).toMatchObject({
      agent: search.id,
      task: opened.task,
      scope: 'github:issues.read',
      lineage: expect.stringContaining(`${triage.id} delegated to ${search.id}`),
    })
    const shown = await rig.client.task(opened.task)
    expect(shown.grants.map(({ grant, parent, depth }) => [grant, parent, depth])).toEqual([
      [opened.grant, undefined, 0],
      [child.grant, opened.grant, 1],
    ])
    expect(JSON.stringify(shown)).not.toMatch(/kh_/)
    expect(await rig.client.bundle(child.grant)).toMatchObject({
      token: child.token,
      actor_proofs: [expect.any(String)],
    })
    await rig.client.revoke(child.handle ?? '')
    expect([await isAlive(child.handle ?? ''), await isAlive(opened.handle)]).toEqual([false, true])
    await expect(rig.client.grant(child.grant)).rejects.toMatchObject({ code: 'grant_revoked' })
  })

  it('is told everything that was too wide', async () => {
    const opened = await rig.client.openTask({ ...good, scope: 'github:issues.read', ttl_s: 60 })
    await expect(
      rig.client.delegate({ parent: opened.handle, agent: search.id, scope: 'github:*', ttl_s: 600, max_depth: 8 }),
    ).rejects.toMatchObject({ code: 'invalid_scope', detail: expect.stringMatching(/operations.*ttl_s.*max_depth/s) })
    const cut = await rig.client.delegate({
      parent: opened.handle,
      agent: search.id,
      scope: 'github:*',
      allow_narrowing: true,
    })
    expect([cut.scope, cut.narrowed]).toEqual(['github:issues.read', [expect.stringContaining('operations')]])
  })

  it('changes the intent, ends steps, suspends, resumes and completes', async () => {
    const opened = await rig.client.openTask(good)
    const changed = await rig.client.changeIntent(opened.task, { purpose: 'escalate', scope: 'github:issues.read' })
    expect([await isAlive(opened.handle), await isAlive(changed.handle ?? '')]).toEqual([false, true])
    const step = await rig.client.delegate({ parent: changed.grant, agent: search.id, step: 'load' })
    await rig.client.completeStep(opened.task, 'load')
    expect(await isAlive(step.handle ?? '')).toBe(false)
    await expect(rig.client.completeStep(opened.task, 'load')).rejects.toMatchObject({ code: 'step_unknown' })
    await rig.client.suspendTask(opened.task)
    expect(await isAlive(changed.handle ?? '')).toBe(false)
    expect(await rig.client.tasks()).toMatchObject([{ state: 'suspended', purpose: 'escalate' }])
    const resumed = await rig.client.resumeTask(opened.task, 60)
    expect([await isAlive(resumed.handle ?? ''), resumed.expires_in]).toEqual([true, 60])
    await rig.client.completeTask(opened.task)
    expect(await isAlive(resumed.handle ?? '')).toBe(false)
  })

  it('lets a task go on, with the old grant until its own expiry', async () => {
    const opened = await rig.client.openTask({ ...good, ttl_s: 60 })
    const renewed = await rig.client.renewTask(opened.task)
    expect(renewed.expires_at).toBeGreaterThan(opened.expires_at)
    expect([await isAlive(opened.handle), await isAlive(renewed.handle ?? '')]).toEqual([true, true])
    expect(await rig.client.heartbeat(opened.task)).toMatchObject({ grant: renewed.grant, state: 'active' })
  })

  it('gets a grant without a handle when it is bound to a key', async () => {
    const opened = await rig.client.openBoundTask({ ...good, dpop_jkt: KEY.jkt })
    expect(opened).not.toHaveProperty('handle')
    expect((await rig.client.grant(opened.grant)).cnf).toEqual({ jkt: KEY.jkt })
  })
})

describe('a holder over TCP', () => {
  it('keeps its task alive, changes its intent, ends steps, suspends and completes it', async () => {
    const { task, handle } = await rig.client.openTask({ ...good, heartbeat: true })
    expect((await post(`/tasks/${task}/heartbeat`, {}, bearer(handle))).status).toBe(200)
    const intent = await post(`/tasks/${task}/intent`, { purpose: 'less', scope: 'github:issues.read' }, bearer(handle))
    expect([intent.status, intent.headers['cache-control']]).toEqual([201, 'no-store'])
    const fresh = String(intent.json.handle)
    expect([await isAlive(handle), await isAlive(fresh)]).toEqual([false, true])
    const step = await rig.client.delegate({ parent: fresh, agent: search.id, step: 'load' })
    const own = bearer(step.handle ?? '')
    expect((await post(`/tasks/${task}/steps/load/complete`, {}, own)).status).toBe(204)
    expect((await post(`/tasks/${task}/suspend`, {}, bearer(fresh))).status).toBe(204)
    const parked = await post(`/tasks/${task}/complete`, { reason: 'completed' }, bearer(fresh))
    expect([parked.status, parked.json.code]).toEqual([403, 'task_suspended'])
    const resumed = await rig.client.resumeTask(task)
    const done = await post(`/tasks/${task}/complete`, { reason: 'completed' }, bearer(resumed.handle ?? ''))
    expect(done.status).toBe(204)
    expect(await rig.client.tasks()).toEqual([])
  })

  it('is asked who it is with 401, and a grant of another task or a child’s does not do', async () => {
    const { task } = await rig.client.openTask(good)
    const other = await rig.client.openTask(good)
    const nobody = await post(`/tasks/${task}/complete`, { reason: 'completed' })
    expect([nobody.status, nobody.json.code, nobody.headers['www-authenticate']]).toEqual([
      401,
      'grant_missing',
      'Bearer, DPoP',
    ])
    const foreign = await post(`/tasks/${task}/complete`, { reason: 'completed' }, bearer(other.handle))
    expect([foreign.status, foreign.json.code]).toEqual([404, 'task_unknown'])
    const child = await rig.client.delegate({ parent: (await rig.client.task(task)).grant, agent: search.id })
    const below = await post(`/tasks/${task}/suspend`, {}, bearer(child.handle ?? ''))
    expect([below.status, below.json.code]).toEqual([403, 'delegation_refused'])
    expect(await rig.client.tasks()).toHaveLength(2)
  })

  it('is in the log when it cannot say who it is, whatever it asks to have done', async () => {
    const { task } = await rig.client.openTask(good)
    const asked: readonly (readonly [string, object, string])[] = [
      ['complete', { reason: 'completed' }, 'task.complete'],
      ['suspend', {}, 'task.suspend'],
      ['steps/one/complete', {}, 'task.step_complete'],
      ['intent', { purpose: 'something else' }, 'task.intent'],
    ]
    for (const headers of [{}, bearer('kh_unknown'), { authorization: 'Basic eDp5' }]) {
      for (const [path, body, kind] of asked) {
        const before = rig.record.length
        const { status, json } = await post(`/tasks/${task}/${path}`, body, headers)
        expect(status, path).toBe(401)
        expect(rig.record.slice(before), path).toEqual([`open ${kind} ${json.instance}`, `refused ${json.code}`])
      }
    }
    const before = rig.record.length
    const { json } = await post(`/tasks/${task}/resume`, {}, { authorization: 'Basic eDp5' })
    expect(rig.record.slice(before)).toEqual([`open task.resume ${json.instance}`, 'refused client_invalid'])
    expect(await rig.client.tasks()).toMatchObject([{ state: 'active' }])
  })

  it('cannot resume with a parked grant, nor by asking', async () => {
    const { task, handle } = await rig.client.openTask(good)
    await rig.client.suspendTask(task)
    const asked = await post(`/tasks/${task}/resume`, {})
    expect([asked.status, asked.json.code]).toEqual([401, 'client_invalid'])
    const parked = await post(`/tasks/${task}/resume`, {}, bearer(handle))
    expect(parked.status).toBe(401)
    expect(await rig.client.tasks()).toMatchObject([{ state: 'suspended' }])
  })

  it('proves the key that its grant is bound to, for this very request', async () => {
    const { task, token } = await rig.client.openBoundTask({ ...good, dpop_jkt: KEY.jkt })
    const path = `/tasks/${task}/suspend`
    const proof = `POST http://127.0.0.1:8081${path} ${token}`
    for (const headers of [
      bearer(token),
      { ...bearer(token), dpop: proof }, // RFC 9449 §7.1: a bound grant is not sent as Bearer
      { authorization: `DPoP ${token}` },
      { authorization: `DPoP ${token}`, dpop: `POST http://127.0.0.1:8081/tasks/other ${token}` },
    ]) {
      const answer = await post(path, {}, headers)
      expect(answer.json.code).toMatch(/^(?:grant_invalid|dpop_invalid)$/)
    }
    const answer = await post(path, {}, { authorization: `DPoP ${token}`, dpop: proof })
    expect([answer.status, answer.headers['dpop-nonce']]).toEqual([204, 'n1'])
  })
})

describe('the description of the API', () => {
  it('names every route of tasks and grants, and on TCP only those of holders', async () => {
    const paths = async (where: { port: number } | { socketPath: string }) =>
      Object.keys((await ask(where, { path: '/openapi.json' })).json.paths as object).filter((path) =>
        /^\/(?:tasks|grants)/.test(path),
      )
    const life = ['heartbeat', 'intent', 'suspend', 'resume', 'complete', 'steps/{step}/complete']
    const ofHolders = life.map((one) => `/tasks/{id}/${one}`).sort()
    expect((await paths({ port: rig.door.port })).sort()).toEqual(ofHolders)
    expect((await paths({ socketPath: rig.socketPath })).sort()).toEqual(
      [
        ...ofHolders,
        '/tasks',
        '/tasks/{id}',
        '/tasks/{id}/renew',
        '/grants/delegate',
        '/grants/revoke',
        '/grants/{id}',
        '/grants/{id}/bundle',
      ].sort(),
    )
  })
})
