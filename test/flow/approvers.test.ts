/** People sign in with their own provider and decide on what agents ask for; whatever else opens a link decides nothing. */
import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { basic, codeOf, say } from '../invariant/agent.fixture.ts'
import { entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { type Accounts, startAccounts } from '../rig/accounts.ts'
import { type Browser, browser, type Page } from '../rig/browser.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { freePort } from '../rig/ports.ts'

const NASTY = '<img src=x onerror=alert(1)>"\'& \u202egnp.exe'
const BOT_TOKEN = 'pager-bot-token-0123456789abcdef'

let accounts: Accounts
let echo: EchoUpstream
let site: Site
let gateway: TestGateway
let base: string

beforeAll(async () => {
  const controlPort = await freePort()
  base = `http://127.0.0.1:${controlPort}`
  accounts = await startAccounts(`${base}/approve/signed-in`)
  echo = await startEcho({ names: ['mail.keyless.test'] })
  process.env.KEYLESS_TEST_SIGN_IN = accounts.clientSecret
  process.env.KEYLESS_TEST_BOT = BOT_TOKEN
  const iss = accounts.issuer
  site = await writeSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        {
          name: 'mail',
          operations: {
            'messages.read': { match: ['GET /stream'], access: 'read' },
            'messages.send': { match: ['POST /stream'], access: 'write' },
            'messages.list': { match: ['GET /list'], access: 'read' },
            'settings.change': { match: ['PUT /stream'], access: 'write' },
          },
        },
      ],
      credentials: { mail: 'a-standing-key-of-the-mail-service' },
      policies: {
        text: `@id("sending-is-approved") @owner("security") @approval("on-call")
          permit (principal is Agent, action == Action::"mail:messages.send", resource);
          @id("leads-give-access") @owner("security")
          permit (principal is Agent, action == Action::"mint", resource is Service)
          when { context.human_iss == "${iss}" && context.ttl_s <= 600 };`,
      },
      settings: {
        public_url: base,
        // Alternatives are told to an agent ten times a second at most.
        agents: ['mail', 'refused'].map((name) => ({ id: name, owner: 'ana', purpose: 'mail' })),
        approvals: {
          hold_s: 0,
          approvers: [
            { name: 'bea', iss, sub: 'bea' },
            { name: 'cem', iss, sub: 'cem' },
            { name: 'pager-bot', iss: 'https://bots.acme.test', sub: 'pager' },
          ],
          groups: { 'on-call': ['bea', 'pager-bot'], leads: ['cem'] },
          access: ['leads'],
          tokens: { 'pager-bot': { env: 'KEYLESS_TEST_BOT' } },
          sign_in: {
            issuer: iss,
            client_id: 'keyless',
            client_secret: { env: 'KEYLESS_TEST_SIGN_IN' },
            addresses: ['127.0.0.1/32'],
          },
        },
      },
    },
  )
  gateway = await startGateway(site.yaml, { controlPort })
})
afterAll(async () => {
  await gateway?.stop()
  await Promise.all([accounts?.stop(), echo?.stop(), site?.remove()])
  delete process.env.KEYLESS_TEST_SIGN_IN
  delete process.env.KEYLESS_TEST_BOT
})

interface Refusal {
  readonly code: string
  readonly remedy: string
  readonly approval?: { readonly id: string; readonly status_url: string; readonly interval: number }
  readonly instead?: readonly { readonly operation: string; readonly request: string }[]
  readonly how_to_ask?: { readonly method: string; readonly url: string; readonly body: Record<string, string> }
  readonly instance: string
}

/** `POST` sends: policy wants that approved. */
async function call(handle: string, method: string, path = '/stream?bytes=2', body = '') {
  const head = `${method} /mail${path} HTTP/1.1\r\nHost: 127.0.0.1:${gateway.proxyPort}\r\nConnection: close\r\n`
  const fields = `Proxy-Authorization: ${basic(handle)}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`
  const answer = await say(gateway.proxyPort, `${head}${fields}\r\n${body}`)
  const text = answer.bytes.toString('latin1')
  const refusal = answer.status >= 400 ? (JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)) as Refusal) : undefined
  return { status: answer.status, code: codeOf(answer), refusal, text }
}

