/**
 * Delegation without asking: the holder of a grant that is bound to a key signs a child grant itself. The text is its own
 * attestation; hops are joined by `~`, newest first, and the oldest one's parent is a grant that the gateway knows. Whether the
 * child is narrower, registered, alive and allowed by policy is decided at first sight, like for any other delegation.
 */
import type { Agent, Authority, Confirmation, Grant } from '../../protocol/grant.ts'
import { GatewayError, type ProblemCode } from '../../protocol/problem.ts'
import { draftChild } from '../propose/draft.ts'
import { bindingsOf } from '../terms.ts'
import { type Attestation, checkLink, DELEGATION_TYPE, fault } from './attestation.ts'
import { readChain } from './chain.ts'
import { authorityOf, MAX_HOPS, SKEW_S } from './claims.ts'
import { hashOf, inputOf } from './jws.ts'

export const SEPARATOR = '~'
/** LG/1 §1.6 step 1: what a client can send in one header. */
const LIMIT = 16 * 1024

/** One hop, as its delegator signed it. */
export interface OfflineHop {
  /** `jti`, UUIDv7, chosen by the delegator: when a grant of this id is known, it is this one only if its newest attestation is equal. */
  readonly id: string
  readonly agent: string
  readonly authority: readonly Authority[]
  readonly issuedAt: number
  readonly expiresAt: number
  readonly maxDepth: number
  readonly delegable: boolean
  readonly cnf?: Confirmation
  readonly step?: string
  readonly trace?: string
  /** The hop's text: its own attestation. */
  readonly attestation: string
  readonly signedHash: string
}

/**
 * What was delegated, oldest hop first: signed by whom it must, in order, for this gateway, below a grant that is known. Time,
 * agents, width and policy are for the caller.
 * @param known the living grant of an id; may refuse with why it is not alive.
 * @throws {GatewayError} `grant_invalid`, `delegation_refused`, `lineage_…`
 */
export async function readOffline(
  token: string,
  known: (id: string) => Promise<Grant | undefined>,
  issuer: string,
): Promise<{ readonly parent: Grant; readonly hops: readonly OfflineHop[] }> {
  if (token.length > LIMIT) throw refused('grant_invalid', `it is longer than ${LIMIT} characters`)
  const texts = token.split(SEPARATOR, MAX_HOPS + 2).reverse()
  const chain = readChain(texts, { count: undefined, first: undefined })
  const parent = await known(String(chain[0]?.claims.par))
  if (parent === undefined)
    throw fault(
      'lineage_truncated',
      chain[0]?.depth ?? 1,
      'the grant above it is neither known here nor presented along',
    )
  const hops: OfflineHop[] = []
  let above: Above = { ...parent, previous: parent.attestations.at(-1) }
  for (const [i, attestation] of chain.entries()) {
    const hop = hopOf(attestation, texts[i] as string, above, issuer)
    hops.push(hop)
    above = { ...hop, task: parent.task, depth: attestation.depth, previous: hop.attestation }
  }
  return { parent, hops }
}

/** The child grant that a hop makes. */
export function offlineChild(parent: Grant, o: OfflineHop, agent: Agent): Grant {
  const { id, authority, issuedAt, expiresAt, maxDepth, delegable, attestation, signedHash, cnf } = o
  const { preset } = parent
  const bindings = bindingsOf({ ...o, ...(preset !== undefined && { preset }) })
  const terms = { authority, issuedAt, expiresAt, maxDepth, delegable, ...bindings }
  return {
    ...draftChild({ parent, agent, cnf, onBehalf: false, id }, terms, issuedAt * 1000),
    attestations: [...parent.attestations, attestation],
    signedHash,
  }
}

interface Above {
  readonly id: string
  readonly task: Grant['task']
  readonly depth: number
  readonly maxDepth: number
  readonly delegable: boolean
  readonly cnf?: Confirmation
  readonly issuedAt: number
  readonly expiresAt: number
  readonly signedHash?: string
  readonly step?: string
  readonly trace?: string
  /** Text of its newest attestation. */
  readonly previous: string | undefined
}

function hopOf(a: Attestation, own: string, above: Above, issuer: string): OfflineHop {
  const depth = above.depth + 1
  checkLink(a, {
    issuer,
    task: above.task.id,
    depth,
    delegator: above.cnf?.jkt,
    parentHash: above.signedHash ?? '',
    previous: above.previous === undefined ? undefined : hashOf(above.previous),
    agent: a.agent,
    authorityHash: a.authorityHash,
    notAfter: above.expiresAt,
  })
  if (a.type !== DELEGATION_TYPE) throw fault('lineage_invalid', depth, `its type is not ${DELEGATION_TYPE}`)
  if (a.claims.par !== above.id) throw fault('lineage_grafted', depth, 'it was made below another parent grant')
  checkBounds(a, above)
  const step = above.step ?? a.claims.step
  const trace = above.trace ?? a.claims.trace
  return {
    id: a.id,
    agent: a.agent,
    authority: authorityOf(a.claims.authorization_details),
    issuedAt: a.issuedAt,
    expiresAt: a.expiresAt,
    maxDepth: (a.claims.del_max_depth as number | undefined) ?? above.maxDepth,
    // Its text is all that a child without a key has: handed on as evidence, it would be handed on as a credential.
    delegable: a.claims.delegable === undefined && a.cnf?.jkt !== undefined,
    ...(a.cnf !== undefined && { cnf: a.cnf }),
    ...(typeof step === 'string' && { step }),
    ...(typeof trace === 'string' && { trace }),
    attestation: own,
    signedHash: hashOf(inputOf(own)),
  }
}

/** What the grant above allows of delegations, whoever asks. */
function checkBounds(a: Attestation, above: Above): void {
  const { del_max_depth: maxDepth, step, trace } = a.claims
  const why =
    (!above.delegable && 'the grant above it cannot be delegated') ||
    (a.depth > above.maxDepth &&
      `hop ${a.depth} is deeper than ${above.maxDepth}, the most that the grant above allows`) ||
    ((maxDepth as number) > above.maxDepth &&
      `its del_max_depth ${maxDepth} is more than ${above.maxDepth}, that of the grant above it`) ||
    (step !== undefined &&
      above.step !== undefined &&
      step !== above.step &&
      'the grant above it belongs to another step') ||
    (trace !== undefined &&
      above.trace !== undefined &&
      trace !== above.trace &&
      'the grant above it is for another trace')
  if (why) throw refused('delegation_refused', why)
  if (a.issuedAt < above.issuedAt - SKEW_S)
    throw fault('lineage_invalid', a.depth, 'it is older than the grant above it')
}

function refused(code: ProblemCode, why: string): GatewayError {
  return new GatewayError(
    code,
    `A delegation that was signed offline was presented, but ${why}. Ask whoever delegated it for another one.`,
  )
}
