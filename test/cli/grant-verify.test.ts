/** `keyless grant verify`: from files and public keys alone, with an exit status that a script can rely on. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest'
import { grantVerifyCommand } from '../../gateway/cli/grant/verify.ts'
import { bundleOf } from '../../gateway/grant/chain/bundle.ts'
import { delegate, ed25519, es256, root, seal } from '../grant/chain.fixture.ts'

let dir: string
let bundle: string
let jwks: string
let server: Server
let url: string
let answer: { status: number; body: string; headers?: Record<string, string> }

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-verify-'))
  const first = await root(ed25519)
  const second = await delegate(first, { key: es256, isOffline: true })
  const third = await delegate(second)
  bundle = join(dir, 'bundle.json')
  await writeFile(
    bundle,
    JSON.stringify(
      bundleOf(
        [first, second, third].map(({ grant }) => grant),
        seal,
      ),
    ),
  )
  jwks = join(dir, 'jwks.json')
  await writeFile(jwks, JSON.stringify(seal.jwks()))
  server = createServer((_request, reply) => reply.writeHead(answer.status, answer.headers).end(answer.body))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`
})
afterAll(async () => {
  server.close()
  await rm(dir, { recursive: true, force: true })
})
afterEach(() => {
  vi.restoreAllMocks()
  process.exitCode = undefined
})

async function run(...args: string[]): Promise<{ code: unknown; text: string }> {
  let text = ''
  const take = (chunk: unknown) => {
    text += String(chunk)
    return true
  }
  vi.spyOn(process.stdout, 'write').mockImplementation(take)
  vi.spyOn(process.stderr, 'write').mockImplementation(take)
  await grantVerifyCommand().parseAsync(args, { from: 'user' })
  return { code: process.exitCode, text }
}

it('tells from the human down who authorised whom, and how each hop was attested', async () => {
  const { code, text } = await run(bundle, '--jwks', jwks)
  const agent = (n: number) => `spiffe://acme.test/agents/a${n}`
  expect(text).toContain(
    `Verified: ana authorised ${agent(0)} for task “triage issue 42”; ${agent(0)} delegated to ${agent(1)}; ${agent(1)} delegated to ${agent(2)}.`,
  )
  expect(text.match(/attested by its delegator/g)).toHaveLength(2)
  expect(text).toContain('may     github:issues.read')
  expect(code).toBe(0)
})

it('reads the keys from an address that it is given', async () => {
  answer = { status: 200, body: JSON.stringify(seal.jwks()) }
  expect((await run(bundle, '--jwks', url)).code).toBe(0)
})

it('names the first fault, and exits with 1', async () => {
  const { readFile } = await import('node:fs/promises')
  const { actor_proofs, ...rest } = JSON.parse(await readFile(bundle, 'utf8'))
  const spoiled = join(dir, 'spoiled.json')
  await writeFile(spoiled, JSON.stringify({ ...rest, actor_proofs: actor_proofs.toReversed() }))
  const { code, text } = await run(spoiled, '--jwks', jwks)
  expect(text).toMatch(/^Does not verify \(lineage_reordered\)\. Attestation 1 is refused/)
  expect(code).toBe(1)
})

it('asks the gateway of this machine for its keys when none are named', async () => {
  const socket = createServer((_request, reply) => reply.end(JSON.stringify(seal.jwks())))
  await new Promise<void>((resolve) => socket.listen(join(dir, 'control.sock'), resolve))
  vi.stubEnv('KEYLESS_HOME', dir)
  try {
    expect((await run(bundle)).code).toBe(0)
  } finally {
    socket.close()
  }
  const { code, text } = await run(bundle)
  expect(text).toMatch(/No gateway is running/)
  expect(code).toBe(2)
  vi.unstubAllEnvs()
})

it('exits with 2 when there is nothing to check with', async () => {
  await writeFile(join(dir, 'empty.json'), '{"keys":[]}')
  const twice = seal.jwks().keys
  await writeFile(join(dir, 'twice.json'), JSON.stringify({ keys: [...twice, ...twice] }))
  const cases: [string[], RegExp][] = [
    [[join(dir, 'absent.json'), '--jwks', jwks], /absent\.json cannot be read \(ENOENT\)\. .*grant show ID --bundle/],
    [[bundle, '--jwks', join(dir, 'empty.json')], /holds no Ed25519 key/],
    [[bundle, '--jwks', bundle], /holds no Ed25519 key/],
    [[bundle, '--jwks', join(dir, 'twice.json')], /two keys of the id/],
    [[bundle, '--jwks', 'http://keys.acme.test/jwks.json'], /anyone in between/],
    [[bundle, '--jwks', 'http://127.0.0.1:1/jwks.json'], /cannot be read/],
  ]
  for (const [args, why] of cases) {
    const { code, text } = await run(...args)
    expect(text).toMatch(why)
    expect(code).toBe(2)
  }
})

it('believes no address that leads elsewhere, fails or has no end', async () => {
  const cases: [typeof answer, RegExp][] = [
    [{ status: 302, body: '', headers: { location: url } }, /cannot be read/],
    [{ status: 500, body: '' }, /answered 500/],
    [{ status: 200, body: 'x'.repeat(70_000) }, /more than 65536 bytes/],
  ]
  for (const [given, why] of cases) {
    answer = given
    const { code, text } = await run(bundle, '--jwks', url)
    expect(text).toMatch(why)
    expect(code).toBe(2)
  }
})
