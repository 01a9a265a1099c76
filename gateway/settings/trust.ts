/**
 * The settings part `trust`, completed: absolute files, own audience, and what rows must agree on among themselves and with the
 * registered agents. Every problem is reported, none stops the others from being found.
 */
import { readFileSync } from 'node:fs'
import { parseKeys } from '../identity/key-set.ts'
import { type ClientTrust, type IssuerTrust, type TrustSettings, trustSchema } from '../identity/trust.ts'
import { anchorsOf } from '../identity/trust-bundle.ts'
import type { KeySource } from '../identity/trust-parts.ts'
import type { Agent } from '../protocol/grant.ts'
import { nearest } from '../protocol/nearest.ts'
import { absolutePath, type Surroundings } from './around.ts'

interface Own {
  /** Audience of tokens whose row names none. */
  readonly publicUrl: string
  readonly agents: readonly Agent[]
}

/** @param written undefined: nobody is trusted, and grants come from the local socket alone. */
export function trustOf(written: TrustSettings | undefined, own: Own, around: Surroundings): TrustSettings {
  const { issuers, clients, x509, chains, ...others } = written ?? trustSchema.parse({})
  const complete = {
    ...others,
    x509: x509.map((row) => ({ ...row, bundle: { file: absolutePath(row.bundle.file, around) } })),
    issuers: issuers.map((row) => completeIssuer(row, own, around)),
    clients: clients.map((row) => ({ ...row, key: { file: absolutePath(row.key.file, around) } })),
    chains: chains.map((row) => ({ ...row, jwks: absoluteKeys(row.jwks, around) })),
  }
  reportTwins(complete.issuers, around)
  reportStrangers(complete, own.agents, around)
  complete.issuers.forEach(({ jwks, kind }, index) => {
    const use = kind === 'jwt-svid' ? 'jwt-svid' : 'sig'
    if ('file' in jwks) reportKeys(['trust', 'issuers', String(index), 'jwks', 'file'], jwks.file, use, around)
  })
  complete.clients.forEach((row, index) => {
    reportKeys(['trust', 'clients', String(index), 'key', 'file'], row.key.file, 'sig', around)
    reportClientTwin(complete.clients, index, around)
  })
  complete.x509.forEach((_, index) => {
    reportBundle(complete.x509, index, around)
  })
  complete.chains.forEach(({ jwks }, index) => {
    if ('file' in jwks) reportKeys(['trust', 'chains', String(index), 'jwks', 'file'], jwks.file, 'sig', around)
    reportChainTwin(complete.chains, index, around)
  })
  return complete
}

function completeIssuer(row: IssuerTrust, own: Own, around: Surroundings): IssuerTrust {
  const jwks = absoluteKeys(row.jwks, around)
  return { ...row, jwks, audience: row.audience.length === 0 ? [own.publicUrl] : row.audience }
}

function absoluteKeys(jwks: KeySource, around: Surroundings): KeySource {
  return 'file' in jwks ? { file: absolutePath(jwks.file, around) } : jwks
}

/** What a token is looked up by. People and workloads may share an issuer, because their audiences tell them apart. */
function nameOf(row: IssuerTrust): string {
  return row.kind === 'jwt-svid' ? `trust domain ${row.trust_domain}` : `issuer ${row.issuer}`
}

function reportTwins(rows: readonly IssuerTrust[], around: Surroundings): void {
  rows.forEach((row, index) => {
    const place = ['trust', 'issuers', String(index)]
    const twins = rows.slice(0, index).filter((other) => nameOf(other) === nameOf(row))
    if (twins.some((twin) => (twin.kind === 'human') === (row.kind === 'human'))) {
      around.report(place, {
        got: `${nameOf(row)} a second time`,
        allowed: 'one row for people and one for workloads',
        fix: 'put the audiences and agents of both into one row',
      })
      return
    }
    const shared = row.audience.find((audience) => twins.some((twin) => twin.audience.includes(audience)))
    if (shared === undefined) return
    around.report([...place, 'audience'], {
      got: `${shared}, which the other row of ${nameOf(row)} has too`,
      allowed: 'audiences of its own: a token of a person must not pass for a workload’s',
      fix: 'register another client or audience at the issuer',
    })
  })
}

