/**
 * What the gateway trusts to say who somebody is: the settings part `trust`, one strict row per issuer. It knows nothing of
 * files or of the machine; `settings/trust.ts` completes it. Every row names issuer, audience and algorithms exactly: nothing
 * that a token says about itself (`jku`, `x5u`, discovery) widens what is trusted (RFC 8725 §3.8).
 */
import { z } from 'zod'
import { awsTrustSchema } from './trust-aws.ts'
import { chainTrustSchema } from './trust-chain.ts'
import { agentId, keyFile, keyPlace, spiffeId } from './trust-parts.ts'
import { x509TrustSchema } from './trust-x509.ts'

/** RFC 9864: fully specified names only. No symmetric algorithm, no `none`, no `EdDSA`. */
export const SIGNATURES = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'Ed25519',
] as const
/** JWT-SVID §3.1 knows no EdDSA. */
const SVID_SIGNATURES = SIGNATURES.filter((name) => name !== 'Ed25519')

const text = (max = 255) => z.string().trim().min(1).max(max)
/** A top-level claim by its name, or a JSON pointer (RFC 6901) into the claims. */
const claim = text(128)

const common = (algorithms: readonly (typeof SIGNATURES)[number][], lifetime: { defaultS: number; maxS: number }) => ({
  ...keyPlace,
  algorithms: z
    .array(z.enum(algorithms))
    .min(1)
    .default([...algorithms])
    .describe('Signature algorithms accepted from this issuer.'),
  max_lifetime_s: z
    .int()
    .min(60)
    .max(lifetime.maxS)
    .default(lifetime.defaultS)
    .describe(`Longest life of a token, seconds. Default ${lifetime.defaultS}.`),
  clock_skew_s: z.int().min(0).max(60).default(30).describe('Seconds that the issuer’s clock may be off. Default 30.'),
})

const issuer = () => text().describe('Exact value of `iss`.')

const audience = () =>
  z.union([text(), z.array(text()).min(1).max(16)]).transform((value) => (typeof value === 'string' ? [value] : value))

/** Workloads: the one audience of a token must be among these. Empty means this gateway's own issuer (`public_url`). */
const ownAudience = () => audience().default([]).describe('Accepted values of `aud`. Default: public_url.')

const attributes = z
  .record(z.string().regex(/^[a-z][a-z0-9_]{0,31}$/), claim)
  .default({})
  .describe('Attribute for policy and record: claim it is read from (a name, or a JSON pointer).')

/** Which agent a workload is: the first row whose claims are all equal. */
const mapping = <Match extends z.ZodType>(match: Match) => z.array(z.strictObject({ match, agent: agentId })).min(1)

const human = z.strictObject({
  kind: z.literal('human'),
  issuer: issuer(),
  audience: audience().describe('Client ids whose ID tokens are accepted; every `aud` of a token must be among them.'),
  authorized_parties: z.array(text()).min(1).optional().describe('Accepted values of `azp`. Default: the audience.'),
  agents: z.array(agentId).min(1).optional().describe('Agents that people of this issuer may authorise. Default: any.'),
  ...common(SIGNATURES, { defaultS: 3600, maxS: 86_400 }),
})

const jwtSvid = z.strictObject({
  kind: z.literal('jwt-svid'),
  trust_domain: z
    .string()
    .max(255)
    .regex(/^[a-z0-9._-]+$/)
    .describe('SPIFFE trust domain, such as acme.test. The keys are those of its bundle.'),
  issuer: issuer().optional().describe('Exact value of `iss`. Default: tokens carry none.'),
  audience: ownAudience(),
  agents: mapping(
    z.strictObject({
      sub: spiffeId,
    }),
  )
    .optional()
    .describe('Default: the SPIFFE ID is the agent id.'),
  claims: attributes,
  ...common(SVID_SIGNATURES, { defaultS: 900, maxS: 3600 }),
})

