/** One attestation, as a holder presents it before its child is issued: it must say exactly what will be issued. */
import { describe, expect, it } from 'vitest'
import { checkAttestation, type Hop } from '../../gateway/grant/chain/attestation.ts'
import { readJws, signJws } from '../../gateway/grant/chain/jws.ts'
import { type Delegation, signAttestation, signOffline } from '../../gateway/grant/holder.ts'
import { boundTo, delegate, ed25519, es256, type Held, ISSUER, NOW_S, POLICY, root, seal } from './chain.fixture.ts'

async function setting(key = ed25519) {
  const parent = await root(key)
  const child = await delegate(parent, { key: es256 })
  const hop: Hop = { parent: parent.grant, child: child.grant, issuer: ISSUER, policy: POLICY }
  return { parent, child, hop, good: child.grant.attestations[0] as string }
}

const said = (parent: Held, child: Held): Delegation => ({
  parent: parent.token,
  key: parent.key as never,
  agent: child.grant.agent.id,
  authority: child.grant.authority,
  issuedAt: NOW_S + 1,
  expiresAt: child.grant.expiresAt,
  ...(child.grant.cnf && { cnf: child.grant.cnf }),
})

describe('an attestation that a holder presents', () => {
  it('is taken when it says what will be issued, whatever its key is', async () => {
    for (const key of [ed25519, es256]) {
      const { hop, good, parent, child } = await setting(key)
      expect(() => checkAttestation(good, hop)).not.toThrow()
      expect(() =>
        checkAttestation(signAttestation({ ...said(parent, child), reason: 'part of it' }), hop),
      ).not.toThrow()
      // The gateway may make the child shorter than the holder allows, never longer.
      const shorter = { ...hop, child: { ...child.grant, expiresAt: child.grant.expiresAt - 60 } }
      expect(() => checkAttestation(good, shorter)).not.toThrow()
    }
  })

  it('is refused when it says anything else', async () => {
    const { hop, parent, child } = await setting()
    const base = said(parent, child)
    const cases: [Partial<Delegation>, string][] = [
      [{ agent: 'spiffe://acme.test/agents/other' }, 'lineage_grafted'],
      [{ authority: [{ operations: ['github:*'] }] }, 'lineage_grafted'],
      [{ cnf: boundTo(ed25519) }, 'lineage_grafted'],
      [{ key: es256 }, 'lineage_spliced'],
      [{ expiresAt: child.grant.expiresAt - 1 }, 'lineage_invalid'],
      [{ expiresAt: parent.grant.expiresAt + 1 }, 'lineage_invalid'],
      [{ issuedAt: NOW_S - 31 }, 'lineage_invalid'],
      [{ issuedAt: child.grant.issuedAt + 31 }, 'lineage_invalid'],
      [{ parent: (await root(ed25519)).token }, 'lineage_grafted'],
    ]
    for (const [change, code] of cases) {
      const text = signAttestation({ ...base, ...change })
      expect(() => checkAttestation(text, hop), JSON.stringify(change)).toThrow(expect.objectContaining({ code }))
    }
    const { cnf: _, ...keyless } = base
    expect(() => checkAttestation(signAttestation(keyless), hop)).toThrow(
      expect.objectContaining({ code: 'lineage_grafted' }),
    )
  })

  it('names the policy in force, or none', async () => {
    const { hop, good, parent } = await setting()
    const { payload } = readJws(good, 20_000)
    const jwk = (readJws(good, 20_000).header as { jwk: object }).jwk
    const naming = (pol: string) => signJws({ typ: 'actor-proof+jwt', jwk }, { ...payload, pol }, parent.key as never)
    expect(() => checkAttestation(naming(POLICY), hop)).not.toThrow()
    expect(() => checkAttestation(naming('sha256:older'), hop)).toThrow(/another policy/)
  })

  it('is no offline delegation, no attestation by a gateway, and no other token', async () => {
    const { hop, parent, child } = await setting()
    const keyless = await root()
    const onBehalf = (await delegate(keyless)).grant.attestations[0] as string
    const texts = [signOffline(said(parent, child)), onBehalf, parent.token, '', 'YQ.YQ.YQ']
    for (const text of texts)
      expect(() => checkAttestation(text, hop)).toThrow(expect.objectContaining({ code: 'lineage_invalid' }))
  })

  it('links to the one before it at every further hop', async () => {
    const { child: second, good } = await setting()
    const third = await delegate(second)
    const hop: Hop = { parent: second.grant, child: third.grant, issuer: ISSUER, policy: POLICY }
    const attestation = third.grant.attestations[1] as string
    expect(() => checkAttestation(attestation, hop)).not.toThrow()
    expect(() => checkAttestation(good, hop)).toThrow(expect.objectContaining({ code: 'lineage_spliced' }))
    const elsewhere = { ...hop, parent: { ...second.grant, attestations: [`${good}x`] } }
    expect(() => checkAttestation(attestation, elsewhere)).toThrow(
      expect.objectContaining({ code: 'lineage_reencoded' }),
    )
  })

  it('cannot be made below a grant that was never signed', async () => {
    const { hop } = await setting()
    const { signedHash: _, cnf: _cnf, ...unsigned } = hop.parent
    await expect(seal.attest({ ...hop, parent: unsigned })).rejects.toMatchObject({ code: 'delegation_refused' })
  })

  it('says by the gateway that it speaks for another, under which policy, and why', async () => {
    const parent = await root()
    const child = (await delegate(parent)).grant
    const text = await seal.attest({
      parent: parent.grant,
      child,
      issuer: ISSUER,
      policy: POLICY,
      reason: 'asked at the socket',
    })
    expect(readJws(text, 20_000)).toMatchObject({
      header: { typ: 'actor-proof+jwt', alg: 'Ed25519', kid: seal.jwks().keys[0]?.kid },
      payload: {
        iss: ISSUER,
        att: 'gateway-on-behalf',
        txn: child.task.id,
        act: { iss: ISSUER, sub: child.agent.id, sub_profile: 'ai_agent' },
        target: { aud: ISSUER },
        del_depth: 1,
        par_hash: parent.grant.signedHash,
        pol: POLICY,
        reason: 'asked at the socket',
        exp: child.expiresAt,
      },
    })
    expect(readJws(text, 20_000).payload).not.toHaveProperty('aud')
  })
})