function reportClientTwin(rows: readonly ClientTrust[], index: number, around: Surroundings): void {
  const id = rows[index]?.id
  if (rows.findIndex((row) => row.id === id) === index) return
  around.report(['trust', 'clients', String(index), 'id'], {
    got: `${id} a second time`,
    allowed: 'every id once',
    fix: 'put both keys into one JWK Set file',
  })
}

function reportChainTwin(rows: TrustSettings['chains'], index: number, around: Surroundings): void {
  const issuer = rows[index]?.issuer
  if (rows.findIndex((row) => row.issuer === issuer) === index) return
  around.report(['trust', 'chains', String(index), 'issuer'], {
    got: `${issuer} a second time`,
    allowed: 'every issuer once',
    fix: 'put the keys of both into one JWK Set',
  })
}

/** Agents that rows speak of and nobody registered: such a workload would be known, and refused. */
function reportStrangers(trust: TrustSettings, agents: readonly Agent[], around: Surroundings): void {
  const known = agents.map(({ id }) => id)
  const check = (place: readonly (string | number)[], id: string) => {
    if (known.includes(id)) return
    const meant = nearest(id, known)
    around.report(['trust', ...place.map(String)], {
      got: JSON.stringify(id),
      allowed: 'the id of a registered agent',
      fix: meant === undefined ? 'add it under `agents`' : `did you mean \`${meant}\`? Else add it under \`agents\``,
    })
  }
  trust.issuers.forEach((row, index) => {
    row.agents?.forEach((entry, position) => {
      const place = ['issuers', index, 'agents', position]
      if (typeof entry === 'string') check(place, entry)
      else check([...place, 'agent'], entry.agent)
    })
  })
  const mapped = [
    ...trust.x509.map(({ agents }, index) => ({ agents, at: ['x509', index] })),
    { agents: trust.aws?.agents, at: ['aws'] },
  ]
  for (const { agents, at } of mapped)
    agents?.forEach(({ agent }, position) => {
      check([...at, 'agents', position, 'agent'], agent)
    })
  trust.clients.forEach((row, index) => {
    check(['clients', index, row.agent === undefined ? 'id' : 'agent'], row.agent ?? row.id)
  })
}

function reportBundle(rows: TrustSettings['x509'], index: number, around: Surroundings): void {
  const { trust_domain: domain, bundle } = rows[index] as TrustSettings['x509'][number]
  const place = ['trust', 'x509', String(index)]
  if (rows.findIndex((row) => row.trust_domain === domain) !== index)
    around.report([...place, 'trust_domain'], {
      got: `${domain} a second time`,
      allowed: 'every trust domain once',
      fix: 'put the CA certificates of both into one bundle file',
    })
  try {
    anchorsOf(readFileSync(bundle.file, 'utf8'))
  } catch (cause) {
    around.report([...place, 'bundle', 'file'], {
      got:
        cause instanceof Error && 'code' in cause
          ? `no readable file ${bundle.file}`
          : `${bundle.file}: ${(cause as Error).message}`,
      allowed: 'CA certificates: PEM, or a SPIFFE bundle (JSON)',
      fix: 'correct the path, or write the bundle there: spire-server bundle show',
    })
  }
}

function reportKeys(place: readonly string[], file: string, use: 'sig' | 'jwt-svid', around: Surroundings): void {
  let got: string | undefined
  try {
    if (parseKeys(readFileSync(file, 'utf8'), use).length === 0) got = `no usable public key in ${file}`
  } catch (cause) {
    got = cause instanceof Error && 'code' in cause ? `no readable key file ${file}` : `${file}: ${String(cause)}`
  }
  if (got === undefined) return
  const svid = use === 'jwt-svid' ? ' with use: jwt-svid (a SPIFFE bundle)' : ''
  around.report(place, {
    got,
    allowed: `public keys${svid}: PEM, JWK or JWK Set; RSA of 2048 to 4096 bits, P-256, P-384, P-521 or Ed25519`,
    fix: 'correct the path, or write the public keys there',
  })
}