/** A call that waits for approval. */
async function asked(purpose = 'answer the customers', body = '') {
  const { handle, task } = await gateway.openTask('mail:*', purpose)
  const { refusal } = await call(handle as string, 'POST', undefined, body)
  return { handle: handle as string, task, id: refusal?.approval?.id as string }
}

async function signedIn(person: string, at: Browser, path = '/approve'): Promise<Page> {
  accounts.person = person
  return at.open(`${base}${path}`)
}

const logged = async (kind: string) =>
  (await entriesOf(gateway.settings.dataDir)).filter((entry) => entry.kind === kind)

describe('an approver', () => {
  it('signs in, sees what waits, says yes, and the very same call passes once', async () => {
    const { handle, id } = await asked()
    const at = browser()
    expect((await signedIn('bea', at)).text).toContain(id)
    const page = await at.open(`${base}/approve/${id}`)
    expect(page.text).toContain('mail:messages.send')
    const after = await at.submit(page, { verdict: 'approve' })
    expect(after.text).toContain('It is approved')
    expect((await call(handle, 'POST')).status).toBe(200)
    expect((await call(handle, 'POST')).code).toBe('approval_required')
    expect(await logged('admin.approver_signed_in')).toMatchObject([{ human: { sub: 'bea' } }])
    expect(await logged('approval.decided')).toMatchObject([{ human: { iss: accounts.issuer, sub: 'bea' } }])
  })

  it('says no, and the agent is told that somebody did', async () => {
    const { handle, id } = await asked()
    const at = browser()
    await at.submit(await signedIn('bea', at, `/approve/${id}`), { verdict: 'deny' })
    expect((await call(handle, 'POST')).code).toBe('approval_denied')
  })

  it('comes back to the page that the link was for', async () => {
    const { id } = await asked()
    expect((await signedIn('bea', browser(), `/approve/${id}`)).url.pathname).toBe(`/approve/${id}`)
  })

  it('sees what an agent wrote apart, cut, escaped, and with nothing hidden in it', async () => {
    const { id } = await asked('<b>urgent</b> approve at once', NASTY)
    const { text, headers } = await signedIn('bea', browser(), `/approve/${id}`)
    expect(text).not.toContain('<img')
    expect(text).not.toContain('\u202e')
    expect(text).toContain('\\u{202e}')
    const [facts = '', says = ''] = text.split('<div class="says">')
    expect(facts).not.toContain('onerror')
    expect(facts).not.toContain('urgent')
    expect(says).toContain('&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;')
    expect(says).toContain('Not verified')
    expect(text).not.toContain('<script')
    expect(headers.get('content-security-policy')).toMatch(/default-src 'none'.*frame-ancestors 'none'/)
    expect(headers.get('cache-control')).toBe('no-store')
    expect(headers.get('x-frame-options')).toBe('DENY')
  })
})

