import { createSecretKey } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type PeerCertificate, type TLSSocket } from 'node:tls'
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createIdentities } from '../../gateway/identity/identities.ts'
import { trustSchema } from '../../gateway/identity/trust.ts'
import type { Identities, Workload } from '../../gateway/protocol/identity.ts'
import { PURPOSES, type Signed, type TrustDomain, thumbprint, trustDomain } from '../identity/svid.fixture.ts'
import { manualClock } from '../rig/clock.ts'
import { run, runOk } from '../rig/process.ts'
import { type Authority, makeAuthority } from '../upstream/certificate.fixture.ts'
import type { Answer } from './door.fixture.ts'
import { grant, type OauthRig, openOauthRig, PUBLIC_URL } from './oauth.fixture.ts'

const PATH = '/agents/triage'
const ID = `spiffe://acme.test${PATH}`
const NOW = Date.now()

let authority: Authority
let acme: TrustDomain
let other: TrustDomain
let dir: string
let rig: OauthRig
let files: { cert: string; key: string; clientCa: string[] }

beforeAll(async () => {
  authority = await makeAuthority()
  acme = await trustDomain('acme.test', NOW)
  other = await trustDomain('other.test', NOW)
})

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kt-'))
  const door = await authority.issue(['127.0.0.1', 'localhost'])
  files = {
    cert: write('door.pem', door.cert),
    key: write('door.key', door.key),
    clientCa: [write('acme.pem', acme.pem)],
  }
  write('root.pem', authority.pem)
  rig = await openOauthRig({ tls: files, identities: identities() })
})

afterEach(async () => {
  vi.useRealTimers()
  await rig.close()
  rmSync(dir, { recursive: true, force: true })
})

function write(name: string, text: string): string {
  const file = join(dir, name)
  writeFileSync(`${file}.new`, text, { mode: 0o600 })
  renameSync(`${file}.new`, file)
  return file
}

/** The real room, trusting the bundle in acme.pem. */
function identities(
  x509: object[] = [{ trust_domain: 'acme.test', bundle: { file: join(dir, 'acme.pem') } }],
): Identities {
  return createIdentities({
    trust: trustSchema.parse({ x509 }),
    issuer: PUBLIC_URL,
    fetchFor: () => () => Promise.reject(new Error('nothing is fetched here')),
    once: () => true,
    clock: manualClock(NOW),
    nonceKey: createSecretKey(Buffer.alloc(32, 7)),
  })
}

interface Client {
  readonly svid?: Signed
  /** PEM of the intermediates that are sent along. */
  readonly more?: string
  readonly headers?: Record<string, string>
  readonly form?: Record<string, string>
}

/** Ask about a grant: the endpoint whose caller must say who it is. */
function introspect({ svid, more = '', headers = {}, form = {} }: Client): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const sent = request({
    host: '127.0.0.1',
    port: rig.door.port,
    path: '/oauth/introspect',
    method: 'POST',
    agent: false,
    ca: authority.pem,
    ...(svid && { cert: svid.pem + more, key: svid.key }),
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
  })
  sent.on('error', reject)
  sent.on('response', async (answer) => {
    let text = ''
    for await (const chunk of answer.setEncoding('utf8')) text += chunk
    resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text, json: JSON.parse(text) })
  })
  sent.end(new URLSearchParams({ token: 'eyJ.mine', ...form }).toString())
  return promise
}

const knownAs = (): Workload | undefined => {
  const by = rig.asked.at(-1)?.by
  return by !== undefined && 'client' in by ? by.client : undefined
}

/** @returns the description of the refusal */
async function refused(client: Client): Promise<string> {
  const answer = await introspect(client)
  expect(answer, answer.text).toMatchObject({ status: 401, json: { error: 'invalid_client' } })
  expect(rig.asked).toEqual([])
  return String(answer.json.error_description)
}

