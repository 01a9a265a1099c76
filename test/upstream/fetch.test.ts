import { createServer } from 'node:https'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { createUpstream, type UpstreamOptions } from '../../gateway/upstream/forward.ts'
import { makeAuthority } from './certificate.fixture.ts'
import { HOST, listen, openOrigin, shut } from './upstream.fixture.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

function fetchThrough(change: Partial<UpstreamOptions> = {}, addresses: readonly string[] = ['127.0.0.0/8']) {
  const upstream = createUpstream({
    connectTimeoutMs: 1_000,
    headersTimeoutMs: 1_000,
    bodyTimeoutMs: 1_000,
    ca: [],
    hosts: new Map([[HOST, '127.0.0.1']]),
    clock: systemClock,
    ...change,
  })
  closing.push(upstream.close)
  return upstream.fetchFor(addresses)
}

async function issuer(serve: Parameters<typeof openOrigin>[0]): Promise<string> {
  const origin = await openOrigin(serve)
  closing.push(origin.close)
  return `http://${HOST}:${origin.port}`
}

describe('fetchFor', () => {
  it('sends a form and reads JSON like any fetch, over verified TLS', async () => {
    const authority = await makeAuthority()
    const server = createServer(await authority.issue([HOST]), async (request, response) => {
      const body = Buffer.concat(await request.toArray()).toString()
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify({ body, type: request.headers['content-type'], auth: request.headers.authorization }))
    })
    closing.push(() => shut(server))
    const url = `https://${HOST}:${await listen(server)}/token`
    const init = {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'client_credentials' }),
      headers: { authorization: 'Basic x' },
    }
    const answer = await fetchThrough({ ca: [authority.pem] })(url, init)
    expect(answer).toBeInstanceOf(Response)
    expect(await answer.json()).toEqual({
      body: 'grant_type=client_credentials',
      type: 'application/x-www-form-urlencoded;charset=UTF-8',
      auth: 'Basic x',
    })
    expect(await (await fetchThrough({ ca: [authority.pem] })(new Request(url, init))).json()).toMatchObject({
      auth: 'Basic x',
    })
    await expect(fetchThrough()(url)).rejects.toMatchObject({ code: 'upstream_tls' })
  })

  it('reaches no address but public ones and those named', async () => {
    const url = await issuer((_, response) => response.end('ok'))
    await expect(fetchThrough({}, [])(url)).rejects.toMatchObject({ code: 'address_forbidden' })
    await expect(fetchThrough({}, ['0.0.0.0/0'])('http://169.254.169.254/latest')).rejects.toMatchObject({
      code: 'address_forbidden',
    })
    await expect(fetchThrough({}, ['0.0.0.0/0', '::/0'])('http://[fd00:ec2::254]/')).rejects.toMatchObject({
      code: 'address_forbidden',
    })
  })

  it('follows no redirect', async () => {
    let requests = 0
    const url = await issuer((_, response) => {
      requests += 1
      response.writeHead(302, { location: '/elsewhere' }).end()
    })
    await expect(fetchThrough()(url)).rejects.toThrow()
    await expect(fetchThrough()(url, { redirect: 'follow' })).rejects.toThrow()
    expect((await fetchThrough()(url, { redirect: 'manual' })).status).toBe(302)
    expect(requests).toBe(3)
  })

  it('reads at most 512 KiB, also when they come compressed', async () => {
    const size = 512 * 1024
    const url = await issuer((request, response) => {
      if (request.url === '/fits') response.end(Buffer.alloc(size))
      else if (request.url === '/large') response.end(Buffer.alloc(size + 1))
      else response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(size + 1)))
    })
    const bounded = fetchThrough()
    expect((await (await bounded(`${url}/fits`)).arrayBuffer()).byteLength).toBe(size)
    await expect(bounded(`${url}/large`)).rejects.toMatchObject({ code: 'upstream_broken' })
    await expect(bounded(`${url}/bomb`)).rejects.toMatchObject({ code: 'upstream_broken' })
  })

  it('passes an abort on', async () => {
    const url = await issuer(() => {})
    const leaving = new AbortController()
    const asking = fetchThrough()(url, { signal: leaving.signal })
    leaving.abort(new Error('no longer wanted'))
    await expect(asking).rejects.toThrow('no longer wanted')
  })
})
