/** Servers that others wrote, as second readers of what is sent: nginx, and h11, the strictest parser there is. */
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pythonWith } from '../rig/cache.ts'
import { freePort, untilListening } from '../rig/ports.ts'
import { start } from '../rig/process.ts'

/** One request, as the server understood it. */
export interface Read {
  readonly method: string
  readonly target: string
  /** Of its content. */
  readonly bytes: number
}

export interface Reference {
  readonly port: number
  /** All requests that came whole, and what was no request. */
  read(): Promise<{ readonly whole: readonly Read[]; readonly wrong: readonly string[] }>
  stop(): Promise<void>
}

/** Debian has it where only root looks. */
const nginx = `${process.env.PATH ?? ''}${delimiter}/usr/sbin`
  .split(delimiter)
  .map((path) => join(path, 'nginx'))
  .find(existsSync)

export async function startNginx(): Promise<Reference> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-second-'))
  const port = await freePort()
  await writeFile(join(dir, 'nginx.conf'), configuration(dir, port))
  const server = start(nginx ?? 'nginx', ['-p', dir, '-c', join(dir, 'nginx.conf'), '-e', 'stderr'])
  await untilListening(port)
  return {
    port,
    async read() {
      const text = await readFile(join(dir, 'seen'), 'latin1')
      const lines = text.split('\n').filter((line) => line !== '')
      const seen = lines.map(
        (line) => JSON.parse(line) as { line: string; status: number; method: string; target: string; body: string },
      )
      return {
        whole: seen
          .filter(({ status }) => status === 200)
          .map(({ method, target, body }) => ({ method, target, bytes: body.length })),
        // 499 and an early end of the content: the gateway took back what it had begun.
        wrong: seen
          .filter(({ status, method }) => status !== 200 && status !== 499 && (status !== 400 || method === ''))
          .map(({ line, status }) => `${status} ${line}`),
      }
    },
    async stop() {
      await server.stop()
      await rm(dir, { recursive: true, force: true })
    },
  }
}

/** It reads the content and passes it to itself, so that all of it has been read when the line is written. */
function configuration(dir: string, port: number): string {
  const entry = `{"status":$status,"line":"$request","method":"$request_method","target":"$request_uri","body":"$request_body"}`
  return `
    ${userInfo().uid === 0 ? 'user root;' : ''}
    daemon off; worker_processes 1; pid ${dir}/pid; error_log stderr crit;
    events { worker_connections 256; }
    http {
      log_format seen escape=json '${entry}'; default_type text/plain;
      client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy; fastcgi_temp_path ${dir}/fastcgi;
      uwsgi_temp_path ${dir}/uwsgi; scgi_temp_path ${dir}/scgi;
      server {
        listen 127.0.0.1:${port}; access_log ${dir}/seen seen; merge_slashes off; client_body_buffer_size 1m; client_body_in_single_buffer on;
        large_client_header_buffers 8 64k;
        location / { proxy_pass http://unix:${dir}/behind.sock; }
      }
      server { listen unix:${dir}/behind.sock; access_log off; large_client_header_buffers 8 64k; location / { return 200; } }
    }`
}

export async function startH11(): Promise<Reference> {
  const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))
  const python = await pythonWith(here('../matrix/requirements.txt'))
  const port = await freePort()
  const server = start(python, [here('programs/h11_server.py'), String(port)])
  await server.says(/listening/)
  return {
    port,
    async read() {
      const said = server.stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Partial<Read> & { wrong?: string; after?: string })
      return {
        whole: said.flatMap(({ method, target, bytes }) =>
          method === undefined ? [] : [{ method, target: target ?? '', bytes: bytes ?? 0 }],
        ),
        wrong: said.flatMap(({ wrong, after }) => (wrong === undefined ? [] : [`${wrong} after ${after}`])),
      }
    },
    async stop() {
      await server.stop()
    },
  }
}
