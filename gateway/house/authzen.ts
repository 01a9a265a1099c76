/**
 * The part of the composition root that answers as a decision point (AuthZEN 1.0): whether a call under a grant would be let through
 * now, by what decides on calls. Nothing is issued, spent or ended by it, and every answer is in the log before it is given.
 */
import type { Audit } from '../audit/audit.ts'
import type { Grants } from '../grant/grants.ts'
import type { Catalogue } from '../policy/catalogue/catalogue.ts'
import type { LivePolicy } from '../policy/source/live.ts'
import type { AskedBy, Evaluated, Evaluation } from '../protocol/authzen.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Ask, Obligations } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import type { Endpoint } from '../protocol/service.ts'

export interface HouseAuthzen {
  /**
   * One after the other, until `enough` says so.
   * @throws {GatewayError} `audit_unavailable`
   */
  evaluate(asked: readonly Evaluation[], by: AskedBy, enough: (answer: Evaluated) => boolean): Promise<Evaluated[]>
}

interface Rooms {
  readonly tenant: string
  readonly audit: Pick<Audit, 'record'>
  readonly catalogue: Pick<Catalogue, 'locate'>
  readonly grants: Pick<Grants, 'named' | 'requireOpen' | 'past' | 'left'>
  readonly policy: Pick<LivePolicy, 'informed' | 'evaluate'>
  readonly clock: Clock
}

interface Ruled {
  readonly answer: Evaluated
  /** For the log: grant, operation, effect. */
  readonly line: string
}

export function openAuthzen(rooms: Rooms): HouseAuthzen {
  return {
    async evaluate(asked, by, enough) {
      const ruled: Ruled[] = []
      for (const evaluation of asked) {
        const one = await rule(evaluation, by, rooms)
        ruled.push(one)
        if (enough(one.answer)) break
      }
      const { name, address } = by
      const facts = { by: name, address, decisions: ruled.map(({ line }) => line) }
      await rooms.audit.record('policy.evaluated', rooms.tenant, facts)
      return ruled.map(({ answer }) => answer)
    },
  }
}

async function rule(evaluation: Evaluation, by: AskedBy, rooms: Rooms): Promise<Ruled> {
  let grant: Grant | undefined
  let endpoint: Endpoint | undefined
  const ruled = (answer: Evaluated, effect: string): Ruled => ({
    answer,
    line: `${grant?.id ?? '-'} ${endpoint?.operation.name ?? '-'} ${effect}`,
  })
  try {
    grant = await subjectOf(evaluation, by, rooms)
    const ask = await askOf(evaluation, grant, by, rooms)
    endpoint = ask.endpoint
    const { policy, grants } = rooms
    grants.requireOpen(grant, endpoint.service)
    const { effect, errors, code, detail, obligations } = await policy.evaluate(await policy.informed(ask, grants))
    if (effect !== 'allow' || errors.length > 0) throw new GatewayError(code ?? 'policy_denied', detail)
    // Not yet: who looks at nothing but the decision would let it through.
    if (obligations.approval !== undefined)
      throw new GatewayError('approval_required', `${endpoint.operation.name} has to be approved by somebody first.`)
    const told = toldOf(obligations)
    return ruled({ decision: true, ...(told.length > 0 && { context: { obligations: told } }) }, 'allow')
  } catch (cause) {
    const { code, detail } = asGatewayError(cause)
    return ruled({ decision: false, context: { reason: code, detail } }, code)
  }
}

/** A holder asks about its own grant alone; it is told the same of one that there is not. */
async function subjectOf({ subject }: Evaluation, { holder }: AskedBy, { grants, tenant }: Rooms): Promise<Grant> {
  const { type, id } = subject
  if (holder !== undefined) {
    if ((type === 'grant' && id === holder.id) || (type === 'agent' && id === holder.agent.id)) return holder
    throw new GatewayError(
      'grant_invalid',
      'You may ask about yourself: {"type":"grant","id":<your grant>}, or "agent".',
    )
  }
  if (type === 'grant' && UUID.test(id)) return grants.named(tenant, id)
  throw new GatewayError('grant_invalid', 'The subject is a living grant: {"type":"grant","id":<its id>}.')
}

/** By id: what would be a secret is no id. */
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

const METHOD = /^[A-Z]{1,20}$/

/** The action is a method, or an operation that the address has to be, with its method among the properties. */
async function askOf(
  { action, resource, context = {} }: Evaluation,
  grant: Grant,
  by: AskedBy,
  { catalogue, clock }: Rooms,
): Promise<Ask> {
  const url = resource.type === 'url' ? URL.parse(resource.id) : null
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '')
    throw new GatewayError('request_malformed', 'The resource is {"type":"url","id":"https://…"}.')
  const isMethod = METHOD.test(action.name)
  const { method = 'GET' } = isMethod ? { method: action.name } : (action.properties ?? {})
  if (typeof method !== 'string' || !METHOD.test(method))
    throw new GatewayError('request_malformed', 'The action is a method such as GET, or an operation of the services.')
  const scheme = url.protocol === 'http:' ? 'http' : 'https'
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const port = Number(url.port) || (scheme === 'http' ? 80 : 443)
  const rawPath = `${url.pathname}${url.search}`
  const endpoint = catalogue.locate({
    ...{ scheme, host, port, method, rawPath },
    ...{ mode: 'forward', hostHeader: undefined, rawHeaders: [] },
  })
  if (!isMethod && endpoint.operation.name !== action.name)
    throw new GatewayError(
      'scope_exceeded',
      `${method} there is ${endpoint.operation.name}, not what the action names.`,
    )
  const source = by.holder === undefined ? context.source_ip : undefined
  const sourceAddress = typeof source === 'string' ? source : by.address
  return { grant, endpoint, method, rawPath, sourceAddress, nowMs: clock.nowMs(), body: context.body, mode: 'forward' }
}

/** As `policy.engines` may oblige us. Whom it is told to is nobody's business outside. */
function toldOf(o: Obligations): readonly { readonly type: string; readonly value: unknown }[] {
  const all = {
    ttl: o.ttlS,
    single_use: o.singleUse || undefined,
    max_depth: o.maxDepth,
    foreign_credentials: o.foreignCredentials,
    rate: o.rates?.map(({ n, perS }) => `${n}/${perS}`),
    read_only: o.readOnly,
    downscope: o.downscope,
    redact: o.redact,
    log: o.log,
  }
  return Object.entries(all).flatMap(([type, value]) => (value === undefined ? [] : [{ type, value }]))
}
