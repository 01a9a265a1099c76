/**
 * Who somebody is: the door of this room. It finds the row of settings that speaks about a token and hands both to the file for
 * that kind. What is not configured is nobody: without a row there is no verifier, no fetch and no default.
 */
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { ClientEvidence, Identities, PresentedToken, Workload } from '../protocol/identity.ts'
import { createAwsIam } from './aws-iam.ts'
import { createChainKeys } from './chain-keys.ts'
import { verifyClientAssertion } from './client-assertion.ts'
import { createProofs } from './dpop.ts'
import { verifyGithubActions } from './github-actions.ts'
import { verifyHuman } from './human.ts'
import { type Jwt, type JwtTools, readJwt } from './jwt.ts'
import { verifyJwtSvid } from './jwt-svid.ts'
import { createKeySet, download, type GuardedFetch, type KeySet, readKeys } from './key-set.ts'
import { verifyKubernetes } from './kubernetes.ts'
import { verifyOidc } from './oidc.ts'
import type { Once } from './once.ts'
import { type Refuse, refusing, shown } from './refuse.ts'
import { parseSpiffeId } from './spiffe-id.ts'
import type { ClientTrust, IssuerTrust, TrustOf, TrustSettings } from './trust.ts'
import type { KeySource } from './trust-parts.ts'
import { createX509Svids, type X509Svids } from './x509-svid.ts'

export interface IdentitiesOptions {
  readonly trust: TrustSettings
  /** Our own issuer identifier: `aud` of client assertions. */
  readonly issuer: string
  /** `fetch` through the guarded dial; `addresses` are CIDR ranges it may reach besides public ones. */
  readonly fetchFor: (addresses: readonly string[]) => GuardedFetch
  readonly once: Once
  readonly clock: Clock
  /** 32 bytes, the same on all replicas: DPoP nonces are made with it. */
  readonly nonceKey: KeyObject
}

type WorkloadKind = Exclude<IssuerTrust['kind'], 'human'>
type WorkloadRows = { readonly [Kind in WorkloadKind]: TrustOf<Kind> }

/** kind in settings → verifier */
const verifiers: {
  readonly [Kind in WorkloadKind]: (jwt: Jwt, row: WorkloadRows[Kind], tools: JwtTools) => Promise<Workload>
} = {
  'jwt-svid': verifyJwtSvid,
  kubernetes: verifyKubernetes,
  'github-actions': verifyGithubActions,
  oidc: verifyOidc,
}

/** A row of settings with the keys that go with it. */
interface Trusted<Row> {
  readonly row: Row
  readonly keys: KeySet
}

export function createIdentities(o: IdentitiesOptions): Identities {
  const issuers = o.trust.issuers.map((row) => trusted(row, o))
  const humans = issuers.flatMap(({ row, keys }) => (row.kind === 'human' ? [{ row, keys }] : []))
  const workloads = issuers.flatMap(({ row, keys }) => (row.kind === 'human' ? [] : [{ row, keys }]))
  const clients = new Map(o.trust.clients.map((row) => [row.id, clientKeys(row, o)]))
  const svids = createX509Svids({ trust: o.trust.x509, clock: o.clock })
  const aws = createAwsIam({ ...o, trust: o.trust.aws })
  return {
    async human({ token, type }) {
      const refuse = refusing('subject_invalid', 'The subject token')
      if (type !== 'id_token' && type !== 'jwt') throw refuse(`people are known by an id_token, not by ${shown(type)}`)
      const jwt = readJwt(token, refuse)
      const { row, keys } = pick(humans, jwt, refuse)
      return verifyHuman(jwt, row, { keys, clock: o.clock, refuse, issuer: o.issuer })
    },
    async workload(presented) {
      if (presented.type === 'aws-iam') return aws.verify(presented.token)
      return verifyWorkload(presented, workloads, o.clock, refusing('actor_invalid', 'The actor token'))
    },
    async client(evidence) {
      return authenticate(evidence, { workloads, clients, svids, ...o })
    },
    chainKey: createChainKeys(o.trust.chains.map((row) => ({ row, keys: keysOf(row, 'sig', o) }))),
    ...createProofs(o),
  }
}

type Rows = readonly Trusted<Exclude<IssuerTrust, { kind: 'human' }>>[]

