/**
 * One question as it is asked in a test, on a command line, or by the log: a call, or the making of a grant. Whoever asks names
 * what matters; the rest is that of an ordinary agent. The grant always covers what is asked: only policy is.
 */
import type { Ask, Decision } from '../../protocol/decision.ts'
import type { Agent, Grant } from '../../protocol/grant.ts'
import type { Proposal } from '../../protocol/instruction.ts'
import type { Destination } from '../../protocol/message.ts'
import type { Endpoint, Operation, Service } from '../../protocol/service.ts'
import { DEFAULT_PORTS, parseAuthority } from '../../protocol/target.ts'
import type { Value } from '../attributes/attributes.ts'
import type { Catalogue } from '../catalogue/catalogue.ts'
import { createPolicy } from '../evaluation.ts'
import type { Bundle } from '../source/bundle.ts'
import { namedOperations } from '../vocabulary.ts'
import { type Facts, type Seen, supposingEngine } from './supposed.ts'

/** Policies, and the services that they speak of. */
export interface Subject {
  readonly bundle: Bundle
  readonly catalogue: Catalogue
}

export type Scene =
  | { readonly kind: 'call'; readonly endpoint: Endpoint; readonly method: string; readonly body?: unknown }
  | { readonly kind: 'mint' | 'delegate'; readonly scope: readonly string[]; readonly maxDepth?: number | undefined }

export interface Answer {
  readonly decision: Decision
  /** What Cedar was asked, in order: once of a call, once for every service of a grant as far as all said yes. */
  readonly seen: readonly Seen[]
}

/** @param isKnown whether a fact is known, by its name. Default: all are. */
export async function answer(
  { bundle }: Pick<Subject, 'bundle'>,
  scene: Scene,
  facts: Facts,
  isKnown?: (name: string) => boolean,
): Promise<Answer> {
  const seen: Seen[] = []
  const policy = createPolicy({ bundle, tenant: 'default', engine: supposingEngine(bundle, facts, { seen, isKnown }) })
  const decision =
    scene.kind === 'call'
      ? await policy.evaluate(callAsk(scene, facts))
      : await policy.evaluateInstruction(issuingOf(scene.kind, scene, facts))
  return { decision, seen }
}

/** @throws {GatewayError} as the gateway answers it. */
export function sceneOfCall({ catalogue }: Pick<Subject, 'catalogue'>, written: WrittenCall): Scene {
  const endpoint = catalogue.locate(destinationOf(written))
  return { kind: 'call', endpoint, method: written.method, body: written.body }
}

/** An operation by its name: a request of its first pattern. @throws {Error} when no service has it. */
export function sceneOfOperation({ catalogue }: Pick<Subject, 'catalogue'>, name: string): Scene {
  const found = operationNamed(catalogue, name)
  if (found !== undefined) return { kind: 'call', ...exampleOf(...found) }
  const services = catalogue.services.map((one) => one.name).join(', ')
  throw new Error(`there is no operation ${name} in the services here: ${services}`)
}

export function hasOperation({ catalogue }: Pick<Subject, 'catalogue'>, name: string): boolean {
  return operationNamed(catalogue, name) !== undefined
}

function operationNamed(catalogue: Catalogue, name: string): readonly [Service, Operation] | undefined {
  const service = catalogue.service(name.slice(0, Math.max(0, name.indexOf(':'))))
  const operation = service && namedOperations(service).find((one) => one.name === name)
  return service && operation && [service, operation]
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

function destinationOf({ method, url, headers = {}, body, form }: WrittenCall): Destination {
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
function exampleOf(service: Service, operation: Operation): { readonly endpoint: Endpoint; readonly method: string } {
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

function callAsk({ endpoint, method, body }: Extract<Scene, { kind: 'call' }>, facts: Facts): Ask {
  const grant = grantOf(facts, [endpoint.operation.name])
  return {
    grant,
    endpoint,
    method: String(facts.get('context.method') ?? method),
    rawPath: endpoint.rawPath,
    sourceAddress: '127.0.0.1',
    nowMs: grant.issuedAt * 1000,
    body,
    isUpgrade: facts.get('context.websocket') === true,
    past: {},
  }
}

/** A grant that is to be made. */
function issuingOf(
  kind: 'mint' | 'delegate',
  { scope, maxDepth = 0 }: Extract<Scene, { scope: unknown }>,
  facts: Facts,
): Proposal {
  const asked = kind === 'mint' ? facts : new Map<string, Value>([['context.lineage_depth', 1], ...facts])
  const grant = { ...grantOf(asked, scope), maxDepth }
  const { authority, agent } = grant
  const ttlS = Number(facts.get('context.ttl_s') ?? 900)
  if (kind === 'mint') return { kind: 'task.open', grant, authority, agent, ttlS }
  const delegator = { ...agent, id: String(facts.get('context.delegator') ?? 'spiffe://example.org/agents/parent') }
  const parent = { ...grant, agent: delegator, depth: Math.max(0, grant.depth - 1) }
  return { kind: 'grant.delegate', parent, grant, authority, agent, ttlS, attestation: 'given' }
}
