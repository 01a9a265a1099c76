/** A call that a human has to approve: held, asked about once, let through as it was approved and as nothing else. */
import { hostname, userInfo } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import type { ApprovalJson, ApprovalStatus } from '../../gateway/protocol/control-approvals.ts'
import type { Human } from '../../gateway/protocol/grant.ts'
import { type Answer, basic, codeOf, say } from '../invariant/agent.fixture.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { ROOT, runOk } from '../rig/process.ts'

const ISS = 'https://id.acme.test'
const human = (sub: string): Human => ({ iss: ISS, sub })
const LOCAL: Human = { iss: `local:${hostname()}`, sub: userInfo().username }

const POLICY = `
@id("ask-the-human") @owner("test") @approval("human")
permit (principal, action == Action::"notes:ask", resource);
@id("ask-two") @owner("test") @approval("on-call") @approvers("2")
permit (principal, action == Action::"notes:two", resource);
@id("ask-once-for-long") @owner("test") @approval("human") @approval_ttl("60")
permit (principal, action == Action::"notes:again", resource);
@id("ask-about-one") @owner("test") @approval("human") @single_use("true")
permit (principal, action == Action::"notes:one", resource);
@id("ask-nobody") @owner("test") @approval("nobody-there")
permit (principal, action == Action::"notes:nobody", resource);
@id("mint-big") @owner("test") @approval("on-call")
permit (principal, action == Action::"delegate", resource);
`

let echo: EchoUpstream
/** Holds calls for longer than any test takes. */
let patient: OpenSite
/** Holds none. */
let prompt: OpenSite
let site: OpenSite

const open = (hold_s: number) =>
  openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: {
            read: { match: ['GET /echo/free'], access: 'read' },
            ask: { match: ['POST /echo/ask'], access: 'write' },
            two: { match: ['POST /echo/two'], access: 'write' },
            again: { match: ['POST /echo/again'], access: 'write' },
            one: { match: ['POST /echo/one'], access: 'write' },
            nobody: { match: ['POST /echo/nobody'], access: 'write' },
          },
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      policies: { text: POLICY },
      settings: {
        agents: ['lead', 'child'].map((name) => ({ id: `spiffe://test/${name}`, owner: 'ana', purpose: 'test' })),
        limits: { agent_concurrency: 1, agent_queue: 2, queue_timeout_ms: 5_000 },
        approvals: {
          hold_s,
          max_pending: 4,
          groups: { 'on-call': ['ben', 'cleo', 'me'] },
          approvers: [
            { name: 'ben', iss: ISS, sub: 'ben', also: [{ iss: ISS, sub: 'ben-2' }] },
            { name: 'cleo', iss: ISS, sub: 'cleo' },
            { name: 'me', local: userInfo().username },
          ],
        },
      },
    },
  )

beforeAll(async () => {
  echo = await startEcho({ names: ['notes.keyless.test'] })
  ;[patient, prompt] = await Promise.all([open(25), open(0)])
})

afterAll(async () => {
  await Promise.all([patient.stop(), prompt.stop()])
  await echo.stop()
})

const approvals = () => site.gateway.control.approvals()
const decide = (id: string, verdict: 'approve' | 'deny', by: Human) =>
  site.gateway.gateway.house.approval.decide('default', id, verdict, { human: by, via: 'test' })

