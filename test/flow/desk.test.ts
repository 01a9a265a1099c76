/** An agent that only has its proxy asks the gateway itself: who it is, how its approvals stand, and for more access. */
import { writeFile } from 'node:fs/promises'
import { hostname, userInfo } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isolationProblem } from '../../gateway/cli/run/isolate-check.ts'
import { type Answer, basic, codeOf, forward, openTunnel, reverse, say } from '../invariant/agent.fixture.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { ROOT, run } from '../rig/process.ts'

const LOCAL = { iss: `local:${hostname()}`, sub: userInfo().username }
const DESK = 'http://keyless.internal'
const POLICY = `
@id("anything") @owner("test")
permit (principal, action, resource) unless { action == Action::"notes:ask" };
@id("ask-the-human") @owner("test") @approval("human")
permit (principal, action == Action::"notes:ask", resource);
`

const problem = await isolationProblem()

let echo: EchoUpstream
let site: OpenSite

beforeAll(async () => {
  echo = await startEcho({ names: ['notes.keyless.test'] })
  site = await openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: {
            read: { match: ['GET /echo/free'], access: 'read' },
            ask: { match: ['POST /echo/ask'], access: 'write' },
          },
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      policies: { text: POLICY, only: true },
      settings: { approvals: { hold_s: 0 }, upstream: { hosts: { 'keyless.internal': '127.0.0.1' } } },
    },
  )
})

afterAll(async () => {
  await site.stop()
  await echo.stop()
})

const bodyOf = ({ bytes }: Answer) => bytes.toString('utf8').split('\r\n\r\n').slice(1).join('\r\n\r\n')
const jsonOf = (answer: Answer) => JSON.parse(bodyOf(answer)) as Record<string, unknown>
const port = () => site.gateway.proxyPort
const house = () => site.gateway.gateway.house

const desk = (handle: string, path: string, o: { method?: string; fields?: string } = {}) =>
  forward(port(), handle, { url: `${DESK}${path}`, ...o })

function post(handle: string, path: string, body: object): Promise<Answer> {
  const text = JSON.stringify(body)
  return say(
    port(),
    `POST ${DESK}${path} HTTP/1.1\r\nHost: keyless.internal\r\nProxy-Authorization: ${basic(handle)}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`,
  )
}