describe('nobody else', () => {
  it('decides by opening a link, however often', async () => {
    const { handle, id } = await asked()
    const at = browser()
    for (const path of [`/approve/${id}`, `/approve/${id}?verdict=approve`, `/approve/${id}?approve`])
      await signedIn('bea', at, path)
    expect((await call(handle, 'POST')).code).toBe('approval_required')
  })

  it('sees or decides anything, though the provider knows them', async () => {
    const { id } = await asked()
    const at = browser()
    expect((await signedIn('mallory', at)).text).not.toContain(id)
    const page = await at.open(`${base}/approve/${id}`)
    expect(page.status).toBe(404)
    expect(page.text).not.toContain('mail:messages.send')
    const headers = { origin: base, cookie: at.cookies(base), 'content-type': 'application/x-www-form-urlencoded' }
    const forced = await fetch(`${base}/approve/${id}`, { method: 'POST', headers, body: 'verdict=approve' })
    expect(forced.status).toBe(404)
  })

  it('decides from another page, without the proof, or with that of another approval', async () => {
    const [one, other] = [await asked(), await asked('something else')]
    const at = browser()
    const page = await signedIn('bea', at, `/approve/${one.id}`)
    const proof = /name="proof" value="([^"]*)"/.exec(page.text)?.[1] ?? ''
    const post = (id: string, body: object, headers: object) =>
      fetch(`${base}/approve/${id}`, {
        method: 'POST',
        redirect: 'manual',
        headers: { cookie: at.cookies(base), ...headers },
        body: new URLSearchParams({ verdict: 'approve', ...body }),
      })
    expect((await post(one.id, { proof }, { origin: 'https://evil.test' })).status).toBe(403)
    expect((await post(one.id, { proof }, { 'sec-fetch-site': 'cross-site' })).status).toBe(403)
    expect((await post(one.id, {}, { origin: base })).status).toBe(403)
    expect((await post(other.id, { proof }, { origin: base })).status).toBe(403)
    expect((await post(one.id, { proof }, { origin: base, cookie: '' })).status).toBe(401)
    expect((await call(one.handle, 'POST')).code).toBe('approval_required')
    expect((await post(one.id, { proof }, { origin: base })).status).toBe(303)
  })

  it('signs in with an answer that was meant for another browser, or twice with one', async () => {
    const [victim, attacker] = [browser(), browser()]
    accounts.person = 'bea'
    const stopped = await attacker.open(`${base}/approve`, (url) => url.pathname === '/approve/signed-in')
    expect((await victim.open(stopped.url)).status).toBe(400)
    expect((await attacker.open(stopped.url)).text).toContain('You are bea')
    expect((await attacker.open(stopped.url)).status).toBe(400)
  })

  it('makes up a session', async () => {
    const cookie =
      'keyless-approver=eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA'
    const answer = await fetch(`${base}/approve`, { headers: { cookie }, redirect: 'manual' })
    expect(answer.status).toBe(303)
    expect(answer.headers.get('location')).toMatch(accounts.issuer)
  })

  it('is signed in after signing out', async () => {
    const at = browser()
    const page = await signedIn('bea', at)
    expect((await at.submit(page)).text).toContain('Signed out')
    const answer = await fetch(`${base}/approve`, { headers: { cookie: at.cookies(base) }, redirect: 'manual' })
    expect(answer.status).toBe(303)
  })
})

describe('a program of an approver', () => {
  const asBot = (path: string, init: RequestInit = {}) =>
    fetch(`${base}${path}`, { ...init, headers: { ...init.headers, authorization: `Bearer ${BOT_TOKEN}` } })
  const verdict = (said: string) => ({
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ verdict: said }),
  })

  it('sees what waits for it, and decides by its token', async () => {
    const { handle, id } = await asked()
    const listed = (await (await asBot('/approvals')).json()) as { approvals: { id: string }[] }
    expect(listed.approvals.map((one) => one.id)).toContain(id)
    expect((await asBot(`/approvals/${id}/decide`, verdict('approve'))).status).toBe(200)
    expect((await call(handle, 'POST')).status).toBe(200)
    expect((await logged('approval.decided')).at(-1)).toMatchObject({
      human: { sub: 'pager' },
      facts: { via: 'token' },
    })
  })

  it('is nobody without it, and sees no request for access that it may not grant', async () => {
    const { id } = await asked()
    for (const authorization of ['', 'Bearer pager-bot-token-0123456789abcdeg', `Basic ${BOT_TOKEN}`])
      expect((await fetch(`${base}/approvals/${id}`, { headers: { authorization } })).status).toBe(401)
    const { handle } = await asked()
    const { id: wanted } = await requested(handle, { scope: 'mail:settings.change' })
    expect(await (await asBot('/access-requests')).json()).toEqual({ requests: [] })
    expect((await asBot(`/access-requests/${wanted}`)).status).toBe(404)
    expect((await asBot(`/access-requests/${wanted}/decision`, verdict('grant'))).status).toBe(403)
  })

  it('leads a person to the page', async () => {
    const { id } = await asked()
    const answer = await fetch(`${base}/approvals/${id}`, { headers: { accept: 'text/html,*/*' }, redirect: 'manual' })
    expect(answer.headers.get('location')).toBe(`/approve/${id}`)
  })
})

