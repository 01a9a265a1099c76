/** An AWS client that signs with placeholders reaches AWS through the gateway, signed with a session of its own grant, and nothing else. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignatureV4 } from '@smithy/signature-v4'
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from 'jose'
import { type Agent, ProxyAgent, request } from 'undici'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parseDocument } from 'yaml'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { startAws, type TestAws } from '../rig/aws.ts'
import { Sha256, sha256 } from '../rig/aws-verifier.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'

const REGION = 'eu-west-1'
const HOSTS = {
  s3: `s3.${REGION}.amazonaws.com`,
  bucket: `reports.s3.${REGION}.amazonaws.com`,
  dynamodb: `dynamodb.${REGION}.amazonaws.com`,
  sns: `sns.${REGION}.amazonaws.com`,
  sts: `sts.${REGION}.amazonaws.com`,
}
const PLACEHOLDERS = {
  accessKeyId: 'AKIAKEYLESSPLACEHOLD',
  secretAccessKey: 'keyless-placeholder-keyless-placeholder0',
}

let dir: string
let aws: TestAws
let rig: TestGateway
let ca: string
const agents: Agent[] = []

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-aws-flow-'))
  const tls = await throwAwayTls(Object.values(HOSTS).concat('s3.amazonaws.com'))
  aws = await startAws({ tls, verifyToken })
  await writeFile(join(dir, 'ca.pem'), tls.caPem)
  const services = await Promise.all(['aws-s3', 'aws-dynamodb', 'aws-sns', 'aws-sts'].map(serviceFile))
  const known = Object.fromEntries(
    Object.values(HOSTS)
      .concat('s3.amazonaws.com')
      .map((host) => [host, '127.0.0.1']),
  )
  rig = await startGateway(`
public_url: https://keyless.acme.test
services: ${JSON.stringify(services)}
credentials:
  aws:
    provider: aws
    region: ${REGION}
    source: { assertion: {} }
    role_arn: arn:aws:iam::123456789012:role/agents
    sts_url: https://${HOSTS.sts}:${aws.port}
    addresses: [127.0.0.1/32]
upstream: { ca: [${join(dir, 'ca.pem')}], hosts: ${JSON.stringify(known)} }
`)
  ca = await readFile(join(rig.settings.dataDir, 'keys', 'ca.pem'), 'utf8')
})
beforeEach(() => {
  aws.calls.length = 0
  aws.aheadMs = 0
})
afterAll(async () => {
  await Promise.all(agents.map((agent) => agent.close()))
  await rig?.stop()
  await aws?.stop()
  await rm(dir, { recursive: true, force: true })
})

/** As IAM does: with the keys that the gateway publishes. */
async function verifyToken(token: string) {
  const keys = (await (await fetch(`${rig.gateway.control}/assertions/jwks.json`)).json()) as JSONWebKeySet
  const { payload } = await jwtVerify(token, createLocalJWKSet(keys), {
    issuer: 'https://keyless.acme.test/assertions',
    audience: 'sts.amazonaws.com',
  })
  return payload
}

/** The shipped file, on the port of the test's AWS. */
async function serviceFile(name: string): Promise<string> {
  const file = parseDocument(await readFile(new URL(`../../policies/services/${name}.yaml`, import.meta.url), 'utf8'))
  file.set('ports', [aws.port])
  file.set('addresses', ['127.0.0.0/8'])
  const path = join(dir, `${name}.yaml`)
  await writeFile(path, file.toString())
  return path
}

interface Sent {
  readonly method?: string
  readonly path?: string
  readonly headers?: Record<string, string>
  readonly body?: string | Buffer
  readonly region?: string
  readonly service?: string
}

/** An agent with a task of this scope, whose client signs as SDKs do. */
async function agent(scope: string) {
  const task = await rig.openTask(scope, 'reports')
  const token = `Basic ${Buffer.from(`${task.task}:${task.handle}`).toString('base64')}`
  const proxy = new ProxyAgent({ uri: `http://127.0.0.1:${rig.proxyPort}`, token, requestTls: { ca } })
  agents.push(proxy as unknown as Agent)
  const send = async (host: string, { method = 'GET', path = '/', headers = {}, body = '' }: Sent) => {
    const answer = await request(`https://${host}:${aws.port}${path}`, {
      dispatcher: proxy,
      method,
      headers,
      ...(body !== '' && { body }),
    })
    return { status: answer.statusCode, headers: answer.headers, text: await answer.body.text() }
  }
  const signed = async (host: string, o: Sent) => {
    const {
      method = 'GET',
      path = '/',
      headers = {},
      body,
      region = REGION,
      service = host.split('.').at(-4) ?? '',
    } = o
    const url = new URL(path, 'https://x')
    const signer = new SignatureV4({
      credentials: PLACEHOLDERS,
      region,
      service,
      sha256: Sha256 as never,
      uriEscapePath: service !== 's3',
      applyChecksum: service === 's3',
    })
    const out = await signer.sign({
      method,
      protocol: 'https:',
      hostname: host,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      headers: { host: `${host}:${aws.port}`, ...headers },
      body,
    })
    return send(host, { ...o, headers: out.headers })
  }
  return { task, send, signed }
}