describe('the desk inside the proxy', () => {
  it('says in plain words who the agent is, what it may do and how to ask', async () => {
    const task = await site.gateway.openTask('notes:read', 'look around')
    const answer = await desk(task.handle, '/')
    expect(answer.status).toBe(200)
    const words = bodyOf(answer)
    expect(words).toContain(`You are ${task.agent}, and act for ${LOCAL.sub}`)
    expect(words).toContain('"notes:read"')
    expect(words).toContain(`POST ${DESK}/access-requests`)
    expect(words).toContain(task.task)
    expect(words).not.toContain(task.handle)
  })

  it('tells how an approval stands by the grant of the connection, and to its own task alone', async () => {
    const task = await site.gateway.openTask('notes:*')
    const other = await site.gateway.openTask('notes:*')
    const url = `https://notes.keyless.test:${echo.tlsPort}/echo/ask`
    const refused = await forward(port(), task.handle, { method: 'POST', url, fields: 'Content-Length: 0\r\n' })
    const { approval } = jsonOf(refused) as { approval: { id: string; status_url: string } }
    expect(approval.status_url).toBe(`${DESK}/approvals/${approval.id}/status`)
    const path = new URL(approval.status_url).pathname
    const pending = await desk(task.handle, path)
    expect([pending.status, jsonOf(pending).state]).toEqual([200, 'pending'])
    expect(pending.bytes.toString()).toMatch(/^retry-after: 5\r$/im)
    expect(codeOf(await desk(other.handle, path))).toBe('approval_unknown')
    await house().approval.decide('default', approval.id, 'approve', { human: LOCAL, via: 'test' })
    expect(jsonOf(await desk(task.handle, path)).state).toBe('approved')
    const passed = await forward(port(), task.handle, { method: 'POST', url, fields: 'Content-Length: 0\r\n' })
    expect(passed.status).toBe(200)
  })

  it('sends agents that came by a base URL to the control door, where they present what they hold', async () => {
    const task = await site.gateway.openTask('notes:*')
    const refused = await reverse(port(), task.handle, {
      method: 'POST',
      path: '/notes/echo/ask?base',
      fields: `Authorization: Bearer ${task.handle}\r\nContent-Length: 0\r\n`,
    })
    const { approval } = jsonOf(refused) as { approval: { status_url: string } }
    expect(approval.status_url).toMatch(new RegExp(`^${site.gateway.settings.publicUrl}/approvals/`))
  })

  it('takes a request for access, and hands over what a human granted', async () => {
    const task = await site.gateway.openTask('notes:read')
    const url = `https://notes.keyless.test:${echo.tlsPort}/echo/ask`
    const refused = jsonOf(
      await forward(port(), task.handle, { method: 'POST', url, fields: 'Content-Length: 0\r\n' }),
    ) as {
      how_to_ask: { url: string; body: object }
    }
    expect(refused.how_to_ask.url).toBe(`${DESK}/access-requests`)
    const asked = await post(task.handle, '/access-requests', { ...refused.how_to_ask.body, reason: 'to say it' })
    expect(asked.status).toBe(202)
    const { id, status_url: statusUrl } = jsonOf(asked) as { id: string; status_url: string }
    expect(statusUrl).toBe(`${DESK}/access-requests/${id}/status`)
    await house().approvers.access.requests.grant(id, { human: LOCAL, via: 'test' })
    const { grant_url: grantUrl = '' } = jsonOf(await desk(task.handle, `/access-requests/${id}/status`)) as {
      grant_url?: string
    }
    const granted = await desk(task.handle, new URL(grantUrl).pathname, { method: 'POST' })
    expect([granted.status, jsonOf(granted).scope]).toEqual([201, 'notes:ask'])
    const kinds = (await entriesOf(site.gateway.settings.dataDir)).map(({ kind }) => kind)
    expect(kinds).toContain('approval.access_requested')
  })

  it('speaks HTTP/2 in a tunnel, and tells a WebSocket no', async () => {
    const task = await site.gateway.openTask('notes:read')
    const proxy = `http://task:${task.handle}@127.0.0.1:${port()}`
    const plain = ['-sSk', '-x', proxy]
    const { stdout } = await run('curl', [...plain, '--http2', '-w', ' %{http_version}', 'https://keyless.internal/'])
    expect(stdout).toContain(task.task)
    expect(stdout).toMatch(/ 2$/)
    const upgrade = [
      'connection: Upgrade',
      'upgrade: websocket',
      'sec-websocket-version: 13',
      `sec-websocket-key: ${'A'.repeat(22)}==`,
    ]
    const refused = await run('curl', [
      ...[...plain, '--max-time', '3', '-w', ' %{http_code}'],
      ...[...upgrade.flatMap((field) => ['-H', field]), `${DESK}/`],
    ])
    expect(refused.stdout).toContain('upgrade_refused')
  })

  it('is found through a tunnel as well', async () => {
    const task = await site.gateway.openTask('notes:read')
    const tunnel = await openTunnel(port(), {
      handle: task.handle,
      authority: 'keyless.internal:443',
      ca: house().authority.caPem,
    })
    expect((await tunnel.ask('GET', '/')).bytes.toString()).toContain(task.task)
    tunnel.close()
  })
})