const kubernetes = z.strictObject({
  kind: z.literal('kubernetes'),
  issuer: issuer(),
  audience: ownAudience(),
  agents: mapping(
    z.strictObject({
      namespace: text(),
      service_account: text(),
      /** Pins the account itself: one made anew under the same name has another uid. */
      service_account_uid: text().optional(),
    }),
  ),
  claims: attributes,
  ...common(SIGNATURES, { defaultS: 3600, maxS: 86_400 }),
})

const numericId = z.string().regex(/^\d+$/)

/** Names of repositories and owners can be given up and taken by others; ids cannot (standards.md E). */
const githubActions = z.strictObject({
  kind: z.literal('github-actions'),
  issuer: text().default('https://token.actions.githubusercontent.com').describe('Exact value of `iss`.'),
  audience: ownAudience(),
  agents: mapping(
    z
      .strictObject({
        repository_id: numericId.describe('Number, quoted. Names are not accepted: they can change hands.'),
        repository_owner_id: numericId.describe('Number, quoted.'),
        ref: text().optional(),
        environment: text().optional(),
        job_workflow_ref: text().optional(),
        workflow_ref: text().optional(),
        event_name: text().optional(),
        runner_environment: text().optional(),
      })
      .superRefine((match, context) => {
        if (match.ref ?? match.environment ?? match.job_workflow_ref) return
        const allowed = 'ref, environment or job_workflow_ref besides the ids'
        const fix = 'add one of them: the ids alone admit every branch and pull request of the repository'
        context.addIssue({ code: 'custom', message: allowed, params: { allowed, fix } })
      }),
  ),
  claims: attributes,
  ...common(['RS256'], { defaultS: 900, maxS: 3600 }),
})

const oidc = z.strictObject({
  kind: z.literal('oidc'),
  issuer: issuer(),
  audience: ownAudience(),
  typ: z
    .enum(['JWT', 'at+jwt'])
    .default('JWT')
    .describe('Header `typ` of its tokens; at+jwt is RFC 9068. Default JWT.'),
  agents: mapping(
    z
      .record(claim, text())
      .refine((match) => Object.keys(match).length > 0, { error: 'at least one claim, such as sub' }),
  ),
  instance: claim.optional().describe('Claim that names the running instance.'),
  claims: attributes,
  ...common(SIGNATURES, { defaultS: 3600, maxS: 86_400 }),
})

/** A client that signs its own assertions (RFC 7523). */
const client = z.strictObject({
  id: text().describe('client_id.'),
  agent: agentId.optional().describe('Agent that this client is. Default: the id.'),
  key: keyFile.describe('Public key of the client: PEM, JWK or JWK Set, { file: PATH }.'),
  algorithms: z
    .array(z.enum(SIGNATURES))
    .min(1)
    .default([...SIGNATURES]),
})

export const trustSchema = z
  .strictObject({
    issuers: z
      .array(
        z.discriminatedUnion('kind', [human, jwtSvid, kubernetes, githubActions, oidc], {
          error: 'kind is one of human, jwt-svid, kubernetes, github-actions, oidc',
        }),
      )
      .default([])
      .describe('Issuers of tokens that say who a person or a workload is.'),
    clients: z
      .array(client)
      .default([])
      .describe('Clients of the token endpoint that authenticate by private_key_jwt.'),
    x509: z
      .array(x509TrustSchema)
      .default([])
      .describe('SPIFFE trust domains whose X.509-SVIDs clients may show over TLS (listen.control_tls).'),
    aws: awsTrustSchema.optional(),
    chains: z
      .array(chainTrustSchema)
      .default([])
      .describe('Issuers of AAT delegation chains that may be exchanged for grants. Default none.'),
  })
  .describe('Who may say who somebody is. Default: nobody, so that grants come from the local socket alone.')

export type TrustSettings = z.output<typeof trustSchema>
export type IssuerTrust = TrustSettings['issuers'][number]
export type ClientTrust = TrustSettings['clients'][number]

/** Kind → settings row. */
export type TrustOf<Kind extends IssuerTrust['kind']> = Extract<IssuerTrust, { kind: Kind }>