const last = () => aws.calls.at(-1)
const lastText = () => {
  const { received } = last() ?? {}
  return `${received?.path}\n${received?.rawHeaders.join('\n')}`
}

describe('an AWS client behind the gateway', () => {
  it('calls S3 with a session that can do what its grant can, and that AWS can trace', async () => {
    const { signed, task } = await agent('aws-s3:object.get')
    expect(await signed(HOSTS.bucket, { path: '/2026/a%20b.csv?versionId=1' })).toMatchObject({ status: 200 })
    expect(last()?.verdict).toMatchObject({
      region: REGION,
      service: 's3',
      accessKeyId: expect.stringMatching(/^ASIA/),
    })
    expect(lastText()).not.toContain(PLACEHOLDERS.accessKeyId)
    const session = aws.sessions.at(-1) ?? {}
    expect(session).toMatchObject({ Action: 'AssumeRoleWithWebIdentity', RoleSessionName: task.task })
    expect(JSON.parse(session.Policy ?? '').Statement).toEqual([
      { Effect: 'Allow', Action: ['s3:GetObject', 's3:GetObjectVersion'], Resource: ['arn:aws:s3:::*/*'] },
    ])
    expect(JSON.parse(session.claims ?? '')['https://aws.amazon.com/tags'].principal_tags['keyless:task']).toEqual([
      task.task,
    ])
  })

  it('uploads in every way in which SDKs sign a body', async () => {
    const { send, signed } = await agent('aws-s3:object.put')
    const body = Buffer.alloc(100_000, 'body')
    const put = { method: 'PUT', path: '/reports/new' }
    const claim = {
      authorization: `AWS4-HMAC-SHA256 Credential=x/20261122/${REGION}/s3/aws4_request, SignedHeaders=host, Signature=00`,
    }
    const chunks = (end: string) =>
      Buffer.concat([
        Buffer.from(`186a0;chunk-signature=${'0'.repeat(64)}\r\n`),
        body,
        Buffer.from(`\r\n0;chunk-signature=${'0'.repeat(64)}\r\n${end}`),
      ])
    const trailer = `x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:${'0'.repeat(64)}\r\n\r\n`
    const streamed = { ...claim, 'x-amz-decoded-content-length': '100000', 'content-encoding': 'aws-chunked' }
    const kind = 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD'
    const ways = [
      () => signed(HOSTS.s3, { ...put, body }),
      () => signed(HOSTS.s3, { ...put, body, headers: { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } }),
      () => send(HOSTS.s3, { ...put, body: chunks('\r\n'), headers: { ...streamed, 'x-amz-content-sha256': kind } }),
      () =>
        send(HOSTS.s3, {
          ...put,
          body: chunks(trailer),
          headers: { ...streamed, 'x-amz-content-sha256': `${kind}-TRAILER`, 'x-amz-trailer': 'x-amz-checksum-crc32' },
        }),
    ]
    for (const way of ways) {
      const answer = await way()
      expect(JSON.parse(answer.text)).toMatchObject({ service: 's3', sha256: sha256(body) })
    }
    const opaque = '186a0\r\nas it is'
    await send(HOSTS.s3, {
      ...put,
      body: opaque,
      headers: { ...streamed, 'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER' },
    })
    expect(last()).toMatchObject({ verdict: { service: 's3' }, received: { body: Buffer.from(opaque) } })
  })

  it('uses presigned URLs that it made with placeholders, and requests that are not signed at all', async () => {
    const { send } = await agent('aws-s3:object.get')
    const signer = new SignatureV4({
      credentials: PLACEHOLDERS,
      region: REGION,
      service: 's3',
      sha256: Sha256 as never,
      uriEscapePath: false,
    })
    const made = await signer.presign(
      {
        method: 'GET',
        protocol: 'https:',
        hostname: HOSTS.s3,
        path: '/reports/k',
        query: { 'response-content-type': 'text/x' },
        headers: { host: HOSTS.s3 },
      },
      { expiresIn: 600 },
    )
    const path = `/reports/k?${new URLSearchParams(made.query as Record<string, string>)}`
    expect(await send(HOSTS.s3, { path })).toMatchObject({ status: 200 })
    expect(last()?.received.path).toMatch(/response-content-type=text%2Fx&X-Amz-Algorithm=.+X-Amz-Security-Token=/)
    expect(await send(HOSTS.s3, { path: '/reports/k' })).toMatchObject({ status: 200 })
    expect(last()?.verdict).toMatchObject({ region: REGION, service: 's3' })
  })

  it('is decided on by what X-Amz-Target or a form says', async () => {
    const { signed } = await agent('aws-dynamodb:item.read aws-sns:message.publish aws-sts:identity.read')
    const dynamo = (target: string) =>
      signed(HOSTS.dynamodb, {
        method: 'POST',
        body: '{"TableName":"orders"}',
        headers: { 'content-type': 'application/x-amz-json-1.0', 'x-amz-target': `DynamoDB_20120810.${target}` },
      })
    const form = (host: string, body: string) =>
      signed(host, {
        method: 'POST',
        body,
        headers: { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' },
      })
    expect(await dynamo('GetItem')).toMatchObject({ status: 200 })
    expect(last()).toMatchObject({
      verdict: { service: 'dynamodb' },
      received: { body: Buffer.from('{"TableName":"orders"}') },
    })
    expect(await form(HOSTS.sns, 'Action=Publish&Message=a+b')).toMatchObject({ status: 200 })
    expect(last()).toMatchObject({
      verdict: { service: 'sns' },
      received: { body: Buffer.from('Action=Publish&Message=a+b') },
    })
    const before = aws.calls.length
    for (const answer of [
      await dynamo('DeleteTable'),
      await dynamo('getitem'),
      await form(HOSTS.sns, 'Action=DeleteTopic'),
      await form(HOSTS.sns, 'Message=x'),
      await form(HOSTS.sts, 'Action=AssumeRole&Version=2011-06-15&RoleArn=x'),
    ])
      expect(answer).toMatchObject({ status: 403, headers: { 'keyless-error': 'scope_exceeded' } })
    for (const body of [
      'Action=Publish&Action=DeleteTopic',
      'Action=Publish&action=DeleteTopic',
      'Action=Publish&%41ction=DeleteTopic',
    ])
      expect(await form(HOSTS.sns, body)).toMatchObject({
        status: 400,
        headers: { 'keyless-error': 'request_malformed' },
      })
    const both = await signed(HOSTS.sns, {
      method: 'POST',
      path: '/?Action=DeleteTopic',
      body: 'Action=Publish',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    })
    expect(both.status).toBe(400)
    expect(aws.calls).toHaveLength(before)
  })

  it('does nothing at S3 that a subresource or a field makes of an ordinary request', async () => {
    const { signed, send } = await agent('aws-s3:object.get aws-s3:object.put aws-s3:bucket.list')
    const before = aws.calls.length
    for (const [host, o] of [
      [HOSTS.s3, { path: '/reports?policy' }],
      [HOSTS.s3, { method: 'PUT', path: '/reports?policy=x' }],
      [HOSTS.bucket, { method: 'PUT', path: '/k?acl', body: 'x' }],
      [HOSTS.bucket, { method: 'PUT', path: '/k?%61cl=1', body: 'x' }],
      [HOSTS.bucket, { method: 'PUT', path: '/k', headers: { 'x-amz-copy-source': '/secret/key' } }],
      [
        HOSTS.bucket,
        { method: 'PUT', path: '/k?partNumber=1&uploadId=2', headers: { 'x-amz-copy-source': '/secret/key' } },
      ],
      [HOSTS.bucket, { method: 'DELETE', path: '/k' }],
      [HOSTS.bucket, { method: 'POST', path: '/?delete', body: '<Delete/>' }],
    ] as [string, Sent][])
      expect(await signed(host, o), JSON.stringify(o)).toMatchObject({ status: 403 })
    for (const path of ['/reports/k?x-amz-copy-source=/secret/key', '/reports/k?X-Amz-Copy-Source=%2Fsecret%2Fkey'])
      expect(await send(HOSTS.s3, { method: 'PUT', path })).toMatchObject({ status: 403 })
    expect(aws.calls).toHaveLength(before)
  })

  it('gets no signature for another region or service than the host’s, whatever it claims', async () => {
    const { signed, send } = await agent('aws-s3:*')
    const claim = (scope: string) => ({
      authorization: `AWS4-HMAC-SHA256 Credential=x/20261122/${scope}/aws4_request, SignedHeaders=host, Signature=00`,
    })
    const before = aws.calls.length
    expect(await signed(HOSTS.s3, { path: '/b/k', region: 'us-east-1' })).toMatchObject({ status: 421 })
    expect(await send(HOSTS.s3, { path: '/b/k', headers: claim(`${REGION}/iam`) })).toMatchObject({ status: 421 })
    const twice = {
      authorization: `${claim(`${REGION}/s3`).authorization}, Credential=x/20261122/us-east-1/iam/aws4_request`,
    }
    expect(await send(HOSTS.s3, { path: '/b/k', headers: twice })).toMatchObject({ status: 400 })
    expect(aws.calls).toHaveLength(before)
  })

  it('cannot pass on anything of its own signature', async () => {
    const { send } = await agent('aws-s3:object.get')
    const foreign = {
      authorization: 'AWS AKIAFOREIGN:sig',
      'x-amz-security-token': 'foreign-token',
      'X-Amz-S3session-Token': 'foreign-token',
      X_Amz_Security_Token: 'foreign-token',
      'x-amz-date': '20000101T000000Z',
    }
    expect(
      await send(HOSTS.s3, {
        path: '/b/k?x-amz-security-token=foreign-token&X%2Damz-Security-Token=foreign-token&AWSAccessKeyId=AKIAFOREIGN',
        headers: foreign,
      }),
    ).toMatchObject({ status: 200 })
    expect(lastText().toLowerCase()).not.toContain('foreign')
    expect(lastText()).not.toContain('20000101')
  })

  it('is told in its own words when a chunk lies, and nothing is stored', async () => {
    const { send } = await agent('aws-s3:object.put')
    const headers = {
      authorization: `AWS4-HMAC-SHA256 Credential=x/20261122/${REGION}/s3/aws4_request, SignedHeaders=host, Signature=00`,
      'x-amz-content-sha256': 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
      'x-amz-decoded-content-length': '200000',
    }
    const honest = `30d40;chunk-signature=${'0'.repeat(64)}\r\n${'x'.repeat(200_000)}\r\n0;chunk-signature=${'0'.repeat(64)}\r\n\r\n`
    for (const lie of [honest.replace('30d40', '30d41'), honest.slice(0, -80), `${honest}0`]) {
      const answer = await send(HOSTS.bucket, { method: 'PUT', path: '/k', headers, body: lie })
      expect(answer).toMatchObject({ status: 400, headers: { 'keyless-error': 'request_malformed' } })
      expect(answer.text).toContain('<Code>')
    }
    expect(aws.calls).toEqual([])
  })

  it('is served although the clocks of gateway and AWS differ', async () => {
    const { signed } = await agent('aws-s3:object.get')
    expect(await signed(HOSTS.s3, { path: '/b/k' })).toMatchObject({ status: 200 })
    aws.aheadMs = 20 * 60_000
    expect(await signed(HOSTS.s3, { path: '/b/k' })).toMatchObject({ status: 200 })
    expect(last()?.verdict).toMatchObject({ service: 's3' })
  })

  it('does not notice that somebody ended its session, though the body alone says so', async () => {
    const { signed } = await agent('aws-s3:object.get aws-dynamodb:item.read')
    const dynamo = { method: 'POST', body: '{}', headers: { 'x-amz-target': 'DynamoDB_20120810.GetItem' } }
    for (const [host, sent] of [
      [HOSTS.s3, { path: '/b/k' }],
      [HOSTS.dynamodb, dynamo],
    ] as [string, Sent][]) {
      expect(await signed(host, sent)).toMatchObject({ status: 200 })
      aws.endSessions()
      expect(await signed(host, sent)).toMatchObject({ status: 200 })
    }
  })

  it('reaches S3 by a base URL, with its handle as session token', async () => {
    const { task } = await agent('aws-s3:object.get')
    const headers = {
      authorization:
        'AWS4-HMAC-SHA256 Credential=x/20261122/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00',
      'x-amz-security-token': task.handle,
    }
    const url = `http://127.0.0.1:${rig.proxyPort}/aws-s3/reports/k`
    const answer = await fetch(url, { headers })
    expect(answer.status, await answer.clone().text()).toBe(200)
    expect(last()?.verdict).toMatchObject({ region: 'us-east-1', service: 's3' })
    expect(lastText()).not.toContain(task.handle)
    expect((await fetch(url)).status).toBe(401)
  })
})