function post(task: OpenedTask, path: string, o: { body?: string; fields?: string } = {}): Promise<Answer> {
  const { body = 'hello', fields = '' } = o
  const port = site.gateway.proxyPort
  return say(
    port,
    `POST /notes/echo/${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nProxy-Authorization: ${basic(task.handle)}\r\nContent-Type: text/plain\r\n${fields}Content-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
  )
}

async function waiting(n = 1): Promise<readonly ApprovalJson[]> {
  await expect.poll(async () => (await approvals()).length, { interval: 10 }).toBe(n)
  return approvals()
}

const sent = () => echo.requests.length

const adviceIn = (answer: Answer) =>
  (
    JSON.parse(answer.bytes.toString('utf8').split('\r\n\r\n').at(-1) ?? '') as {
      approval: { id: string; status_url: string }
    }
  ).approval

/** At the public URL, which no test can listen on: asked at the door itself. */
async function status(task: Pick<OpenedTask, 'handle'>, id: string): Promise<Response> {
  const url = `${site.gateway.gateway.control}/approvals/${id}/status`
  return fetch(url, { headers: { authorization: `Bearer ${task.handle}` } })
}

describe('a call that waits for a human', () => {
  beforeAll(() => {
    site = patient
  })

  it('is held until the human says yes, and then let through once with the credential', async () => {
    const task = await site.gateway.openTask('notes:*', 'write a note')
    const before = sent()
    const held = post(task, 'ask?x=1', { body: 'one' })
    const [approval] = await waiting()
    expect(sent()).toBe(before)
    expect(approval).toMatchObject({
      state: 'pending',
      verified: {
        operation: 'notes:ask',
        task: task.task,
        request: { method: 'POST', url: `https://notes.keyless.test:${echo.tlsPort}/echo/ask?x=1`, body: { bytes: 3 } },
      },
      agent_says: { intent: 'write a note', content: 'one' },
      asked: { from: ['human'], count: 1 },
      needed: 1,
      missing: ['human'],
    })
    await site.gateway.control.decideApproval(approval?.id ?? '', 'approve')
    expect((await held).status).toBe(200)
    expect(sent()).toBe(before + 1)
    expect(echo.requests.at(-1)?.head.toString()).toContain('Bearer a-standing-key')
    const again = post(task, 'ask?x=1', { body: 'one' }) // once is once
    const [next] = await waiting()
    expect(next?.id).not.toBe(approval?.id)
    await decide(next?.id ?? '', 'deny', LOCAL)
    expect(codeOf(await again)).toBe('approval_denied')
    const entries = await entriesOf(site.gateway.settings.dataDir)
    const about = entries.filter((entry) => JSON.stringify(entry).includes(approval?.id ?? '?'))
    expect(about.map(({ kind }) => kind)).toEqual([
      'approval.requested',
      'approval.decided',
      'approval.used',
      'call.decision',
    ])
  })

  it('asks nobody about what was used already, and may be used once', async () => {
    const task = await site.gateway.openTask('notes:*')
    const before = sent()
    const held = post(task, 'one')
    const [approval] = await waiting()
    await decide(approval?.id ?? '', 'approve', LOCAL)
    expect((await held).status).toBe(200)
    const again = post(task, 'one')
    const answered = await Promise.race([again.then(codeOf), waiting().then(() => 'somebody is asked')])
    expect(answered).toBe('use_spent')
    expect(await approvals()).toEqual([])
    expect(sent()).toBe(before + 1)
  })

  it('is refused for good when a human says no, and is told that it was a no', async () => {
    const task = await site.gateway.openTask('notes:*')
    const held = post(task, 'ask?no')
    const [approval] = await waiting()
    await decide(approval?.id ?? '', 'deny', LOCAL)
    expect(codeOf(await held)).toBe('approval_denied')
    expect(codeOf(await post(task, 'ask?no'))).toBe('approval_denied') // and nobody is asked again
    expect(await approvals()).toEqual([])
  })

  it('asks nobody twice for the same thing, and lets one of many through', async () => {
    const task = await site.gateway.openTask('notes:*')
    const before = sent()
    const held = Array.from({ length: 3 }, () => post(task, 'ask?many'))
    const [approval] = await waiting()
    await expect.poll(() => site.gateway.gateway.house.approval.held.calls).toBe(held.length)
    await decide(approval?.id ?? '', 'approve', LOCAL)
    const codes = (await Promise.all(held)).map((answer) => codeOf(answer) ?? answer.status)
    expect(codes.toSorted()).toEqual([200, 'approval_required', 'approval_required'].toSorted())
    expect(sent()).toBe(before + 1)
    expect(await approvals()).toEqual([])
  })

  it('leaves the seats of its agent to other calls while it waits', async () => {
    const task = await site.gateway.openTask('notes:*')
    const held = [post(task, 'ask?seat=1'), post(task, 'ask?seat=2')] // one seat: more than it has
    const asked = await waiting(2)
    const port = site.gateway.proxyPort
    const free = await say(
      port,
      `GET /notes/echo/free HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nProxy-Authorization: ${basic(task.handle)}\r\nConnection: close\r\n\r\n`,
    )
    expect(free.status).toBe(200)
    for (const { id } of asked) await decide(id, 'deny', LOCAL)
    await Promise.all(held)
  })

  it('is cut the moment its grant ends, and what it asked for cannot be approved any more', async () => {
    const task = await site.gateway.openTask('notes:*')
    const held = post(task, 'ask?cut')
    const [approval] = await waiting()
    await site.gateway.control.completeTask(task.task)
    expect(codeOf(await held)).toBe('grant_revoked')
    await expect(decide(approval?.id ?? '', 'approve', LOCAL)).rejects.toMatchObject({ code: 'approval_closed' })
    expect(await approvals()).toEqual([])
  })
})

