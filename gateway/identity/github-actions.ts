/**
 * OIDC tokens of GitHub Actions. Repository and owner are pinned by number: a name that its owner gave up is anyone's. `sub`
 * decides nothing, because its format is the repository's to choose.
 */
import type { Workload } from '../protocol/identity.ts'
import { INERT_HEADERS, type Jwt, type JwtTools, rulesOf, textOf, verifyJwt } from './jwt.ts'
import { agentOf, attributesOf, scalarAt } from './mapping.ts'
import type { TrustOf } from './trust.ts'

/** For policy and record; names among them are for readers. */
const ATTRIBUTES = {
  repository_id: 'repository_id',
  repository_owner_id: 'repository_owner_id',
  repository: 'repository',
  ref: 'ref',
  environment: 'environment',
  event_name: 'event_name',
  job_workflow_ref: 'job_workflow_ref',
  sha: 'sha',
  actor_id: 'actor_id',
  runner_environment: 'runner_environment',
}

export async function verifyGithubActions(
  jwt: Jwt,
  row: TrustOf<'github-actions'>,
  tools: JwtTools,
): Promise<Workload> {
  const { refuse } = tools
  const expiresAt = await verifyJwt(jwt, { ...rulesOf(row), typ: ['jwt'], inert: INERT_HEADERS }, tools)
  return {
    id: agentOf(row.agents, (name) => scalarAt(jwt.claims, name), refuse),
    kind: 'github-actions',
    issuer: row.issuer,
    // A run keeps its id when it is run again; only the attempt tells the two apart.
    instance: `${textOf(jwt.claims, 'run_id', refuse, 32)}/${textOf(jwt.claims, 'run_attempt', refuse, 32)}`,
    attributes: attributesOf({ ...ATTRIBUTES, ...row.claims }, jwt.claims, refuse),
    expiresAt,
  }
}
