/** SECURITY.md 5, 7, 9: a gRPC client works unmodified through the gateway, never sees a credential, and reads why it was refused. */
import { once } from 'node:events'
import * as grpc from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { ask, type Client, type GrpcUpstream, listed, type Note, openClient, startGrpc } from './grpc.fixture.ts'

const KEY = 'sk-canary-7c1f0e9d8b6a5948372615f4e3d2c1b0'
let upstream: GrpcUpstream
let site: OpenSite
let ca: string
const clients: Client[] = []

beforeAll(async () => {
  upstream = await startGrpc()
  site = await openSite(upstream, {
    services: [
      {
        name: 'notes',
        operations: {
          use: { match: ['POST /notes.Notes/{method}'], access: 'write' },
          remove: {
            match: ['POST /notes.Notes/Delete', 'POST /notes.Notes/DeleteAll'],
            access: 'write',
            irreversible: true,
          },
        } as never,
      },
    ],
    credentials: { notes: KEY },
  })
  ca = (await site.gateway.control.status()).ca_pem
})

afterAll(async () => {
  for (const client of clients) client.close()
  await site.stop()
  await upstream.stop()
})

async function agent(options: grpc.ChannelOptions = {}): Promise<{ client: Client; task: string }> {
  const { handle, task } = await site.gateway.openTask('notes:*')
  const client = openClient(upstream.port, ca, { port: site.gateway.proxyPort, handle }, options)
  clients.push(client)
  return { client, task }
}

describe('a gRPC call', () => {
  it('is answered with head, message and trailers, under a credential that the client never sees', async () => {
    const { client } = await agent()
    const metadata = new grpc.Metadata()
    metadata.set('authorization', 'Bearer of-the-agent')
    metadata.add('x-tag', 'a')
    metadata.add('x-tag', 'b')
    const { error, text, head, status } = await ask(client, 'Get', { metadata })
    expect(error).toBe(null)
    expect(upstream.seen.at(-1)).toMatchObject({ authorization: `Bearer ${KEY}`, 'x-tag': 'a, b' })
    expect(text).toBe(`hello Bearer ${'*'.repeat(KEY.length)}`)
    expect(head).toMatchObject({ 'x-region': 'eu' })
    expect(status.metadata.get('x-cost')).toEqual(['7'])
    expect(status.metadata.get('x-raw-bin')).toEqual([Buffer.from([0, 255, 10])])
  })

  it('streams up', async () => {
    const { client } = await agent()
    const count = await new Promise((resolve, reject) => {
      const call = client.Collect((error, note) => (error ? reject(error) : resolve(note.text)))
      for (let i = 0; i < 500; i++) call.write({ text: 'x'.repeat(1_000) })
      call.end()
    })
    expect(count).toBe('500')
  })

  it('streams down', async () => {
    const { client } = await agent()
    const { notes, status } = await listed(client.List({ text: '500' }))
    expect(notes.length).toBe(500)
    expect(status.code).toBe(grpc.status.OK)
    expect(status.metadata.get('x-cost')).toEqual(['7'])
  })

  it('streams both ways, message by message', async () => {
    const { client } = await agent()
    const call = client.Chat()
    const end = listed(call)
    for (const text of ['one', 'two', 'three']) {
      call.write({ text })
      const [note] = (await once(call, 'data')) as [Note]
      expect(note.text).toBe(`re: ${text}`)
    }
    call.end()
    expect(await end).toMatchObject({ notes: ['re: one', 're: two', 're: three'], status: { code: grpc.status.OK } })
  })

  it('fails with the status, the text and the metadata of its upstream', async () => {
    const { client } = await agent()
    const { error } = await ask(client, 'Fail')
    expect(error).toMatchObject({ code: grpc.status.INVALID_ARGUMENT, details: 'no note – «leer»' })
    expect(error?.metadata.get('x-cost')).toEqual(['7'])
  })

  it('ends at its deadline, and its upstream hears of it', async () => {
    const { client } = await agent()
    const { error } = await ask(client, 'Wait', { deadline: Date.now() + 1_000 })
    expect(error?.code).toBe(grpc.status.DEADLINE_EXCEEDED)
    await expect.poll(() => upstream.cancelled).toContain('Wait')
  })

  it('can be cancelled while it streams, and its upstream hears of it', async () => {
    const { client } = await agent()
    const call = client.Chat()
    const end = listed(call)
    call.write({ text: 'one' })
    await once(call, 'data')
    call.cancel()
    expect((await end).status.code).toBe(grpc.status.CANCELLED)
    await expect.poll(() => upstream.cancelled).toContain('Chat')
  })

  it('whose answer breaks off is never OK', async () => {
    const { client } = await agent()
    const { notes, status } = await listed(client.Break({ text: '' }))
    expect(notes).toEqual(['first'])
    expect(status.code).toBe(grpc.status.INTERNAL)
  })

  it('that streams is cut when its task ends, at both ends', async () => {
    const { client, task } = await agent()
    const call = client.Chat()
    const end = listed(call)
    call.write({ text: 'one' })
    await once(call, 'data')
    const before = upstream.cancelled.length
    await site.gateway.control.completeTask(task)
    expect((await end).status.code).toBe(grpc.status.INTERNAL)
    await expect.poll(() => upstream.cancelled.length).toBe(before + 1)
  })

  it('is one of many on a connection, each recorded', async () => {
    const { client, task } = await agent()
    const answers = await Promise.all(Array.from({ length: 100 }, () => ask(client, 'Get')))
    expect(answers.filter(({ error }) => error !== null)).toEqual([])
    const entries = await entriesOf(site.gateway.settings.dataDir)
    const mine = entries.filter((entry) => entry.task?.id === task).map(({ kind }) => kind)
    expect(mine.filter((kind) => kind === 'call.decision')).toHaveLength(100)
    expect(mine.filter((kind) => kind === 'call.outcome')).toHaveLength(100)
  })
})

