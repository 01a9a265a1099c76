/**
 * Questions to policy with facts that are supposed rather than observed: what tests, explanations and replays ask. Cedar, our own
 * rules and the tables of attributes are those of a running gateway; only where a value comes from differs.
 */
import type { Ask } from '../protocol/decision.ts'
import type { Agent, Grant } from '../protocol/grant.ts'
import type { Proposal } from '../protocol/instruction.ts'
import type { Destination } from '../protocol/message.ts'
import { nearest } from '../protocol/nearest.ts'
import type { Endpoint, Operation, Service } from '../protocol/service.ts'
import { DEFAULT_PORTS, parseAuthority } from '../protocol/target.ts'
import { type Selection, selectCall, selectGrant, type Value } from './attributes.ts'
import type { Bundle } from './bundle.ts'
import { askCedar, type Engine, requireName } from './engine.ts'
import { callQuestion, grantQuestion } from './question.ts'

export type Kind = 'call' | 'mint' | 'delegate'

/** Values by the names under which policies read them: `context.human`, `principal` for its id, `resource tags`. */
export type Facts = ReadonlyMap<string, Value>

/** Facts as people write them: under the variable of a policy. `id` is the identity itself, `tags` its tags. */
export interface Written {
  readonly principal?: Readonly<Record<string, unknown>> | undefined
  readonly resource?: Readonly<Record<string, unknown>> | undefined
  readonly context?: Readonly<Record<string, unknown>> | undefined
}

/** Every attribute that such a question has. */
export function attributesOf(kind: Kind): readonly string[] {
  return Object.keys(tableOf(kind))
}

function tableOf(kind: Kind): Readonly<Record<string, unknown>> {
  return kind === 'call' ? selectCall(new Set()).table : selectGrant(kind, new Set()).table
}

/** @throws {Error} naming a fact that no such question has, and the one that may be meant. */
export function factsOf(kind: Kind, written: Written): Map<string, Value> {
  const known = attributesOf(kind)
  const facts = new Map<string, Value>()
  for (const variable of ['principal', 'resource', 'context'] as const) {
    for (const [member, value] of Object.entries(written[variable] ?? {})) {
      const name = nameOf(variable, member)
      if (!known.includes(name)) throw unknownFact(kind, `${variable}.${member}`, known)
      facts.set(name, name === 'context.now' ? epochSeconds(value) : (value as Value))
    }
  }
  return facts
}

function nameOf(variable: string, member: string): string {
  if (member === 'tags') return `${variable} tags`
  return variable === 'principal' && member === 'id' ? variable : `${variable}.${member}`
}

function unknownFact(kind: Kind, written: string, known: readonly string[]): Error {
  const spelled = known.map((name) => (name === 'principal' ? 'principal.id' : name.replace(' ', '.')))
  const meant = nearest(written, spelled)
  const hint = meant === undefined ? '' : ` Did you mean ${meant}?`
  return new Error(
    `${written} is nothing that a policy on a ${kind} can read.${hint} There are: ${spelled.join(', ')}.`,
  )
}

function epochSeconds(value: unknown): number {
  const seconds = typeof value === 'string' ? Date.parse(value) / 1000 : Number(value)
  if (!Number.isFinite(seconds))
    throw new Error(`context.now is ${JSON.stringify(value)}; write a time such as 2026-11-23T10:00:00Z.`)
  return Math.floor(seconds)
}

/** Asks Cedar with these facts in the place of what a request would say. Never remembers. */
export function supposingEngine(bundle: Bundle, facts: Facts): Engine {
  return {
    decide(ask) {
      const { operation } = ask.endpoint
      const slice = bundle.sliceFor(operation)
      const selection = supposed(selectCall(slice.readings), facts)
      return requireName(
        askCedar(slice, () => callQuestion(selection, ask, operation)),
        slice,
        operation,
      )
    },
    decideGrant(ask) {
      const slice = bundle.grantSliceFor(ask.action, ask.service)
      const selection = supposed(selectGrant(ask.action, slice.readings), facts)
      return askCedar(slice, () => grantQuestion(selection, ask))
    },
  }
}

/** All attributes, so that a fact of the wrong type is an error whether or not a policy reads it. */
export function supposed<A>({ table }: Selection<A>, facts: Facts): Selection<A> {
  const own = { ...table }
  for (const [name, value] of facts) {
    const attribute = own[name]
    if (attribute !== undefined) own[name] = { ...attribute, read: () => value }
  }
  return { names: Object.keys(own), table: own }
}

const NOON = Date.UTC(2026, 0, 5, 12) // a Monday