function verifyWorkload({ token, type }: PresentedToken, rows: Rows, clock: Clock, refuse: Refuse): Promise<Workload> {
  if (type !== 'jwt' && type !== 'jwt-svid' && type !== 'id_token')
    throw refuse(`workloads are known by a jwt, jwt-svid, id_token or aws-iam, not by ${shown(type)}`)
  const jwt = readJwt(token, refuse)
  const { row, keys } = pick(type === 'jwt-svid' ? rows.filter(({ row }) => row.kind === type) : rows, jwt, refuse)
  return verify(row.kind, row, jwt, { keys, clock, refuse })
}

/** One call for all kinds, so that the compiler sees that table and row go together. */
function verify<Kind extends WorkloadKind>(
  kind: Kind,
  row: WorkloadRows[Kind],
  jwt: Jwt,
  tools: JwtTools,
): Promise<Workload> {
  return verifiers[kind](jwt, row, tools)
}

interface Known extends IdentitiesOptions {
  readonly workloads: Rows
  readonly clients: ReadonlyMap<string, Trusted<ClientTrust>>
  readonly svids: X509Svids
}

/**
 * RFC 6749 §2.3: one method at a time; an assertion counts before a certificate. Where no trust domain is configured, a
 * certificate says nothing: TLS stacks send one whenever they are asked.
 */
async function authenticate(evidence: ClientEvidence, known: Known): Promise<Workload | undefined> {
  const { assertion, clientId, certificates } = evidence
  if (assertion === undefined)
    return certificates && known.trust.x509.length > 0 ? known.svids.verify(certificates, clientId) : undefined
  const refuse = refusing('client_invalid', 'The client assertion')
  const jwt = readJwt(assertion.token, refuse)
  const { sub } = jwt.claims
  if (clientId !== undefined && clientId !== sub)
    throw refuse(`its subject is ${shown(sub)}, and client_id is ${shown(clientId)}`)
  if (assertion.type === 'jwt-spiffe') {
    const { row, keys } = pick(
      known.workloads.filter(({ row }) => row.kind === 'jwt-svid'),
      jwt,
      refuse,
    )
    // As client authentication its audience is the issuer alone, whatever is accepted of actor tokens.
    return verify(row.kind, { ...row, audience: [known.issuer] }, jwt, { keys, clock: known.clock, refuse })
  }
  const client = typeof sub === 'string' ? known.clients.get(sub) : undefined
  if (client === undefined) throw refuse(`no client ${shown(sub)} is registered under trust.clients`)
  return verifyClientAssertion(jwt, client.row, { ...known, keys: client.keys, refuse })
}

/** The row that speaks about a token: by exact issuer, or by trust domain. */
function pick<Row extends IssuerTrust>(rows: readonly Trusted<Row>[], { claims }: Jwt, refuse: Refuse): Trusted<Row> {
  const { iss, sub } = claims
  const domain = typeof sub === 'string' ? parseSpiffeId(sub)?.trustDomain : undefined
  const found = rows.find(({ row }) =>
    row.kind === 'jwt-svid' ? row.issuer === iss && row.trust_domain === domain : row.issuer === iss,
  )
  if (found !== undefined) return found
  throw refuse(`no issuer ${shown(iss)} with subjects like ${shown(sub)} is configured for this under trust.issuers`)
}

function trusted<Row extends IssuerTrust>(row: Row, o: IdentitiesOptions): Trusted<Row> {
  return { row, keys: keysOf(row, row.kind === 'jwt-svid' ? 'jwt-svid' : 'sig', o) }
}

type KeyPlace = { readonly jwks: KeySource; readonly addresses: readonly string[] }

function keysOf({ jwks, addresses }: KeyPlace, use: 'sig' | 'jwt-svid', o: IdentitiesOptions): KeySet {
  const load = 'uri' in jwks ? download(jwks.uri, o.fetchFor(addresses)) : readKeys(jwks.file)
  return createKeySet({ load, use, clock: o.clock })
}

function clientKeys(row: ClientTrust, { clock }: IdentitiesOptions): Trusted<ClientTrust> {
  return { row, keys: createKeySet({ load: readKeys(row.key.file), use: 'sig', clock }) }
}