describe('a refused gRPC call', () => {
  it('surfaces as PERMISSION_DENIED with sentence and code, and is not tried again', async () => {
    const retrying = {
      methodConfig: [
        {
          name: [{}],
          retryPolicy: {
            maxAttempts: 5,
            initialBackoff: '0.01s',
            maxBackoff: '0.05s',
            backoffMultiplier: 1,
            retryableStatusCodes: ['PERMISSION_DENIED', 'UNAVAILABLE'],
          },
        },
      ],
    }
    const { client, task } = await agent({ 'grpc.service_config': JSON.stringify(retrying) })
    const { error } = await ask(client, 'Delete')
    expect(error?.code).toBe(grpc.status.PERMISSION_DENIED)
    expect(error?.details).toMatch(/^Policy does not allow this call: .*\(keyless policy_denied, [0-9a-f-]{36}\)$/)
    expect(error?.metadata.get('keyless-error')).toEqual(['policy_denied'])
    const entries = await entriesOf(site.gateway.settings.dataDir)
    expect(entries.filter((entry) => entry.task?.id === task && entry.kind.startsWith('call.'))).toHaveLength(1)
  })

  it('that streams is refused before its first message, however much it sends', async () => {
    const { client } = await agent()
    const call = client.DeleteAll()
    const end = listed(call)
    for (let i = 0; i < 200; i++) call.write({ text: 'x'.repeat(10_000) })
    expect((await end).status).toMatchObject({ code: grpc.status.PERMISSION_DENIED })
  })

  it('of a task that has ended is UNAUTHENTICATED, on the connection that was open before', async () => {
    const { client, task } = await agent()
    expect((await ask(client, 'Get')).error).toBe(null)
    await site.gateway.control.completeTask(task)
    const { error } = await ask(client, 'Get')
    expect(error?.code).toBe(grpc.status.UNAUTHENTICATED)
    expect(error?.metadata.get('keyless-error')).toEqual(['grant_revoked'])
  })

  it('for an upstream that is not there is UNAVAILABLE', async () => {
    const gone = await startGrpc()
    await gone.stop()
    const other = await openSite(gone, {
      services: [
        { name: 'notes', operations: { use: { match: ['POST /notes.Notes/{method}'], access: 'write' } } as never },
      ],
      credentials: { notes: KEY },
    })
    const { handle } = await other.gateway.openTask('notes:*')
    const otherCa = (await other.gateway.control.status()).ca_pem
    const client = openClient(gone.port, otherCa, { port: other.gateway.proxyPort, handle })
    const { error } = await ask(client, 'Get')
    expect(error?.code).toBe(grpc.status.UNAVAILABLE)
    expect(error?.metadata.get('keyless-error')).toEqual(['upstream_refused'])
    client.close()
    await other.stop()
  })
})
