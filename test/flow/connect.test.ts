/** A person connects a service with their own account, and agents that work for them use it; nobody else does. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { codeOf, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { type Accounts, SCOPES, startAccounts } from '../rig/accounts.ts'
import { type Browser, browser, type Page } from '../rig/browser.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { freePort } from '../rig/ports.ts'

let accounts: Accounts
let echo: EchoUpstream
let site: Site
let gateway: TestGateway

beforeAll(async () => {
  const controlPort = await freePort()
  const base = `http://127.0.0.1:${controlPort}`
  accounts = await startAccounts(`${base}/connect/callback`)
  echo = await startEcho({ names: ['mail.keyless.test', 'team.keyless.test'] })
  const server = {
    provider: 'oauth_refresh_token',
    token_url: `${accounts.issuer}/token`,
    authorization_url: `${accounts.issuer}/auth`,
    revocation_url: `${accounts.issuer}/token/revocation`,
    device_url: `${accounts.issuer}/device/auth`,
    issuer: accounts.issuer,
    client_id: 'keyless',
    client_auth: 'client_secret_basic',
    client_secret: { env: 'KEYLESS_TEST_ACCOUNTS' },
    scope: SCOPES,
    revoke_access: true,
    addresses: ['127.0.0.1/32'],
  }
  process.env.KEYLESS_TEST_ACCOUNTS = accounts.clientSecret
  const operations = { read: { match: ['GET /stream'], access: 'read' } } as const
  site = await writeSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: ['mail', 'team'].map((name) => ({ name, operations: operations as never })),
      credentials: {
        mail: server,
        team: {
          ...server,
          revoke_access: undefined,
          per: 'gateway',
          client_id: 'public',
          client_auth: 'none',
          client_secret: undefined,
        },
        metadata: { ...server, token_url: undefined, authorization_url: undefined },
      },
      settings: { public_url: base },
    },
  )
  gateway = await startGateway(site.yaml, { controlPort })
})
afterAll(async () => {
  await gateway?.stop()
  await Promise.all([accounts?.stop(), echo?.stop(), site?.remove()])
  delete process.env.KEYLESS_TEST_ACCOUNTS
})

/** The person opens the link and goes through with it. */
async function walk(link: string, person: string, at: Browser = browser()): Promise<Page> {
  accounts.person = person
  return at.submit(await at.open(link))
}

interface Called {
  readonly status: number
  readonly code: string | undefined
  readonly token: string
  readonly text: string
  readonly task: string
}

async function call(service = 'mail'): Promise<Called> {
  const { handle, task } = await gateway.openTask(`${service}:read`)
  const answer = await reverse(gateway.proxyPort, handle as string, { path: `/${service}/stream?bytes=2` })
  const arrived = echo.requests.at(-1)?.head.toString('latin1') ?? ''
  const token = answer.status === 200 ? (/^authorization: Bearer (\S+)/im.exec(arrived)?.[1] ?? '') : ''
  return { status: answer.status, code: codeOf(answer), token, text: answer.bytes.toString('latin1'), task }
}

const begin = (credential = 'mail', sub?: string) =>
  gateway.control.beginConnection({ credential, ...(sub !== undefined && { sub, iss: 'https://id.acme.test' }) })
const isCallback = (url: URL) => url.pathname === '/connect/callback'
const logged = async (kind: string) =>
  (await entriesOf(gateway.settings.dataDir)).filter((entry) => entry.kind === kind)

/** As far as the answer of the authorization server, which the browser does not open yet. */
async function untilCallback(link: string, person: string, at: Browser): Promise<URL> {
  accounts.person = person
  return (await at.submit(await at.open(link), {}, isCallback)).url
}

