/** The demo upstream behaves like a real OAuth-protected API, so that what is proved against it means something. */
import { readFile, stat } from 'node:fs/promises'
import { importPKCS8, SignJWT } from 'jose'
import { Agent, fetch } from 'undici'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

let upstream: TestUpstream
let dispatcher: Agent

beforeAll(async () => {
  upstream = await startUpstream()
  dispatcher = new Agent({
    connect: {
      ca: upstream.caPem,
      lookup: (_name, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }]),
    },
  })
})

afterAll(async () => {
  await dispatcher.close()
  await upstream.stop()
})

async function tokenBy(fields: Record<string, string>, headers: Record<string, string> = {}) {
  const body = new URLSearchParams({ grant_type: 'client_credentials', ...fields })
  const answer = await fetch(upstream.facts.token_url, { method: 'POST', body, headers, dispatcher })
  return (await answer.json()) as { access_token: string; expires_in: number; scope: string; error?: string }
}

async function token(scope = upstream.facts.scope): Promise<string> {
  const secret = await readFile(upstream.facts.client_secret_file, 'utf8')
  const basic = `Basic ${Buffer.from(`${upstream.facts.client_id}:${secret}`).toString('base64')}`
  return (await tokenBy({ scope }, { authorization: basic })).access_token
}

const call = (path: string, authorization?: string, init: object = {}) =>
  fetch(`${upstream.facts.api}${path}`, { ...init, dispatcher, headers: authorization ? { authorization } : {} })

describe('the demo issuer', () => {
  it('knows its clients in three ways', async () => {
    const basic = await token('notes:read')
    const post = await tokenBy({
      client_id: upstream.facts.post_client_id,
      client_secret: await readFile(upstream.facts.post_client_secret_file, 'utf8'),
      scope: 'notes:read',
    })
    const assertion = await new SignJWT({ jti: crypto.randomUUID() })
      .setProtectedHeader({ alg: 'ES256', kid: upstream.facts.kid })
      .setIssuer(upstream.facts.jwt_client_id)
      .setSubject(upstream.facts.jwt_client_id)
      .setAudience(upstream.facts.token_url)
      .setIssuedAt()
      .setExpirationTime('1m')
      .sign(await importPKCS8(await readFile(upstream.facts.key_file, 'utf8'), 'ES256'))
    const fields = {
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
    }
    const jwt = await tokenBy({ ...fields, scope: 'notes:read' })
    for (const one of [basic, post.access_token, jwt.access_token])
      expect((await call('/notes', `Bearer ${one}`)).status).toBe(200)
    expect(post.expires_in).toBe(300)
    expect((await tokenBy({ ...fields, scope: 'notes:read' })).error).toBe('invalid_client') // an assertion works once
  })

  it('refuses a wrong secret', async () => {
    expect((await tokenBy({}, { authorization: `Basic ${btoa('keyless:wrong')}` })).error).toBe('invalid_client')
  })

  it('keeps what it wrote from everybody else', async () => {
    for (const file of [
      upstream.facts.client_secret_file,
      upstream.facts.key_file,
      upstream.facts.post_client_secret_file,
    ]) {
      expect((await stat(file)).mode & 0o777).toBe(0o600)
    }
  })
})

describe('the demo API', () => {
  it('challenges a call without a token, and one with a made-up token', async () => {
    const bare = await call('/notes')
    expect([bare.status, bare.headers.get('www-authenticate')]).toEqual([401, 'Bearer realm="keyless demo"'])
    const madeUp = await call('/notes', 'Bearer keyless-placeholder')
    expect([madeUp.status, madeUp.headers.get('www-authenticate')]).toEqual([
      401,
      'Bearer realm="keyless demo", error="invalid_token"',
    ])
  })

  it('refuses a token that lacks the scope', async () => {
    const answer = await call('/notes/1', `Bearer ${await token('notes:read')}`, { method: 'DELETE' })
    expect(answer.status).toBe(403)
    expect(answer.headers.get('www-authenticate')).toContain('insufficient_scope')
  })

  it('keeps notes', async () => {
    const bearer = `Bearer ${await token()}`
    const made = await call('/notes', bearer, { method: 'POST', body: '{"text":"hello"}' })
    const note = (await made.json()) as { id: string }
    expect([made.status, note]).toEqual([201, { id: note.id, text: 'hello' }])
    expect(await (await call(`/notes/${note.id}`, bearer)).json()).toEqual(note)
    expect((await call(`/notes/${note.id}`, bearer, { method: 'DELETE' })).status).toBe(204)
    expect((await call(`/notes/${note.id}`, bearer)).status).toBe(404)
    expect((await call('/notes', bearer, { method: 'POST', body: 'no json' })).status).toBe(400)
  })

  it('gives the credential back where the gateway must remove it', async () => {
    const bearer = `Bearer ${await token()}`
    const echoed = await call('/echo?header=1&encoding=gzip&as=base64', bearer)
    const body = (await echoed.json()) as { headers: { authorization: string }; spelled: string }
    expect(body.headers.authorization).toBe(bearer)
    expect(body.spelled).toBe(Buffer.from(bearer).toString('base64'))
    expect(echoed.headers.get('x-echo-authorization')).toBe(bearer)
  })

  it('mints a credential that works', async () => {
    const minted = (await (await call('/tokens', `Bearer ${await token()}`, { method: 'POST' })).json()) as {
      token: string
    }
    expect((await call('/notes', `Bearer ${minted.token}`)).status).toBe(200)
  })

  it('streams files both ways and echoes a body as it comes', async () => {
    const bearer = `Bearer ${await token('files')}`
    expect((await (await call('/files/a?bytes=200000&chunked=1', bearer)).arrayBuffer()).byteLength).toBe(200_000)
    expect(await (await call('/files/a', bearer, { method: 'PUT', body: 'x'.repeat(70_000) })).json()).toMatchObject({
      bytes: 70_000,
    })
    expect(await (await call('/files/a', bearer, { method: 'POST', body: 'back to you' })).text()).toBe('back to you')
  })

  it('sends events', async () => {
    const text = await (await call('/stream?n=3&interval_ms=1', `Bearer ${await token()}`)).text()
    expect(text.match(/^id: \d+$/gm)).toEqual(['id: 1', 'id: 2', 'id: 3'])
  })

  it('counts calls and issued tokens, and refuses revoked ones', async () => {
    const bearer = `Bearer ${await token()}`
    const [calls, tokens] = [upstream.counts.get('GET /notes') ?? 0, upstream.issuedTokens]
    expect((await call('/notes', bearer)).status).toBe(200)
    upstream.revokeTokens()
    expect((await call('/notes', bearer)).status).toBe(401)
    expect((await call('/notes', `Bearer ${await token()}`)).status).toBe(200)
    expect([upstream.counts.get('GET /notes'), upstream.issuedTokens]).toEqual([calls + 3, tokens + 1])
  })
})
