/** `keyless grant sign`: a delegation by hand, without a gateway; what a gateway would refuse is refused before it is signed. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { grantSignCommand } from '../../gateway/cli/grant/sign.ts'
import { readOffline } from '../../gateway/grant/chain/offline.ts'
import { readHeld } from '../../gateway/grant/holder.ts'
import { agentOf, boundTo, ed25519, es256, type Held, ISSUER, NOW_S, root } from '../grant/chain.fixture.ts'

let dir: string
let held: Held
let files: Record<'parent' | 'key' | 'other' | 'publicKey', string>

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-sign-'))
  held = await root(ed25519)
  files = {
    parent: await save('parent', held.token),
    key: await save('key.pem', pem(ed25519)),
    other: await save('other.pem', pem(es256)),
    publicKey: await save('other.pub.pem', createPublicKey(es256).export({ format: 'pem', type: 'spki' }).toString()),
  }
})
afterAll(() => rm(dir, { recursive: true, force: true }))
afterEach(() => {
  vi.restoreAllMocks()
  process.exitCode = undefined
})

const pem = (key: KeyObject) => key.export({ format: 'pem', type: 'pkcs8' }).toString()
async function save(name: string, text: string): Promise<string> {
  await writeFile(join(dir, name), text)
  return join(dir, name)
}

async function run(args: readonly string[]): Promise<{ code: unknown; token: string; err: string }> {
  const said = { out: '', err: '' }
  const take = (where: 'out' | 'err') => (chunk: unknown) => {
    said[where] += String(chunk)
    return true
  }
  vi.spyOn(process.stdout, 'write').mockImplementation(take('out'))
  vi.spyOn(process.stderr, 'write').mockImplementation(take('err'))
  const command = grantSignCommand(() => (NOW_S + 5) * 1000).exitOverride()
  await command.parseAsync(args, { from: 'user' }).catch((cause: Error) => {
    said.err += cause.message
  })
  return { code: process.exitCode, token: said.out.trimEnd(), err: said.err }
}

const sign = (...more: string[]) => run(['--parent', files.parent, '--key', files.key, '--to', agentOf(1).id, ...more])
const read = (token: string) =>
  readOffline(token, async (id) => (id === held.grant.id ? held.grant : undefined), ISSUER)

describe('keyless grant sign', () => {
  it('prints a child that the gateway reads as it was asked for', async () => {
    const details = '[{"type":"keyless_access","operations":["github:issues.read"],"constraints":{"max_calls":2}}]'
    const { code, token, err } = await sign(
      ...['--details', details, '--ttl', '1m', '--max-depth', '2', '--step', 's1', '--bind', files.other],
    )
    expect(code).toBeUndefined()
    const { hops } = await read(token)
    expect(hops).toEqual([
      expect.objectContaining({
        agent: agentOf(1).id,
        authority: [{ operations: ['github:issues.read'], constraints: { max_calls: 2 } }],
        issuedAt: NOW_S + 5,
        expiresAt: NOW_S + 65,
        maxDepth: 2,
        delegable: true,
        step: 's1',
        cnf: boundTo(es256),
      }),
    ])
    expect(err).toContain(`${agentOf(1).id} may use it until 2026-06-01T12:01:05Z, as grant ${hops[0]?.id}.`)
    expect(err).not.toContain(token)
  })

  it('gives the child all that its parent has when nothing is asked for', async () => {
    const { hops } = await read((await sign()).token)
    expect(hops[0]).toMatchObject({ authority: held.grant.authority, expiresAt: held.grant.expiresAt })
  })

  it('reads the parent out of the answer that it came in, and goes on from what was signed offline', async () => {
    const answer = await save('answer.json', JSON.stringify({ access_token: held.token, token_type: 'DPoP' }))
    const first = await run(['--parent', answer, '--key', files.key, '--to', agentOf(1).id, '--bind', files.other])
    const child = await save('child.json', JSON.stringify({ token: first.token }))
    const second = await run(
      ['--parent', child, '--key', files.other, '--to', agentOf(2).id].concat('--scope', 'github:issues.read'),
    )
    expect((await read(second.token)).hops.map(({ agent }) => agent)).toEqual([agentOf(1).id, agentOf(2).id])
  })

  it('refuses what is wider than the parent, and names it', async () => {
    const cases: [string[], RegExp][] = [
      [['--scope', 'github:issues.create'], /got github:issues\.create, allowed github:issues\.read, github:pulls\.\*/],
      [['--ttl', '15m'], /ttl: got 900, allowed at most 895/],
      [['--scope', 'github'], /invalid_scope/],
      [['--details', '[{"type":"keyless_access","operations":["github:issues.read"],"x":1}]'], /invalid_details/],
    ]
    for (const [args, why] of cases) {
      const { code, token, err } = await sign(...args)
      expect(err).toMatch(why)
      expect(err).not.toMatch(/allow_narrowing/)
      expect([code, token]).toEqual([64, ''])
    }
  })

  it('signs nothing that the parent does not let this key sign', async () => {
    const key = files.key
    const rsa = await save('rsa.pem', pem(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey))
    const other = async (key: KeyObject | undefined, changes: Parameters<typeof root>[1]) =>
      save('given', (await root(key, changes)).token)
    const cases: [string, string, RegExp][] = [
      [files.parent, files.other, /bound to another key than this one.*lineage_spliced/],
      [await other(undefined, {}), key, /not bound to a key.*keyless grant delegate.*delegation_refused/],
      [files.key, key, /holds no signed grant: .*grant_invalid/],
      [await save('handle', 'kh_x'), key, /a handle cannot be signed below/],
      [await save('empty.json', '{}'), key, /JSON without token or access_token/],
      [files.parent, await save('none.pem', 'x'), /none\.pem holds no private key/],
      [files.parent, rsa, /Ed25519 or P-256/],
      [join(dir, 'absent'), key, /ENOENT/],
    ]
    for (const [parent, key, why] of cases) {
      const { token, err } = await run(['--parent', parent, '--key', key, '--to', agentOf(1).id])
      expect(err).toMatch(why)
      expect(token).toBe('')
    }
  })

  it.each([
    ['cannot be delegated', { delegable: false }, /cannot be delegated/],
    ['is as deep as it may be', { maxDepth: 0 }, /0 delegations deep/],
    ['has expired', { expiresAt: NOW_S + 5 }, /expired at 2026-06-01T12:00:05Z.*grant_expired/],
  ])('refuses to sign below a grant that %s', async (_what, changes, why) => {
    const parent = await save('given', (await root(ed25519, changes)).token)
    const { code, token, err } = await run(['--parent', parent, '--key', files.key, '--to', agentOf(1).id])
    expect(err).toMatch(why)
    expect([code, token]).toEqual([77, ''])
  })

  it('makes a child that ends the chain when told to', async () => {
    const { token } = await sign('--no-delegate', '--bind', files.publicKey)
    expect(readHeld(token)).toMatchObject({ delegable: false, isOffline: true, depth: 1 })
    const child = await save('child', token)
    const { err } = await run(['--parent', child, '--key', files.other, '--to', agentOf(2).id])
    expect(err).toMatch(/cannot be delegated/)
  })
})