describe('connecting', () => {
  it('is asked for by the first call, and lets the next one through with an account of that person', async () => {
    const before = await call()
    expect(before).toMatchObject({ status: 403, code: 'reauthorize' })
    expect(before.text).toMatch(/keyless connect mail --for/)
    expect(before.text).toContain('/connect/mail')
    const { ticket, url } = await begin()
    const page = await walk(url, 'ana@mail.test')
    expect(page.text).toContain('Connected')
    expect(await gateway.control.connectProgress(ticket)).toEqual({ state: 'done' })
    const { status, token } = await call()
    expect(status).toBe(200)
    expect(await accounts.introspect(token)).toMatchObject({ active: true, sub: 'ana@mail.test', scope: SCOPES })
    const [connection] = await gateway.control.connections()
    expect(await gateway.control.connections()).toMatchObject([
      { credential: 'mail', state: 'connected', scope: SCOPES },
    ])
    expect(await logged('admin.connected')).toMatchObject([{ human: connection?.human, facts: { credential: 'mail' } }])
  })

  it('shows what it is for, runs no script, is not framed, and tells nobody where it came from', async () => {
    const { url } = await begin('mail', '<img src=x onerror=alert(1)>"\'&')
    const { text, headers } = await browser().open(url)
    expect(text).toContain('&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;')
    expect(text).not.toContain('<img')
    for (const said of ['mail:read mail:write', new URL(accounts.issuer).host]) expect(text).toContain(said)
    expect(text).not.toContain('<script')
    expect(headers.get('content-security-policy')).toMatch(/default-src 'none'.*frame-ancestors 'none'/)
    expect(headers.get('referrer-policy')).toBe('same-origin')
    expect(headers.get('cache-control')).toBe('no-store')
    expect(headers.get('set-cookie')).toMatch(/HttpOnly; SameSite=Lax/)
  })

  it('serves nobody but the human that it was made for', async () => {
    const { url } = await begin('mail', 'bob')
    expect((await walk(url, 'bob@mail.test')).text).toContain('Connected')
    const connections = await gateway.control.connections()
    expect(connections.map(({ human }) => human?.sub)).toContain('bob')
    expect((await accounts.introspect((await call()).token)).sub).toBe('ana@mail.test')
  })

  it('is one for everybody where settings say so', async () => {
    expect((await call('team')).code).toBe('reauthorize')
    await expect(begin('team', 'bob')).rejects.toMatchObject({ code: 'instruction_invalid' })
    const { url } = await begin('team')
    expect((await browser().open(url)).text).toContain('everybody who uses this gateway')
    await walk(url, 'team@mail.test')
    expect((await accounts.introspect((await call('team')).token)).sub).toBe('team@mail.test')
  })

  it('finds endpoints by the issuer alone', async () => {
    const { url } = await begin('metadata')
    expect((await walk(url, 'ana@mail.test')).text).toContain('Connected')
  })

  it('is refused when the person says no, in words of ours', async () => {
    const { ticket, url } = await begin('mail', 'carol')
    const page = await walk(url, 'nobody')
    expect(page.text).toContain('access was not granted')
    expect(page.text).not.toContain('<b>no</b>')
    expect(await gateway.control.connectProgress(ticket)).toMatchObject({ state: 'failed' })
  })

  it('is not offered for a credential that no human connects', async () => {
    await expect(begin('nothing')).rejects.toMatchObject({ code: 'instruction_invalid' })
    const { origin } = new URL((await begin()).url)
    expect((await fetch(`${origin}/connect/nothing`)).status).toBe(404)
    expect(await (await fetch(`${origin}/connect/mail`)).text()).toContain('keyless connect mail')
  })
})

describe('a device code', () => {
  it('is typed elsewhere, asked after no more often than its server allows, and connects', async () => {
    const begun = await gateway.control.beginConnection({
      credential: 'mail',
      device: true,
      sub: 'dan',
      iss: 'https://id.acme.test',
    })
    expect(begun.user_code).toMatch(/^[A-Z]{4}-[A-Z]{4}$/)
    const asked = () => accounts.asked.filter(({ grantType }) => grantType.endsWith('device_code')).length
    for (let i = 0; i < 3; i++)
      expect(await gateway.control.connectProgress(begun.ticket)).toEqual({ state: 'pending', interval_s: 5 })
    expect(asked()).toBe(0)
    expect((await accounts.typeCode('dan@mail.test', browser(), begun.url)).text).toMatch(/Sign-in Success/i)
  })
})