interface Status {
  readonly id: string
  readonly state: string
  readonly code?: string
  readonly grant_url?: string
  readonly handle?: string
  readonly scope?: string
  readonly expires_at?: number
}

async function tell(handle: string, path: string, body?: object): Promise<Status & { readonly status: number }> {
  const answer = await fetch(path.startsWith('http') ? path : `${base}${path}`, {
    ...(body && { method: 'POST', body: JSON.stringify(body) }),
    headers: { authorization: `Bearer ${handle}`, ...(body && { 'content-type': 'application/json' }) },
  })
  return { ...((await answer.json()) as Status), status: answer.status }
}

const requested = (handle: string, wanted: object) =>
  tell(handle, '/access-requests', { reason: 'the customer wants it', ...wanted })

describe('an agent that is refused', () => {
  it('is told what it may do instead and how to ask, and nothing of policies', async () => {
    const scope = 'mail:messages.read mail:messages.list mail:messages.send'
    const { handle } = await gateway.control.openTask({ scope, purpose: 'be refused', agent: 'refused' })
    const { refusal, text } = await call(handle as string, 'PUT')
    expect(refusal).toMatchObject({
      code: 'scope_exceeded',
      remedy: 'ask_grantor',
      instead: [
        { operation: 'mail:messages.read', access: 'read', request: 'GET /stream' },
        { operation: 'mail:messages.list', access: 'read', request: 'GET /list' },
        { operation: 'mail:messages.send', access: 'write', request: 'POST /stream', needs_approval: true },
      ],
      how_to_ask: {
        method: 'POST',
        url: `${base}/access-requests`,
        body: { scope: 'mail:settings.change', event: refusal?.instance },
      },
    })
    expect(text).not.toMatch(/sending-is-approved|read-and-write|permit|security/)
  })

  it('asks as it was told; a human grants it, and the new grant does it in the name of who gave it', async () => {
    const { handle, task } = await gateway.openTask('mail:messages.read')
    const { refusal } = await call(handle as string, 'PUT')
    const { url = '', body } = refusal?.how_to_ask ?? {}
    const { id, status } = await tell(handle as string, url, { ...body, reason: 'the customer wants it', ttl_s: 600 })
    expect(status).toBe(202)
    expect(await tell(handle as string, `/access-requests/${id}/grant`, {})).toMatchObject({
      code: 'approval_required',
    })
    const at = browser()
    const page = await signedIn('cem', at, `/approve/access/${id}`)
    expect(page.text).toContain('mail:settings.change')
    expect((await at.submit(page, { verdict: 'grant' })).text).toContain('It is granted')
    const { grant_url: grantUrl } = await tell(handle as string, `/access-requests/${id}/status`)
    const granted = await tell(handle as string, grantUrl as string, {})
    expect(granted).toMatchObject({ status: 201, scope: 'mail:settings.change', task, human: 'cem' })
    expect((await call(granted.handle as string, 'PUT')).status).toBe(200)
    expect((await call(granted.handle as string, 'GET')).code).toBe('scope_exceeded')
    expect((await tell(handle as string, grantUrl as string, {})).code).toBe('approval_closed')
    await gateway.control.completeTask(task, 'completed')
    expect((await call(granted.handle as string, 'PUT')).code).toBe('grant_revoked')
    expect((await logged('admin.access_decided')).at(-1)).toMatchObject({
      human: { sub: 'cem' },
      facts: { verdict: 'grant', via: 'page', task },
    })
  })

  it('gets what a human made of it, and not what it asked for', async () => {
    const { handle } = await gateway.openTask('mail:messages.read')
    const { id } = await requested(handle as string, { scope: 'mail:*' })
    const at = browser()
    const page = await signedIn('cem', at, `/approve/access/${id}`)
    const edited = await at.submit(page, { verdict: 'edit', scope: 'mail:messages.list', ttl_s: '60' })
    expect(edited.text).toContain('The agent asked for')
    const stale = await at.submit(page, { verdict: 'grant' })
    expect(stale.status).toBe(403) // what was shown is not what would be granted
    await at.submit(edited, { verdict: 'grant' })
    const granted = await tell(handle as string, `/access-requests/${id}/grant`, {})
    expect(granted.scope).toBe('mail:messages.list')
    expect((granted.expires_at as number) - Date.now() / 1000).toBeLessThanOrEqual(60)
  })

  it('gets nothing that policy does not let this human give', async () => {
    const { handle } = await gateway.openTask('mail:messages.read')
    const { id } = await requested(handle as string, { scope: 'mail:settings.change', ttl_s: 900 })
    const at = browser()
    const page = await at.submit(await signedIn('cem', at, `/approve/access/${id}`), { verdict: 'grant' })
    expect(page).toMatchObject({ status: 403 })
    expect(page.text).toContain('not allowed by policy for this agent and human')
    expect(await tell(handle as string, `/access-requests/${id}/status`)).toMatchObject({ state: 'pending' })
  })

  it('loses it with the grant that it asked under, whatever becomes of the task', async () => {
    const agents = ['mail', 'refused'] as const
    const { handle: parent, grant } = await gateway.control.openTask({
      scope: 'mail:*',
      purpose: 'work',
      agent: agents[0],
    })
    const child = await gateway.control.delegate({ parent: grant, agent: agents[1], scope: 'mail:messages.read' })
    const { id } = await requested(child.handle as string, { scope: 'mail:settings.change' })
    await gateway.control.decideAccess(id, 'grant')
    const granted = await tell(child.handle as string, `/access-requests/${id}/grant`, {})
    expect(granted).toMatchObject({ status: 201, agent: 'refused' })
    expect((await call(granted.handle as string, 'PUT')).status).toBe(200)
    await gateway.control.revoke(child.grant)
    expect((await call(granted.handle as string, 'PUT')).code).toBe('grant_revoked')
    expect((await call(parent as string, 'PUT')).status).toBe(200)
  })

  it('loses what another human gave when the human that it works for is revoked', async () => {
    const { handle } = await gateway.openTask('mail:messages.read')
    const { id } = await requested(handle as string, { scope: 'mail:settings.change', ttl_s: 60 })
    const at = browser()
    await at.submit(await signedIn('cem', at, `/approve/access/${id}`), { verdict: 'grant' })
    const granted = await tell(handle as string, `/access-requests/${id}/grant`, {})
    expect((await call(granted.handle as string, 'PUT')).status).toBe(200)
    const { human } = await gateway.control.accessRequest((await requested(handle as string, { scope: 'mail:*' })).id)
    await gateway.control.endAccess({ target: { human }, reason: 'left' })
    expect((await call(granted.handle as string, 'PUT')).code).toBe('grant_revoked')
  })

  it('is denied, once and for all', async () => {
    const { handle } = await gateway.openTask('mail:messages.read')
    const { id } = await requested(handle as string, { scope: 'mail:settings.change' })
    const at = browser()
    await at.submit(await signedIn('cem', at, `/approve/access/${id}`), { verdict: 'deny' })
    expect(await tell(handle as string, `/access-requests/${id}/grant`, {})).toMatchObject({ code: 'approval_denied' })
  })

  it('is heard at the machine too, by the human that it works for', async () => {
    const { handle } = await gateway.openTask('mail:messages.read')
    const { id } = await requested(handle as string, { scope: 'mail:*', reason: '<i>\u001b[2J</i>' })
    expect((await gateway.control.accessRequests()).map((one) => one.id)).toContain(id)
    const edited = await gateway.control.editAccess(id, { scope: 'mail:messages.list' })
    expect(edited).toMatchObject({ scope: 'mail:messages.list', asked: { scope: 'mail:*' } })
    expect(await gateway.control.decideAccess(id, 'grant')).toMatchObject({ state: 'granted' })
    const granted = await tell(handle as string, `/access-requests/${id}/grant`, {})
    expect((await call(granted.handle as string, 'GET', '/list')).status).not.toBe(403)
  })

  it('shares nothing of it with agents of other tasks, and drowns nobody in requests', async () => {
    const { handle } = await gateway.openTask('mail:messages.read')
    const { handle: other } = await gateway.openTask('mail:messages.read')
    const { id } = await requested(handle as string, { scope: 'mail:settings.change' })
    expect((await requested(handle as string, { scope: 'mail:settings.change' })).id).toBe(id)
    expect((await tell(other as string, `/access-requests/${id}/status`)).code).toBe('approval_unknown')
    expect((await tell(other as string, `/access-requests/${id}/grant`, {})).code).toBe('approval_unknown')
    const more = []
    for (let ttl = 1; ttl <= 8; ttl++)
      more.push((await requested(handle as string, { scope: 'mail:settings.change', ttl_s: ttl })).code)
    expect(more.filter((code) => code === 'too_many_requests').length).toBeGreaterThanOrEqual(3)
    expect((await requested(handle as string, { scope: 'nothing:known' })).code).toBe('invalid_scope')
    expect((await tell('', '/access-requests', { scope: 'mail:*', reason: 'x' })).status).toBe(401)
  })
})