describe('what nobody gets from the desk', () => {
  it.each([
    ['no grant', 'kh_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 'grant_invalid'],
    ['a grant that has ended', '', 'grant_revoked'],
  ])('answers nothing to %s, and records that it was asked', async (_, handle, code) => {
    const task = await site.gateway.openTask('notes:read')
    await site.gateway.control.completeTask(task.task)
    expect(codeOf(await desk(handle || task.handle, '/'))).toBe(code)
    const last = (await entriesOf(site.gateway.settings.dataDir)).findLast(({ kind }) => kind === 'call.decision')
    expect(JSON.stringify(last)).toContain('keyless.internal')
  })

  it('takes nothing from a page in the browser of an agent', async () => {
    const task = await site.gateway.openTask('notes:read')
    for (const fields of ['Origin: http://evil.test\r\n', 'Sec-Fetch-Site: cross-site\r\n'])
      expect(codeOf(await desk(task.handle, '/access-requests', { method: 'POST', fields }))).toBe('policy_denied')
  })

  it('has no route but its own, whatever is named', async () => {
    const task = await site.gateway.openTask('notes:read')
    for (const path of ['/tasks', '//keyless.internal/', '/approvals', '/metrics', '/openapi.json', '/status'])
      expect(codeOf(await desk(task.handle, path)), path).toBe('route_unknown')
    expect(codeOf(await desk(task.handle, '/', { method: 'DELETE' }))).toBe('route_unknown')
  })

  it('is told whose call it is by nothing that an agent sends', async () => {
    const [task, other] = [await site.gateway.openTask('notes:read'), await site.gateway.openTask('notes:read')]
    const fields = `keyless-call: 1\r\nAuthorization: Bearer ${other.handle}\r\n`
    const words = bodyOf(await desk(task.handle, '/', { fields }))
    expect(words).toContain(task.task)
    expect(words).not.toContain(other.task)
  })

  it('is never an upstream, even where a name server knows the name and policy allows everything', async () => {
    const task = await site.gateway.openTask('notes:*')
    const before = echo.requests.length
    await desk(task.handle, '/echo/free')
    const elsewhere = await forward(port(), task.handle, { url: `http://keyless.internal:${echo.tlsPort}/echo/free` })
    expect([404, 403, 421]).toContain(elsewhere.status)
    expect(codeOf(elsewhere)).toBe('route_unknown')
    expect(echo.requests.length).toBe(before)
    expect(() =>
      house().catalogue.locate({
        ...{ mode: 'forward', method: 'GET', scheme: 'http', host: 'keyless.internal', port: 80, rawPath: '/' },
        ...{ rawHeaders: [], hostHeader: undefined },
      }),
    ).toThrow(expect.objectContaining({ code: 'target_mismatch' }))
  })
})

describe('a command under keyless run', () => {
  it('asks the desk with a plain fetch, and holds no grant for that', async () => {
    const program = join(site.gateway.dir, 'ask.mjs')
    await writeFile(
      program,
      `const url = 'https://notes.keyless.test:${echo.tlsPort}/echo/ask?run'
const refused = await (await fetch(url, { method: 'POST' })).json()
const stands = await (await fetch(refused.approval.status_url)).json()
const more = await fetch('${DESK}/access-requests', {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ scope: 'notes:ask', reason: 'the task needs it' }),
})
const words = await (await fetch('${DESK}/')).text()
console.log(JSON.stringify({ stands, more: more.status, words, grant: /kh_[\\w-]{43}/.test(JSON.stringify(process.env)) }))
`,
    )
    const { stdout, stderr, code } = await run(process.execPath, [
      join(ROOT, 'gateway', 'keyless.ts'),
      ...['run', '--config', join(site.gateway.dir, 'keyless.yaml'), '--task', 'say something', '--'],
      ...['node', program],
    ])
    expect(code, stderr).toBe(0)
    const told = JSON.parse(stdout) as { stands: { state: string }; more: number; words: string; grant: boolean }
    expect(told).toMatchObject({ stands: { state: 'pending' }, more: 202, grant: false })
    expect(told.words).toContain('say something')
  })
})

// In CI a machine that cannot isolate fails: nothing is left out there.
describe.runIf(process.env.CI !== undefined || problem === undefined)('a command that is isolated', () => {
  it('asks the desk by its name, with a client that knows of no proxy', async () => {
    const { stdout, stderr, code } = await run(process.execPath, [
      join(ROOT, 'gateway', 'keyless.ts'),
      ...['run', '--isolate', '--config', join(site.gateway.dir, 'keyless.yaml'), '--task', 'look from inside', '--'],
      ...['curl', '-sS', '--noproxy', '*', `${DESK}/`],
    ])
    expect(code, stderr).toBe(0)
    expect(stdout).toContain('look from inside')
  })
})
