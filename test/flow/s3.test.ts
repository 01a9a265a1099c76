/** boto3 behind the gateway, against a server that verifies every signature, hash and checksum on its own: all its ways to sign a body arrive. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseDocument } from 'yaml'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { onPath, pythonWith } from '../rig/cache.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { ROOT, run } from '../rig/process.ts'
import { startS3, type TestS3 } from '../rig/s3.ts'

const REGION = 'eu-west-1'
const HOST = `s3.${REGION}.amazonaws.com`
const KEY = "a b/ü+(x)*&=~'!.txt"
const KEYS = {
  accessKeyId: 'ASIATESTOFKEYLESSXYZ',
  secretAccessKey: 'the+real/key+that/no+agent+may+ever+have',
  sessionToken: 'IQoJb3JpZ2luX2VjEL+the/real/session==',
}

let dir: string
let s3: TestS3
let rig: TestGateway

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-s3-flow-'))
  const hosts = [HOST, `reports.${HOST}`]
  const tls = await throwAwayTls(hosts)
  s3 = await startS3({ tls, keys: KEYS, region: REGION, bucket: 'reports' })
  const file = parseDocument(await readFile(join(ROOT, 'policies', 'services', 'aws-s3.yaml'), 'utf8'))
  file.set('ports', [s3.port])
  file.set('addresses', ['127.0.0.0/8'])
  await writeFile(join(dir, 'aws-s3.yaml'), file.toString())
  await writeFile(join(dir, 'ca.pem'), tls.caPem)
  for (const [name, value] of Object.entries(KEYS)) await writeFile(join(dir, name), value, { mode: 0o600 })
  const source = Object.entries({
    access_key_id: 'accessKeyId',
    secret_access_key: 'secretAccessKey',
    session_token: 'sessionToken',
  })
  rig = await startGateway(`
services: [${join(dir, 'aws-s3.yaml')}]
credentials:
  aws:
    provider: aws
    region: ${REGION}
    session: none
    source: { ${source.map(([member, name]) => `${member}: { file: ${join(dir, name)} }`).join(', ')} }
upstream: { ca: [${join(dir, 'ca.pem')}], hosts: ${JSON.stringify(Object.fromEntries(hosts.map((host) => [host, '127.0.0.1'])))} }
`)
})
afterAll(async () => {
  await rig?.stop()
  await s3?.stop()
  await rm(dir, { recursive: true, force: true })
})

it('boto3 puts, gets, lists, presigns and uploads in parts, in every way in which it signs', {
  timeout: 300_000,
}, async (context) => {
  if (!onPath('python3') && !process.env.CI) return context.skip('this machine has no python3')
  const python = await pythonWith(join(ROOT, 'test/matrix/requirements.txt'))
  const { task, handle } = await rig.openTask('aws-s3:object.get aws-s3:object.put aws-s3:bucket.list', 'reports')
  const env = {
    PATH: process.env.PATH,
    HTTPS_PROXY: `http://${task}:${handle}@127.0.0.1:${rig.proxyPort}`,
    AWS_CA_BUNDLE: join(rig.settings.dataDir, 'keys', 'ca.pem'),
    AWS_ACCESS_KEY_ID: 'AKIAKEYLESSPLACEHOLD',
    AWS_SECRET_ACCESS_KEY: 'keyless-placeholder-keyless-placeholder0',
    AWS_EC2_METADATA_DISABLED: 'true',
  }
  const program = join(ROOT, 'test/flow/programs/s3.py')
  const { stdout, stderr } = await run(python, [program, `https://${HOST}:${s3.port}`, REGION], { env })
  const said = Object.fromEntries(
    stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as [string, unknown]),
  )
  expect(said, stderr).toEqual({
    trailer: true,
    metadata: 'two  spaces',
    hash: true,
    unsigned: true,
    sha256: true,
    pipe: true,
    virtual: true,
    range: [5, 6, 7, 8, 9],
    list: [KEY, `${KEY}/v`],
    'upload in parts': true,
    'download in parts': true,
    'presigned put': '',
    'presigned get': 'by URL',
    'presigned in version 2': 'by URL',
    'another region': expect.stringMatching(
      /^InvalidRequest: .+ signed for the region "us-east-1", .+ is in eu-west-1\./,
    ),
    'not granted': expect.stringMatching(/^AccessDenied: .+DELETE \/reports\/.+ aws-s3:object\.delete/),
    absent: 'NoSuchKey: An error occurred (NoSuchKey) when calling the GetObject operation: so says S3',
  })
  expect(s3.refusals).toEqual([])
  expect(new Set(s3.calls.map(({ signedAs }) => signedAs.replace(/^[0-9a-f]{64}$/, 'hash')))).toEqual(
    new Set(['STREAMING-UNSIGNED-PAYLOAD-TRAILER', 'UNSIGNED-PAYLOAD', 'hash', 'presigned']),
  )
  expect(new Set(s3.calls.map(({ host }) => host))).toEqual(new Set([HOST, `reports.${HOST}`]))
  expect(stdout + stderr).not.toContain(KEYS.secretAccessKey)
  const heads = s3.calls.map(({ received }) => [received.path, received.rawHeaders])
  expect(JSON.stringify(heads)).not.toContain('KEYLESSPLACEHOLD')
})