describe('a client certificate on the control door', () => {
  it('is the workload that its SPIFFE ID names', async () => {
    const svid = await acme.issue(PATH)
    expect((await introspect({ svid })).status).toBe(200)
    expect(knownAs()).toMatchObject({ id: ID, kind: 'x509-svid', cnf: { 'x5t#S256': thumbprint(svid.der) } })
  })

  it('is accepted with its intermediates, and not without', async () => {
    const middle = await acme.downstream()
    const svid = await middle.issue(PATH)
    expect((await introspect({ svid, more: middle.pem })).status).toBe(200)
    rig.asked.length = 0
    expect(await refused({ svid })).toContain('no certificate of the bundle issued it')
  })

  it('is refused when it is of the wrong domain, expired, ambiguous, a CA, or not for clients', async () => {
    const wrong: readonly (readonly [Signed, string])[] = [
      [await other.issue(PATH), 'trust domain other.test is not trusted'],
      [await acme.issue(PATH, { uris: ['spiffe://other.test/a'] }), 'trust domain other.test is not trusted'],
      [await other.issue(PATH, { uris: [ID] }), 'no certificate of the bundle issued it'],
      [await acme.issue(PATH, { notAfterMs: NOW - 60_000 }), 'it expired'],
      [await acme.issue(PATH, { uris: [ID, 'spiffe://acme.test/b'] }), '2 URIs'],
      [await acme.issue(PATH, { isAuthority: true }), 'that of a CA'],
      [await acme.issue(PATH, { uris: [], dns: ['triage.acme.test'] }), 'a DNS name is no identity'],
      [await acme.issue(PATH, { purposes: [PURPOSES.serverAuth] }), 'client authentication'],
    ]
    for (const [svid, why] of wrong) expect(await refused({ svid })).toContain(why)
  })

  it('is believed by the bundle as it is now', async () => {
    const next = await trustDomain('acme.test', NOW)
    const [old, fresh] = [await acme.issue(PATH), await next.issue(PATH)]
    expect((await introspect({ svid: old })).status).toBe(200)
    write('acme.pem', next.pem)
    expect((await introspect({ svid: fresh })).status).toBe(200)
    rig.asked.length = 0
    expect(await refused({ svid: old })).toContain('no certificate of the bundle issued it')
  })

  it('must be that of the client_id, where one is given', async () => {
    const svid = await acme.issue(PATH)
    expect((await introspect({ svid, form: { client_id: ID } })).status).toBe(200)
    rig.asked.length = 0
    expect(await refused({ svid, form: { client_id: 'spiffe://acme.test/agents/admin' } })).toContain('client_id')
  })

  it('says nothing where no trust domain is configured', async () => {
    await rig.close()
    rig = await openOauthRig({ tls: files, identities: identities([]) })
    expect(await refused({ svid: await acme.issue(PATH) })).toContain('Say who you are')
  })
})

describe('a header that claims to carry a certificate', () => {
  it('is never believed, on TLS or without', async () => {
    const svid = await acme.issue(PATH)
    const pem = encodeURIComponent(svid.pem)
    const headers = {
      'x-forwarded-client-cert': `By=spiffe://acme.test/gw;Hash=${thumbprint(svid.der)};URI=${ID};Cert="${pem}"`,
      'client-cert': `:${svid.der.toString('base64')}:`, // RFC 9440
      'x-ssl-client-cert': pem,
      'x-client-cert': svid.der.toString('base64'),
      'ssl-client-verify': 'SUCCESS',
    }
    expect(await refused({ headers })).toContain('Say who you are')
    await rig.close()
    rig = await openOauthRig({ identities: identities() })
    const plain = await rig.post('/oauth/introspect', { token: 'eyJ.mine' }, headers)
    expect(plain).toMatchObject({ status: 401, json: { error: 'invalid_client' } })
  })

  it('does not replace the certificate that was shown', async () => {
    const svid = await acme.issue('/agents/reader')
    await introspect({ svid, headers: { 'x-forwarded-client-cert': `URI=${ID}` } })
    expect(knownAs()?.id).toBe('spiffe://acme.test/agents/reader')
  })
})