describe('a person in a real browser', () => {
  const executablePath = '/usr/bin/chromium'
  let chrome: Awaited<ReturnType<typeof chromium.launch>> | undefined
  beforeAll(async () => {
    // CI installs it (.ci/run).
    if (!existsSync(executablePath) && !process.env.CI) return
    chrome = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })
  }, 20_000)
  afterAll(() => chrome?.close())

  it('reads what is there, runs nothing of what the agent wrote, and decides by a button', async ({ skip }) => {
    if (chrome === undefined) return skip('this machine has no Chromium')
    const owned = `<script>document.title='owned'</script><img src=x onerror="document.title='owned'">${NASTY}`
    const { handle, id } = await asked('clear the outbox', owned)
    const page = await (await chrome.newContext()).newPage()
    accounts.person = 'bea'
    await page.goto(`${base}/approve/${id}`)
    expect(await page.locator('.says').textContent()).toContain("<script>document.title='owned'</script>")
    expect(await page.title()).toBe('Keyless')
    expect(await page.locator('script, img, iframe').count()).toBe(0)
    await page.getByRole('button', { name: 'Approve' }).click()
    await page.getByText('It is approved').waitFor()
    await page.goBack()
    await page.reload()
    expect(await page.getByRole('button', { name: 'Approve' }).count()).toBe(0)
    expect((await call(handle, 'POST', undefined, owned)).status).toBe(200)
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByText('Signed out').waitFor()
  }, 20_000)

  it('cannot be made to decide in a frame of another page', async ({ skip }) => {
    if (chrome === undefined) return skip('this machine has no Chromium')
    const { handle, id } = await asked()
    const page = await (await chrome.newContext()).newPage()
    accounts.person = 'bea'
    await page.goto(`${base}/approve/${id}`)
    const proof = (await page.locator('form input[name=proof]').first().getAttribute('value')) ?? ''
    const evil = `<iframe src="${base}/approve/${id}"></iframe><form method="post" action="${base}/approve/${id}"><input name="proof" value="${proof}"><button name="verdict" value="approve">win</button></form>`
    await page.route('http://evil.test/', (route) => route.fulfill({ contentType: 'text/html', body: evil }))
    await page.goto('http://evil.test/')
    const [framed] = page.frames().filter((frame) => frame !== page.mainFrame())
    expect(await framed?.locator('button').count()).toBe(0)
    await page.getByRole('button', { name: 'win' }).click()
    await page.getByText('Not done').waitFor()
    expect((await call(handle, 'POST')).code).toBe('approval_required')
  }, 20_000)
})