/** What is true of a question unless its facts say otherwise: a low-risk agent for a local human, at noon of a Monday. */
function grantOf(facts: Facts, operations: readonly string[]): Grant {
  const told = (name: string, otherwise: string) => String(facts.get(name) ?? otherwise)
  const depth = Number(facts.get('context.lineage_depth') ?? 0)
  const nowS = Number(facts.get('context.now') ?? NOON / 1000)
  const agent: Agent = {
    id: told('principal', 'spiffe://example.org/agents/test'),
    owner: told('principal.owner', 'somebody@example.org'),
    purpose: told('principal.purpose', 'test policies'),
    riskTier: 'low',
  }
  const human = { iss: told('context.human_iss', 'local:test'), sub: told('context.human', 'somebody') }
  return {
    id: 'grant',
    tenant: 'default',
    human,
    agent,
    task: { id: told('context.task_id', 'task'), purpose: told('context.purpose', 'test policies') },
    authority: [{ operations }],
    issuedAt: nowS,
    expiresAt: nowS + 900,
    lineage: [
      { n: 0, type: 'human', id: human.sub },
      { n: 1, type: 'ai_agent', id: agent.id, grant: 'grant' },
    ],
    lineageHash: '',
    depth,
    maxDepth: 0,
    delegable: facts.get('context.delegable') !== false,
    ancestry: [],
    attestations: [],
  }
}

/** A call as far as it is written in a test or on a command line. */
export interface WrittenCall {
  readonly method: string
  readonly url: string
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** JSON. */
  readonly body?: unknown
  readonly form?: string | undefined
}

/** `GET https://api.github.com/repos/acme/site/issues`. @throws {Error} when it is not of this form. */
export function parseCall(text: string): WrittenCall {
  const [, method, url] = /^([A-Z]+) (https?:\/\/\S+)$/.exec(text) ?? []
  if (method === undefined || url === undefined)
    throw new Error(`${JSON.stringify(text)} is no request; write METHOD URL, like GET https://api.github.com/user`)
  return { method, url }
}

export function destinationOf({ method, url, headers = {}, body, form }: WrittenCall): Destination {
  const [, scheme, authority = '', rest = ''] = /^(https?):\/\/([^/?#]+)([^#]*)$/.exec(url) ?? []
  if (scheme !== 'http' && scheme !== 'https')
    throw new Error(`${JSON.stringify(url)} is no URL of a request; write it like https://api.github.com/user`)
  const bytes = Buffer.from(form ?? (body === undefined ? '' : JSON.stringify(body)))
  return {
    mode: 'forward',
    method,
    scheme,
    ...parseAuthority(authority, DEFAULT_PORTS[scheme]),
    rawPath: rest.startsWith('/') ? rest : `/${rest}`,
    rawHeaders: Object.entries(headers).flat(),
    hostHeader: undefined,
    route: undefined,
    content: { bytes, taken: [], ...(body !== undefined && { json: body }), ...(form !== undefined && { form }) },
  }
}

/** A request of the operation's first pattern, in which every name stands for itself. */
export function exampleOf(
  service: Service,
  operation: Operation,
): { readonly endpoint: Endpoint; readonly method: string } {
  const [method = 'GET', place = '/'] = (operation.match?.[0] ?? 'GET /').split(' ')
  const path = place
    .slice(place.indexOf('/'))
    .replace(/\?.*$/, '')
    .replaceAll(/[{}*+]/g, '')
  const params = Object.fromEntries([...place.matchAll(/\{([a-z][a-z0-9_]*)/g)].map(([, name = '']) => [name, name]))
  const { scheme } = service
  const [host = 'example.org', port = DEFAULT_PORTS[scheme]] = [service.hosts[0], service.ports[0]]
  return { endpoint: { service, operation, scheme, host, port, path, rawPath: path, params }, method }
}

export function callAsk(endpoint: Endpoint, facts: Facts, said: { method: string; body?: unknown }): Ask {
  const grant = grantOf(facts, [endpoint.operation.name])
  return {
    grant,
    endpoint,
    method: String(facts.get('context.method') ?? said.method),
    rawPath: endpoint.rawPath,
    sourceAddress: '127.0.0.1',
    nowMs: grant.issuedAt * 1000,
    body: said.body,
    isUpgrade: false,
  }
}

/** A grant that is to be made. @param scope operation patterns. @param maxDepth how far down it could be delegated. */
export function issuingOf(kind: 'mint' | 'delegate', scope: readonly string[], facts: Facts, maxDepth = 0): Proposal {
  const asked = kind === 'mint' ? facts : new Map<string, Value>([['context.lineage_depth', 1], ...facts])
  const grant = { ...grantOf(asked, scope), maxDepth }
  const { authority, agent } = grant
  const ttlS = Number(facts.get('context.ttl_s') ?? 900)
  if (kind === 'mint') return { kind: 'task.open', grant, authority, agent, ttlS }
  const delegator = { ...agent, id: String(facts.get('context.delegator') ?? 'spiffe://example.org/agents/parent') }
  const parent = { ...grant, agent: delegator, depth: Math.max(0, grant.depth - 1) }
  return { kind: 'grant.delegate', parent, grant, authority, agent, ttlS, attestation: 'given' }
}
