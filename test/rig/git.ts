/** A real git server: `git http-backend` behind Basic over TLS, with one empty bare repository that takes pushes. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ThrowAwayTls, throwAwayTls } from '../../deploy/demo/certificate.ts'
import type { LfsStore } from './lfs.ts'
import { runOk } from './process.ts'

export interface GitServer {
  readonly port: number
  readonly caPem: string
  /** Path of the repository below the server's root. */
  readonly path: string
  readonly username: string
  readonly password: string
  /** The bare repository on disk. */
  readonly repository: string
  /** Times each value of Authorization was seen; `''` counts requests without one. */
  readonly authorizations: ReadonlyMap<string, number>
  /** `POST /acme/site.git/git-receive-pack chunked`, in the order they arrived. */
  readonly requests: readonly string[]
  stop(): Promise<void>
}

export interface GitOptions {
  /** Default `git.keyless.test`; localhost and 127.0.0.1 are always in the certificate. */
  readonly host?: string
  readonly username?: string
  readonly password: string
  /** Instead of comparing with `password`: whether a password is good for a request. */
  readonly accepts?: (password: string, request: IncomingMessage) => boolean
  readonly tls?: ThrowAwayTls
  readonly lfs?: LfsStore
}

export async function startGit(options: GitOptions): Promise<GitServer> {
  const root = await mkdtemp(join(tmpdir(), 'keyless-git-'))
  const repository = join(root, 'acme', 'site.git')
  await runOk('git', ['init', '--quiet', '--bare', '--initial-branch=main', repository])
  for (const allowed of ['http.receivepack', 'uploadpack.allowFilter', 'uploadpack.allowAnySHA1InWant'])
    await runOk('git', ['-C', repository, 'config', allowed, 'true'])
  const tls = options.tls ?? (await throwAwayTls([options.host ?? 'git.keyless.test', 'localhost', '127.0.0.1']))
  const username = options.username ?? 'x-access-token'
  const wanted = `Basic ${Buffer.from(`${username}:${options.password}`).toString('base64')}`
  const isGood = (given: string, request: IncomingMessage): boolean => {
    if (options.accepts === undefined) return given === wanted
    const [user, password = ''] = Buffer.from(given.replace(/^Basic /, ''), 'base64')
      .toString()
      .split(/:(.*)/s)
    return user === username && options.accepts(password, request)
  }
  const authorizations = new Map<string, number>()
  const requests: string[] = []
  const serve = async (request: IncomingMessage, response: ServerResponse) => {
    requests.push(`${request.method} ${request.url} ${request.headers['transfer-encoding'] ?? ''}`.trim())
    if (await options.lfs?.serveObject(request, response)) return
    const given = request.headers.authorization ?? ''
    authorizations.set(given, (authorizations.get(given) ?? 0) + 1)
    if (!isGood(given, request)) askWho(response)
    else if (!(await options.lfs?.serveRepository(request, response))) runBackend({ root, username, request, response })
  }
  const server = createServer({ key: tls.key, cert: tls.cert }, (request, response) => {
    serve(request, response).catch(() => response.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    port,
    caPem: tls.caPem,
    path: '/acme/site.git',
    username,
    password: options.password,
    repository,
    authorizations,
    requests,
    async stop() {
      const closed = once(server.close(), 'close')
      server.closeAllConnections()
      await closed
      await rm(root, { recursive: true, force: true })
    },
  }
}

function askWho(response: ServerResponse): void {
  response
    .writeHead(401, { 'www-authenticate': 'Basic realm="git"', 'content-type': 'text/plain' })
    .end('who are you?\n')
}

interface Backend {
  readonly root: string
  readonly username: string
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

/** CGI/1.1 (RFC 3875) as far as `git http-backend` needs it. */
function runBackend({ root, username, request, response }: Backend): void {
  const url = new URL(request.url ?? '/', 'https://git')
  const child = spawn('git', ['http-backend'], {
    env: {
      PATH: process.env.PATH,
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: '1',
      GIT_CONFIG_NOSYSTEM: '1',
      HOME: root,
      REMOTE_USER: username,
      REMOTE_ADDR: request.socket.remoteAddress ?? '',
      REQUEST_METHOD: request.method,
      PATH_INFO: decodeURIComponent(url.pathname),
      QUERY_STRING: url.search.slice(1),
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      ...optional('CONTENT_LENGTH', request.headers['content-length']),
      ...optional('HTTP_CONTENT_ENCODING', request.headers['content-encoding']),
      ...optional('GIT_PROTOCOL', request.headers['git-protocol'] as string | undefined),
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.on('error', () => {}) // it may answer before it has read everything
  request.pipe(child.stdin)
  relay(child.stdout, response)
  response.once('close', () => child.kill())
}

function optional(name: string, value: string | undefined): Record<string, string> {
  return value === undefined ? {} : { [name]: value }
}

/** CGI headers up to the empty line, then the body as it comes. */
function relay(output: NodeJS.ReadableStream, response: ServerResponse): void {
  let before: Buffer | undefined = Buffer.alloc(0)
  output.on('data', (bytes: Buffer) => {
    if (before === undefined) return void response.write(bytes)
    before = Buffer.concat([before, bytes])
    const end = before.indexOf('\r\n\r\n')
    if (end === -1) return
    for (const line of before.subarray(0, end).toString('latin1').split('\r\n')) {
      const [name = '', value = ''] = line.split(/: */, 2)
      if (name.toLowerCase() === 'status') response.statusCode = Number.parseInt(value, 10)
      else response.setHeader(name, value)
    }
    response.write(before.subarray(end + 4))
    before = undefined
  })
  output.on('end', () => response.end())
}
