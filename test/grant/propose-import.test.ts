/** A root grant for a chain of attenuating tokens: never more than the chain, never without its key, agent and human. */
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { publicJwk, signJws } from '../../gateway/grant/chain/jws.ts'
import type { Instruction } from '../../gateway/protocol/instruction.ts'
import { asClient, asWorkload, newHolderKey, openWorld, requesting, research, search } from './delegate.fixture.ts'
import { ISSUER } from './grant.fixture.ts'

const AAT_ISSUER = 'https://aat.acme.test'
const root = generateKeyPairSync('ed25519').privateKey
const holder = newHolderKey()
const NOW_S = Date.UTC(2026, 5, 1, 12) / 1000
const chainKey = ({ issuer }: { issuer: string }) => (issuer === AAT_ISSUER ? createPublicKey(root) : undefined)
const code = (expected: string) => expect.objectContaining({ code: expected })

function chain(changes: Record<string, unknown> = {}): string {
  const claims = {
    iss: AAT_ISSUER,
    sub: 'ana',
    aud: ISSUER,
    jti: 'aat-0',
    iat: NOW_S,
    exp: NOW_S + 300,
    aat_type: 'delegation',
    del_depth: 0,
    del_max_depth: 1,
    cnf: { jwk: publicJwk(createPublicKey(holder.key)) },
    authorization_details: [{ type: 'attenuating_agent_token', tools: { 'github:issues.read': {} } }],
    ...changes,
  }
  return JSON.stringify([signJws({ typ: 'aat+jwt', kid: 'k0' }, JSON.parse(JSON.stringify(claims)), root)])
}

type Requested = Extract<Instruction, { kind: 'grant.request' }>
const importing = (changes: Partial<Requested> = {}) =>
  requesting({
    subject: { token: chain(), type: 'aat-chain' },
    actor: asWorkload(research),
    purpose: 'go on here',
    jkt: holder.jkt,
    ...changes,
  })

describe('an imported chain', () => {
  it('becomes a root grant of its subject, bound to its key, for as long and as much as it allows', async () => {
    const issued = await openWorld({ chainKey }).do(importing())
    expect(issued?.grant).toMatchObject({
      human: { iss: AAT_ISSUER, sub: 'ana' },
      agent: { id: research.id },
      authority: [{ operations: ['github:issues.read'] }],
      cnf: { jkt: holder.jkt },
      expiresAt: NOW_S + 300,
      maxDepth: 1,
      delegable: true,
      attested: true,
    })
    expect(issued).not.toHaveProperty('handle')
  })

  it('gives no more than it has', async () => {
    const world = openWorld({ chainKey })
    for (const request of [{ scope: 'github:*' }, { ttlS: 301 }, { maxDepth: 2 }])
      await expect(world.do(importing({ request })), JSON.stringify(request)).rejects.toEqual(code('invalid_scope'))
    const leaf = importing({ subject: { token: chain({ del_max_depth: 0 }), type: 'aat-chain' } })
    expect((await world.do(leaf))?.grant).toMatchObject({ maxDepth: 0, delegable: false })
  })

  it('is refused without its key, its human, an agent, an intent, or a trusted issuer', async () => {
    const world = openWorld({ chainKey })
    const { jkt: _, ...unproved } = importing()
    await expect(world.do(unproved)).rejects.toEqual(code('subject_invalid'))
    await expect(world.do(importing({ jkt: newHolderKey().jkt }))).rejects.toEqual(code('subject_invalid'))
    const nobodys = { token: chain({ sub: undefined }), type: 'aat-chain' } as const
    await expect(world.do(importing({ subject: nobodys }))).rejects.toEqual(code('subject_invalid'))
    const { actor: __, ...agentless } = importing()
    await expect(world.do(agentless)).rejects.toEqual(code('actor_invalid'))
    await expect(world.do(importing({ client: asClient(search) }))).rejects.toEqual(code('actor_invalid'))
    const { purpose: ___, ...silent } = importing()
    await expect(world.do(silent)).rejects.toEqual(code('instruction_invalid'))
    await expect(openWorld().do(importing())).rejects.toEqual(code('subject_invalid'))
  })
})