describe('an attacker', () => {
  it('cannot have a victim finish what the attacker began (fixation)', async () => {
    const { ticket, url } = await begin('mail', 'eve')
    const callback = await untilCallback(url, 'eve@mail.test', browser())
    const victim = browser()
    await victim.open((await begin('mail', 'vic')).url) // has a cookie of its own
    const page = await victim.open(callback)
    expect(page).toMatchObject({ status: 400 })
    expect(page.text).toContain('belongs to no connection that this browser has begun')
    expect((await browser().open(callback)).status).toBe(400)
    expect(await gateway.control.connectProgress(ticket)).toMatchObject({ state: 'pending' })
    expect(JSON.stringify(await gateway.control.connections())).not.toMatch(/"(?:eve|vic)"/)
  })

  it('cannot put the answer to one request into the place of another', async () => {
    const at = browser()
    const [mine, theirs] = [await begin('mail', 'fay'), await begin('mail', 'gus')]
    const first = await untilCallback(mine.url, 'fay@mail.test', at)
    const second = await untilCallback(theirs.url, 'fay@mail.test', at)
    const state = first.searchParams.get('state') as string
    const crossed = new URL(first)
    crossed.searchParams.set('code', second.searchParams.get('code') as string)
    expect((await at.open(crossed)).text).toContain('Not connected') // PKCE: a code is of one request
    const twice = new URL(second)
    twice.searchParams.append('state', state)
    expect((await at.open(twice)).status).toBe(400)
    for (const changed of ['', 'x', `${state.split('.')[0]}.x`, state.slice(0, -1), '__proto__']) {
      const bent = new URL(second)
      bent.searchParams.set('state', changed)
      expect((await at.open(bent)).status, changed).toBe(400)
    }
    expect((await at.open(second)).text).toContain('Connected') // which was not harmed
  })

  it('cannot use a callback twice, nor a link after another browser took it', async () => {
    const at = browser()
    const { url } = await begin('mail', 'hal')
    const other = browser()
    const seen = await other.open(url)
    const callback = await untilCallback(url, 'hal@mail.test', at)
    expect((await other.submit(seen)).text).toContain('used already')
    expect((await at.open(callback)).text).toContain('Connected')
    const codes = accounts.asked.length
    expect((await at.open(callback)).text).toContain('Not connected')
    expect((await at.open(url)).status).toBe(200)
    expect((await at.submit(await at.open(url))).text).toContain('used already')
    expect(accounts.asked.length).toBe(codes)
  })

  it('cannot have a form of another page agree, whatever it knows', async () => {
    const { url } = await begin('mail', 'ida')
    const at = browser()
    const page = await at.open(url)
    const proof = /name="proof" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const send = (headers: Record<string, string>, body: Record<string, string>) =>
      fetch(url, { method: 'POST', redirect: 'manual', headers, body: new URLSearchParams(body) })
    const cookie = at.cookies(url)
    const own = { cookie, origin: new URL(url).origin, 'sec-fetch-site': 'same-origin' }
    const foreign = [
      { ...own, origin: 'https://evil.test' },
      { ...own, origin: 'null' },
      { ...own, 'sec-fetch-site': 'cross-site' },
      { cookie, 'sec-fetch-site': 'same-site' },
    ]
    for (const headers of foreign) expect((await send(headers, { proof })).status).toBe(403)
    expect((await send(own, {})).status).toBe(403)
    expect((await send(own, { proof: proof.replace(/^./, 'x') })).status).toBe(403)
    expect((await send({ ...own, cookie: '' }, { proof })).status).toBe(403)
    expect((await send({ ...own, cookie: `${cookie}; ${cookie}` }, { proof })).status).toBe(403)
    expect((await send(own, { proof })).status).toBe(303)
    // And nothing else of the door is open to pages.
    const init = { method: 'POST', headers: own, body: new URLSearchParams() }
    expect(await (await fetch(new URL('/oauth/token', url), init)).text()).toContain('not taken from web pages')
  })

  it('cannot lead anybody elsewhere', async () => {
    const { url } = await begin('mail', 'jan')
    const at = browser()
    const page = await at.open(`${url}?redirect_uri=https://evil.test&next=//evil.test&issuer=https://evil.test`)
    let sent: URL | undefined
    await at.submit(page, { redirect: 'https://evil.test' }, (to) => {
      sent ??= to.pathname === '/auth' ? to : undefined
      return to.pathname === '/auth'
    })
    expect(sent?.origin).toBe(accounts.issuer)
    expect(sent?.searchParams.get('redirect_uri')).toBe(`${new URL(url).origin}/connect/callback`)
    expect(sent?.searchParams.get('code_challenge_method')).toBe('S256')
    expect(sent?.href).not.toContain(url.split('/').at(-1)) // the ticket stays here
  })

  it('cannot have a code of another server redeemed (mix-up)', async () => {
    const at = browser()
    const { ticket, url } = await begin('mail', 'kim')
    const callback = await untilCallback(url, 'kim@mail.test', at)
    callback.searchParams.set('iss', 'https://evil.test')
    const codes = accounts.asked.length
    expect((await at.open(callback)).text).toContain('is not the answer of the authorization server')
    expect(accounts.asked.length).toBe(codes)
    expect(await gateway.control.connectProgress(ticket)).toMatchObject({ state: 'failed' })
    const silent = await begin('mail', 'kim')
    const without = await untilCallback(silent.url, 'kim@mail.test', browser())
    without.searchParams.delete('iss')
    expect((await at.open(without)).status).toBe(400)
  })

  it('cannot guess a ticket, and finds no door on TCP for what the socket does', async () => {
    const { origin } = new URL((await begin()).url)
    expect((await fetch(`${origin}/connect/t/${'A'.repeat(43)}`)).status).toBe(400)
    for (const path of ['/connections', '/secrets']) expect((await fetch(origin + path)).status).toBe(404)
  })
})

