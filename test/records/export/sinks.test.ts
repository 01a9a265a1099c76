/** Where entries go: files that others rotate, receivers behind HTTP, tables in Postgres. */
import { appendFile, mkdtemp, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { FORMATS } from '../../../gateway/protocol/exporting.ts'
import { createReceiver, readDatabaseUrl } from '../../../gateway/provider/receiver.ts'
import { readSecret } from '../../../gateway/provider/reference.ts'
import { formats } from '../../../gateway/records/export/format.ts'
import type { Item } from '../../../gateway/records/export/item.ts'
import { Refusal, Unavailable } from '../../../gateway/records/export/sink.ts'
import { createFileSink } from '../../../gateway/records/export/sink-file.ts'
import { createHttpSink } from '../../../gateway/records/export/sink-http.ts'
import { createPostgresSink } from '../../../gateway/records/export/sink-postgres.ts'
import { findCanary, newCanary } from '../../rig/canary.ts'
import { startPostgres, type TestPostgres } from '../../rig/postgres.ts'
import { entryBytes, itemsOf, LOG, samples } from './entries.fixture.ts'

describe('a file', () => {
  const open = async () => join(await mkdtemp(join(tmpdir(), 'keyless-export-')), 'below', 'log.jsonl')

  it('gets lines at its end, and is made with its directory when it is not there', async () => {
    const path = await open()
    const sink = createFileSink(path, formats.jsonl)
    await sink.deliver(itemsOf().slice(0, 2))
    await sink.deliver(itemsOf().slice(2, 3))
    await sink.close()
    expect(await readFile(path, 'utf8')).toBe(
      entryBytes()
        .slice(0, 3)
        .map((one) => `${one}\n`)
        .join(''),
    )
    expect((await stat(path)).mode & 0o007).toBe(0) // nothing for strangers
  })

  it('may be renamed by another program between any two deliveries: nothing is lost, nothing is split', async () => {
    const path = await open()
    const sink = createFileSink(path, formats.jsonl)
    await sink.deliver(itemsOf().slice(0, 1))
    await rename(path, `${path}.1`)
    await sink.deliver(itemsOf().slice(1, 2))
    await sink.close()
    const both = [`${path}.1`, path].map((one) => readFile(one, 'utf8'))
    expect(await Promise.all(both)).toEqual(
      entryBytes()
        .slice(0, 2)
        .map((one) => `${one}\n`),
    )
  })

  it('that ends in a torn line goes on behind it on a line of its own', async () => {
    const path = await open()
    const first = createFileSink(path, formats.jsonl)
    await first.deliver(itemsOf().slice(0, 1))
    await first.close()
    await appendFile(path, '{"torn":')
    const sink = createFileSink(path, formats.jsonl)
    await sink.deliver(itemsOf().slice(1, 2))
    await sink.close()
    expect((await readFile(path, 'utf8')).split('\n')).toEqual([
      String(entryBytes()[0]),
      '{"torn":',
      String(entryBytes()[1]),
      '',
    ])
  })

  it('that cannot be written makes the export wait, and not give entries up', async () => {
    const sink = createFileSink(join('/dev/full', 'x'), formats.jsonl)
    await expect(sink.deliver(itemsOf())).rejects.not.toBeInstanceOf(Refusal)
    const full = createFileSink('/dev/full', formats.jsonl)
    await expect(full.deliver(itemsOf())).rejects.toMatchObject({ code: 'ENOSPC' })
  })
})

describe('a receiver behind HTTP', () => {
  let server: Server
  let url: string
  let answer: (request: IncomingMessage, response: ServerResponse, body: Buffer) => void
  const canary = newCanary().replaceAll(/[^\x21-\x7e]/g, '')

  beforeAll(async () => {
    server = createServer(async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      answer(request, response, Buffer.concat(chunks))
    })
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(() => void server.close())

  const sink = async (format: (typeof FORMATS)[number], path = '') => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-export-'))
    await writeFile(join(dir, 'token'), `Bearer ${canary}\n`)
    const send = await createReceiver({
      fetch,
      headers: { authorization: { file: 'token' } },
      readSecret: (place) => readSecret(place, { baseDir: dir }),
    })
    return createHttpSink({ url: url + path, format: formats[format], send, nowMs: Date.now })
  }

  it.each([
    ['ocsf', '/services/collector/raw', '/services/collector/raw', 'application/x-ndjson'],
    ['cef', '/', '/', 'text/plain; charset=utf-8'],
  ] as const)('gets %s as lines, with its secret header', async (format, path, where, type) => {
    const seen: unknown[] = []
    answer = (request, response, body) => {
      seen.push([request.url, request.headers['content-type'], request.headers.authorization])
      expect(body.toString()).toBe(formats[format].bodies(itemsOf())[0]?.text)
      response.end()
    }
    await (await sink(format, path)).deliver(itemsOf())
    expect(seen).toEqual([[where, type, `Bearer ${canary}`]])
  })

  it.each(['', '/', '/v1/logs', '/v1/traces', '/v1/logs/'])(
    'gets OTLP at both of its places, zipped, from the URL "%s"',
    async (path) => {
      const seen: string[] = []
      answer = (request, response, body) => {
        seen.push(request.url as string)
        expect(request.headers['content-encoding']).toBe('gzip')
        expect(Object.keys(JSON.parse(gunzipSync(body).toString()))).toEqual([
          request.url === '/v1/logs' ? 'resourceLogs' : 'resourceSpans',
        ])
        response.setHeader('content-type', 'application/json').end('{"partialSuccess":{}}')
      }
      await (await sink('otlp', path)).deliver(itemsOf())
      expect(seen).toEqual(['/v1/logs', '/v1/traces'])
    },
  )

  it.each([400, 413, 422])('that says %i means the entries', async (status) => {
    answer = (_, response) => void response.writeHead(status).end('no')
    await expect((await sink('jsonl')).deliver(itemsOf())).rejects.toThrow(Refusal)
  })

  it.each([401, 403, 404, 405, 408, 415, 429, 500, 502, 503, 504, 302])(
    'that says %i is asked again later',
    async (status) => {
      answer = (_, response) =>
        void response.writeHead(status, { location: '/elsewhere', 'retry-after': '7' }).end('no')
      // A redirect is not followed: whoever sends it would get the header.
      await expect((await sink('jsonl')).deliver(itemsOf())).rejects.toMatchObject({
        name: 'Unavailable',
        retryAfterMs: 7000,
      })
    },
  )

  it('may ask to be left alone until a date, and for ten minutes at most', async () => {
    const asked = async (value: string) => {
      answer = (_, response) => void response.writeHead(503, { 'retry-after': value }).end()
      const cause = await (await sink('jsonl')).deliver(itemsOf()).catch((one: Unavailable) => one)
      return (cause as Unavailable).retryAfterMs
    }
    expect(await asked(new Date(Date.now() + 60_000).toUTCString())).toBeGreaterThan(55_000)
    expect(await asked('86400')).toBe(600_000)
    expect(await asked('soon')).toBeUndefined()
  })

  it('that takes a part of OTLP and says so has refused the batch', async () => {
    answer = (_, response) =>
      void response.end('{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too long"}}')
    await expect((await sink('otlp')).deliver(itemsOf())).rejects.toThrow(/1 rejected: too long/)
  })

  it('that says our secret back does not get it into a message, in part or whole', async () => {
    for (const text of [
      `bad token Bearer ${canary}`,
      `bad token ${canary}`,
      JSON.stringify({ token: `Bearer ${canary}` }),
    ]) {
      answer = (_, response) => void response.writeHead(400).end(`${text}\u001b[31m`)
      const cause = (await (await sink('jsonl')).deliver(itemsOf()).catch((one: Error) => one)) as Error
      expect(cause.message).toContain('[secret]')
      expect(findCanary(cause.message, canary)).toEqual([])
      expect(cause.message).not.toMatch(/\p{Cc}/u)
    }
  })

  it('gets a rotated secret after it refused the old one', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-export-'))
    await writeFile(join(dir, 'token'), 'old')
    const send = await createReceiver({
      fetch,
      headers: { authorization: { file: 'token' } },
      readSecret: (place) => readSecret(place, { baseDir: dir }),
    })
    const one = createHttpSink({ url, format: formats.jsonl, send, nowMs: Date.now })
    answer = (request, response) => void response.writeHead(request.headers.authorization === 'new' ? 200 : 401).end()
    await writeFile(join(dir, 'token'), 'new')
    await expect(one.deliver(itemsOf())).rejects.toThrow(Unavailable)
    await one.deliver(itemsOf())
  })
})