describe('a grant that is bound to a certificate', () => {
  it('is presented with that certificate or not at all', async () => {
    const [mine, stolen] = [await acme.issue(PATH), await acme.issue(PATH)]
    rig.held = { ...grant, cnf: { 'x5t#S256': thumbprint(mine.der) } }
    const headers = { authorization: 'Bearer eyJ.mine' }
    expect((await introspect({ svid: mine, headers })).status).toBe(200)
    for (const client of [{ headers }, { headers, svid: stolen }]) {
      const answer = await introspect(client)
      expect(answer.status).toBe(401)
      expect(answer.text).toContain('invalid_token')
    }
  })
})

describe('the connection', () => {
  const dial = (o: object = {}): Promise<TLSSocket> => {
    const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>()
    const socket = connect({ host: '127.0.0.1', port: rig.door.port, ca: authority.pem, ...o }, () => resolve(socket))
    socket.on('error', reject)
    return promise
  }

  it('works with curl and its own certificate store, and needs no client certificate for what anyone may read', async () => {
    const url = `https://127.0.0.1:${rig.door.port}`
    const read = await runOk('curl', ['-sS', '--cacert', join(dir, 'root.pem'), `${url}/health/live`])
    expect(JSON.parse(read)).toEqual({ live: true })
    const svid = await acme.issue(PATH)
    const own = ['--cert', write('svid.pem', svid.pem), '--key', write('svid.key', svid.key)]
    const args = ['-sS', '--cacert', join(dir, 'root.pem'), ...own, '-d', 'token=eyJ.mine', `${url}/oauth/introspect`]
    expect(JSON.parse(await runOk('curl', args))).toEqual({ active: true, sub: 'ana' })
    expect(knownAs()?.id).toBe(ID)
  })

  it('tells openssl which CAs are wanted, and takes its certificate', async () => {
    const svid = await acme.issue(PATH)
    const own = ['-cert', write('svid.pem', svid.pem), '-key', write('svid.key', svid.key)]
    const args = [
      's_client',
      '-connect',
      `127.0.0.1:${rig.door.port}`,
      '-CAfile',
      join(dir, 'root.pem'),
      ...own,
      '-ign_eof',
    ]
    const body = 'token=eyJ.mine'
    const head = `POST /oauth/introspect HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: ${body.length}\r\n\r\n`
    const said = await runOk('openssl', args, { input: head + body })
    expect(said).toMatch(/Acceptable client certificate CA names\nC ?= ?US, O ?= ?SPIFFE/)
    expect(said).toContain('HTTP/1.1 200')
    expect(knownAs()?.id).toBe(ID)
  })

  it('is at least TLS 1.2, and never resumed', async () => {
    const old = ['s_client', '-connect', `127.0.0.1:${rig.door.port}`, '-tls1_1', '-cipher', 'DEFAULT@SECLEVEL=0']
    expect((await run('openssl', old)).code).not.toBe(0)
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3']) {
      const first = await dial({ maxVersion })
      let session = first.getSession()
      first.on('session', (ticket) => {
        session = ticket // TLS 1.3 sends them after the handshake
      })
      first.end('GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n')
      await once(first.resume(), 'close')
      const second = await dial({ maxVersion, session })
      expect([second.getProtocol(), second.isSessionReused()]).toEqual([maxVersion, false])
      second.destroy()
    }
  })

  it('in plain HTTP gets no answer', async () => {
    await expect(rig.post('/oauth/introspect', { token: 'x' })).rejects.toThrow()
  })

  it('has the renewed certificate within a minute, and keeps the old one while files are broken', async () => {
    await rig.close()
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    rig = await openOauthRig({ tls: files, identities: identities() })
    const serial = async () => {
      const socket = await dial({ rejectUnauthorized: false })
      const { fingerprint256 } = socket.getPeerCertificate() as PeerCertificate
      socket.destroy()
      return fingerprint256
    }
    const before = await serial()
    write('door.pem', 'half a file')
    vi.advanceTimersByTime(60_000)
    expect(await serial()).toBe(before)
    expect(rig.reported).toHaveLength(1)
    const renewed = await authority.issue(['127.0.0.1'])
    write('door.pem', renewed.cert)
    write('door.key', renewed.key)
    vi.advanceTimersByTime(60_000)
    expect(await serial()).not.toBe(before)
    expect((await introspect({ svid: await acme.issue(PATH) })).status).toBe(200)
  })
})