describe('a connection', () => {
  it('gives each task an access token of its own, which ends with it, while the refresh token goes on', async () => {
    const [one, two] = [await call(), await call()]
    expect(one.token).not.toBe(two.token)
    await gateway.control.completeTask(one.task)
    await expect.poll(() => accounts.introspect(one.token)).toEqual({ active: false })
    expect(await accounts.introspect(two.token)).toMatchObject({ active: true })
    expect(accounts.revoked.map(({ hint }) => hint)).not.toContain('refresh_token')
    expect((await call()).status).toBe(200)
  })

  it('outlives its tasks by default, also where access and refresh tokens end together', async () => {
    accounts.endsTogether = true
    for (let i = 0; i < 2; i++) {
      const { status, task } = await call('team')
      expect(status).toBe(200)
      await gateway.control.completeTask(task)
    }
    accounts.endsTogether = false
  })

  it('survives twenty calls of twenty tasks at once', async () => {
    const calls = await Promise.all(Array.from({ length: 20 }, () => call()))
    expect(calls.map(({ status }) => status)).toEqual(Array(20).fill(200))
    const shown = accounts.asked.filter(({ grantType }) => grantType === 'refresh_token').map(({ token }) => token)
    expect(new Set(shown).size).toBe(shown.length)
  })

  it('is lost when its server takes it no more: said once, marked, and nothing is asked again until it is made anew', async () => {
    accounts.mood = 'lose' // the server rotates, and its answer never comes
    expect(await call()).toMatchObject({ code: 'credential_unavailable' })
    accounts.mood = 'well'
    const asked = accounts.asked.length
    for (let i = 0; i < 3; i++) expect((await call()).code).toBe('reauthorize')
    // The token whose answer was lost, and the one before it: then the server is left alone.
    expect(accounts.asked.length - asked).toBeLessThanOrEqual(2)
    const lost = await logged('admin.connection_lost')
    expect(lost).toHaveLength(1)
    expect(lost).toMatchObject([{ facts: { credential: 'mail' } }])
    const own = (await gateway.control.connections()).find(({ state }) => state === 'reauthorize')
    expect(own).toMatchObject({ credential: 'mail' })
    await walk((await begin()).url, 'ana@mail.test')
    expect((await call()).status).toBe(200)
  })

  it('ends at its server too when somebody disconnects', async () => {
    expect(await gateway.control.disconnect({ credential: 'mail' })).toEqual({ revoked: true })
    expect(accounts.revoked.at(-1)?.hint).toBe('refresh_token')
    expect((await call()).code).toBe('reauthorize')
    expect(await logged('admin.disconnected')).toHaveLength(1)
    await expect(gateway.control.disconnect({ credential: 'mail' })).rejects.toMatchObject({
      code: 'instruction_invalid',
    })
  })

  it('leaves no token in the log or on disk', async () => {
    const { dataDir } = gateway.settings
    const files = (await readdir(dataDir, { recursive: true, withFileTypes: true })).filter((file) => file.isFile())
    const contents = await Promise.all(files.map((file) => readFile(join(file.parentPath, file.name))))
    expect(contents.length).toBeGreaterThan(5)
    const found = accounts.asked.filter(({ token }) => contents.some((content) => content.includes(token)))
    expect(found).toEqual([])
  })
})