describe('a table in Postgres', () => {
  let postgres: TestPostgres
  let url: string
  let client: pg.Client

  beforeAll(async () => {
    postgres = await startPostgres()
    url = await postgres.fresh()
    client = new pg.Client({ connectionString: url })
    await client.connect()
  }, 30_000)
  afterAll(async () => {
    await client?.end()
    await postgres?.stop()
  })
  afterEach(() => client.query('DROP TABLE IF EXISTS given'))

  const sink = (format: (typeof FORMATS)[number]) =>
    createPostgresSink({ url, table: 'given', format: formats[format] })

  it.each(FORMATS)(
    'is made when it is not there, and holds each entry once however often it is sent: %s',
    async (format) => {
      const one = sink(format)
      await one.deliver(itemsOf())
      await one.deliver(itemsOf())
      const again = sink(format)
      await again.deliver(itemsOf())
      await Promise.all([one.close(), again.close()])
      const { rows } = await client.query('SELECT log, seq::int, kind, event::text FROM given ORDER BY seq')
      expect(rows.map(({ seq, kind, log }) => [log, seq, kind])).toEqual(samples.map(({ kind }, i) => [LOG, i, kind]))
      if (format === 'jsonl')
        expect(rows.map(({ event }) => JSON.parse(event))).toEqual(
          entryBytes().map((bytes) => JSON.parse(String(bytes))),
        )
    },
  )

  it('takes an entry with U+0000 in it, which Postgres has no place for: nobody hides an entry by it', async () => {
    const one = sink('jsonl')
    const texts = ['\u0000', 'a\\u0000b', '\\\u0000']
    await one.deliver(itemsOf(texts.map((purpose) => ({ ...samples[5], task: { id: 't', purpose } }))))
    await one.close()
    const { rows } = await client.query("SELECT event->'task'->>'purpose' AS purpose FROM given ORDER BY seq")
    expect(rows.map(({ purpose }) => purpose)).toEqual(['\ufffd', 'a\\u0000b', '\\\ufffd'])
  })

  it('that goes away and comes back goes on', async () => {
    const one = sink('ocsf')
    await one.deliver(itemsOf().slice(0, 3))
    await client.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keyless export'",
    )
    await one.deliver(itemsOf()).catch(() => undefined) // the broken connection may be noticed only now
    await one.deliver(itemsOf())
    await one.close()
    expect((await client.query('SELECT count(*)::int AS n FROM given')).rows).toEqual([{ n: samples.length }])
  })

  it('that is not there makes the export wait, without the password in what it says', async () => {
    const canary = newCanary().replaceAll(/[^A-Za-z0-9]/g, '')
    const away = createPostgresSink({
      url: `postgres://keyless:${canary}@127.0.0.1:1/none`,
      table: 'given',
      format: formats.jsonl,
    })
    const cause = (await away.deliver(itemsOf()).catch((one: Error) => one)) as Error
    expect(cause).toBeInstanceOf(Unavailable)
    expect(findCanary(cause.message, canary)).toEqual([])
  })

  it('that refuses a row by its own rules is a refusal of the entries', async () => {
    const one = sink('jsonl')
    await one.deliver([])
    await client.query("ALTER TABLE given ADD CHECK (kind <> 'leak.detected')")
    await expect(one.deliver(itemsOf())).rejects.toThrow(Refusal)
    await one.deliver(itemsOf().filter(({ entry }: Item) => entry.kind !== 'leak.detected'))
    await one.close()
  })
})

it('the address of a database is not repeated when it is none', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-export-'))
  const canary = newCanary()
  await writeFile(join(dir, 'url'), canary)
  const cause = (await readDatabaseUrl({ file: 'url' }, (place) => readSecret(place, { baseDir: dir })).catch(
    (one: Error) => one,
  )) as Error
  expect(cause.message).toMatch(/is not one/)
  expect(findCanary(cause.message, canary)).toEqual([])
})