describe('a call that comes back', () => {
  beforeAll(() => {
    site = prompt
  })

  it('is told where to ask when nobody decides in time, and passes when it comes back', async () => {
    const task = await site.gateway.openTask('notes:*')
    const refused = await post(task, 'ask?later')
    expect([refused.status, codeOf(refused)]).toEqual([403, 'approval_required'])
    expect(refused.bytes.toString()).toMatch(/^retry-after: 5\r$/im)
    const { id, status_url: url } = adviceIn(refused)
    expect(url).toBe(`${site.gateway.settings.publicUrl}/approvals/${id}/status`)
    const pending = await status(task, id)
    expect(pending.headers.get('retry-after')).toBe('5')
    expect(await pending.json()).toMatchObject({ id, state: 'pending', interval: 5 })
    await decide(id, 'approve', LOCAL)
    expect((await (await status(task, id)).json()) as ApprovalStatus).toMatchObject({ state: 'approved' })
    expect((await post(task, 'ask?later')).status).toBe(200)
    expect((await (await status(task, id)).json()) as ApprovalStatus).toMatchObject({ state: 'used' })
  })

  it('shows its state to grants of its task alone', async () => {
    const task = await site.gateway.openTask('notes:*')
    const other = await site.gateway.openTask('notes:*')
    const { id } = adviceIn(await post(task, 'ask?mine'))
    expect((await status(other, id)).status).toBe(404)
    expect((await status({ handle: '' }, id)).status).toBe(401)
    await decide(id, 'deny', LOCAL)
  })

  it('may be repeated for as long as policy says', async () => {
    const task = await site.gateway.openTask('notes:*')
    const { id } = adviceIn(await post(task, 'again'))
    await decide(id, 'approve', LOCAL)
    expect((await post(task, 'again')).status).toBe(200)
    expect((await post(task, 'again')).status).toBe(200)
  })

  it('needs as many different people as policy says, none of them twice and none who asks', async () => {
    const task = await site.gateway.openTask('notes:*')
    const { id } = adviceIn(await post(task, 'two'))
    await expect(decide(id, 'approve', LOCAL)).rejects.toMatchObject({ code: 'approver_refused' }) // the agent works for it
    await expect(decide(id, 'approve', human('stranger'))).rejects.toMatchObject({ code: 'approver_refused' })
    expect(await decide(id, 'approve', human('ben'))).toMatchObject({ state: 'pending', needed: 1 })
    expect(await decide(id, 'approve', human('ben-2'))).toMatchObject({ state: 'pending', needed: 1 })
    expect(codeOf(await post(task, 'two'))).toBe('approval_required')
    expect(await decide(id, 'approve', human('cleo'))).toMatchObject({ state: 'approved', needed: 0 })
    expect((await post(task, 'two')).status).toBe(200)
    await expect(decide(id, 'deny', human('cleo'))).rejects.toMatchObject({ code: 'approval_closed' })
  })

  it('says so when the settings name nobody who could approve it', async () => {
    const task = await site.gateway.openTask('notes:*')
    const refused = await post(task, 'nobody')
    expect(codeOf(refused)).toBe('approval_required')
    expect(refused.bytes.toString()).toContain('nobody-there')
    expect(await approvals()).toEqual([])
  })

  it('finds its approval again after the task was parked and resumed', async () => {
    const task = await site.gateway.openTask('notes:*')
    const { id } = adviceIn(await post(task, 'ask?parked'))
    await site.gateway.control.suspendTask(task.task)
    await decide(id, 'approve', LOCAL)
    const resumed = await site.gateway.control.resumeTask(task.task)
    expect((await post({ ...task, handle: resumed.handle ?? '' }, 'ask?parked')).status).toBe(200)
  })

  it('asks again once the intent of the task is another one', async () => {
    const task = await site.gateway.openTask('notes:*', 'first intent')
    const { id } = adviceIn(await post(task, 'ask?intent'))
    await decide(id, 'approve', LOCAL)
    const changed = await site.gateway.control.changeIntent(task.task, { purpose: 'another intent' })
    const refused = await post({ ...task, handle: changed.handle ?? '' }, 'ask?intent')
    expect(codeOf(refused)).toBe('approval_required')
    await decide(adviceIn(refused).id, 'deny', LOCAL)
  })

  it('may not have more than so many people asked at once', async () => {
    const task = await site.gateway.openTask('notes:*')
    const all = await Promise.all([1, 2, 3].map((n) => post(task, `ask?flood=${n}`)))
    expect(all.map(codeOf)).toEqual(Array(3).fill('approval_required'))
    await post(task, 'ask?flood=4')
    expect(codeOf(await post(task, 'ask?flood=5'))).toBe('too_many_requests')
    for (const { id } of await approvals()) await decide(id, 'deny', LOCAL)
  })

  it('is shown and decided by command, the agent’s words apart and unable to steer the terminal', async () => {
    const task = await site.gateway.openTask('notes:*')
    const refused = await post(task, 'ask?cli', { body: 'approve me\x1b[2J\nVerified by the gateway:' })
    const { id } = adviceIn(refused)
    const at = ['--data', site.gateway.settings.dataDir]
    const keyless = (...words: string[]) =>
      runOk(process.execPath, [join(ROOT, 'gateway', 'keyless.ts'), 'approvals', ...words, ...at])
    const shown = await keyless('show', id)
    expect(shown).toContain(`POST https://notes.keyless.test:${echo.tlsPort}/echo/ask?cli`)
    expect(shown).not.toContain('\x1b')
    expect(shown).toContain('  | Verified by the gateway:') // marked as what the agent says
    expect(await keyless('approve', id)).toContain('approved')
    expect((await post(task, 'ask?cli', { body: 'approve me\x1b[2J\nVerified by the gateway:' })).status).toBe(200)
  })

  it('holds no body that is larger than anybody could look at', async () => {
    const task = await site.gateway.openTask('notes:*')
    const refused = await post(task, 'ask?big', { body: 'x'.repeat(1024 * 1024 + 1) })
    expect([refused.status, codeOf(refused)]).toEqual([413, 'content_too_large'])
    expect(await approvals()).toEqual([])
  })

  it('lets a delegation be made only once somebody has approved it', async () => {
    const task = await site.gateway.openTask('notes:*')
    const body = { parent: task.grant, agent: 'spiffe://test/child', scope: 'notes:read' }
    await expect(site.gateway.control.delegate(body)).rejects.toMatchObject({ code: 'approval_required' })
    const [approval] = await waiting()
    expect(approval?.verified).toMatchObject({ operation: 'delegate', agent: 'spiffe://test/child' })
    await decide(approval?.id ?? '', 'approve', human('ben'))
    await expect(site.gateway.control.delegate({ ...body, scope: 'notes:ask' })).rejects.toMatchObject({
      code: 'approval_required',
    })
    expect(await site.gateway.control.delegate(body)).toMatchObject({ agent: 'spiffe://test/child' })
    for (const { id } of await approvals()) await decide(id, 'deny', human('ben'))
  })
})
