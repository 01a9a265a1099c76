/** A server that others wrote, and many run: nginx, which also ends its connections when it likes. */

import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { tmpdir, userInfo } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePort, untilListening } from '../rig/ports.ts'
import { type Running, start } from '../rig/process.ts'
import { certificateFor, openHttp2Door } from './http2.fixture.ts'
import { CANARY, type Door, HOST } from './upstream.fixture.ts'

/** Debian has it where only root looks. */
const paths = `${process.env.PATH ?? ''}${delimiter}/usr/sbin`.split(delimiter)
const nginx = paths.map((path) => join(path, 'nginx')).find(existsSync)

const FILE_BYTES = 20 * 1024 * 1024
const REQUESTS_PER_CONNECTION = 100
const AT_ONCE = 60

describe.runIf(process.env.CI !== undefined || nginx !== undefined)('nginx as an HTTP/2 upstream', () => {
  let dir: string
  let server: Running
  let door: Door

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'keyless-nginx-'))
    const port = await freePort()
    const { cert, key } = await certificateFor(HOST)
    await writeFile(join(dir, 'cert.pem'), cert)
    await writeFile(join(dir, 'key.pem'), key)
    await writeFile(join(dir, 'file'), Buffer.alloc(FILE_BYTES, 'all work and no play '))
    await writeFile(join(dir, 'nginx.conf'), configuration(dir, port))
    server = start(nginx ?? 'nginx', ['-p', dir, '-c', join(dir, 'nginx.conf'), '-e', 'stderr'])
    await untilListening(port)
    door = await openHttp2Door(port)
  })
  afterAll(async () => {
    await door.close()
    await server.stop()
    await rm(dir, { recursive: true, force: true })
  })

  async function call(path: string, method = 'GET', body = Buffer.alloc(0)) {
    const headers = { host: HOST, ...(method !== 'GET' && { 'content-length': body.length }) }
    const request = httpRequest({ port: door.port, path, method, headers }).end(body)
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    const bytes = Buffer.concat(await response.toArray())
    return { status: response.statusCode, headers: response.headers, bytes, text: bytes.toString() }
  }

  it('is spoken to in HTTP/2, with the credential, which does not come back', async () => {
    expect(await call('/echo')).toMatchObject({ status: 200, text: `HTTP/2.0 h2 Bearer ${'*'.repeat(CANARY.length)}` })
  })

  it('answers many at once, though it ends a connection in the middle of them', async () => {
    for (let round = 0; round < 6; round += 1) {
      const answers = await Promise.all(Array.from({ length: AT_ONCE }, () => call('/echo')))
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    }
  })

  it('sends large answers and takes large requests', async () => {
    const { bytes } = await call('/file')
    expect(bytes.length).toBe(FILE_BYTES)
    const upload = Buffer.alloc(5 * 1024 * 1024, 'x')
    expect(await call('/upload', 'PUT', upload)).toMatchObject({ status: 201 })
    expect((await call('/uploaded/upload')).bytes.equals(upload)).toBe(true)
  })

  it('answers HEAD, redirects and what is not there as it always does', async () => {
    const head = await call('/file', 'HEAD')
    expect(head).toMatchObject({ status: 200, headers: { 'content-length': String(FILE_BYTES) }, text: '' })
    expect(await call('/moved')).toMatchObject({ status: 302, headers: { location: 'https://elsewhere.test/' } })
    expect(await call('/none')).toMatchObject({ status: 404 })
    expect(await call('/nothing')).toMatchObject({ status: 204, text: '' })
    expect(door.unexpected).toEqual([])
    expect(door.refusals).toEqual([])
  })
})

function configuration(dir: string, port: number): string {
  return `
    ${userInfo().uid === 0 ? 'user root;' : ''}
    daemon off; worker_processes 1; pid ${dir}/pid; error_log stderr error;
    events { worker_connections 256; }
    http {
      access_log off; default_type text/plain;
      client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy; fastcgi_temp_path ${dir}/fastcgi;
      uwsgi_temp_path ${dir}/uwsgi; scgi_temp_path ${dir}/scgi;
      server {
        listen 127.0.0.1:${port} ssl http2; server_name ${HOST};
        ssl_certificate ${dir}/cert.pem; ssl_certificate_key ${dir}/key.pem;
        keepalive_requests ${REQUESTS_PER_CONNECTION}; client_max_body_size 10m; root ${dir};
        location = /echo { return 200 "$server_protocol $http2 $http_authorization"; }
        location = /moved { return 302 https://elsewhere.test/; }
        location = /nothing { return 204; }
        location = /upload { root ${dir}/uploaded; dav_methods PUT; create_full_put_path on; }
      }
    }`
}
