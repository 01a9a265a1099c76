/**
 * The fields of a request: what becomes of each by its name, as the slots of its service and the safety of its answer want it.
 * Worked out once per service and name.
 */
import { AWS_SIGNATURE_FIELDS } from '../protocol/aws-claim.ts'
import type { Inbound } from '../protocol/message.ts'
import { carriesSecret, type Service } from '../protocol/service.ts'

export type Action =
  | 'keep'
  | 'drop'
  | 'connection'
  | 'transfer-encoding'
  | 'content-length'
  | 'te'
  | 'identity'
  | 'cookie'
  | 'subprotocol'

/** What is known of a service's header names, worked out once. */
export interface Plan {
  /** Header name as received, any case → what to do. Grows with names seen, up to `MAX_NAMES`. */
  readonly actions: Map<string, Action>
  /** Lower-case header names of credential slots. */
  readonly slots: ReadonlySet<string>
  readonly cookies: readonly string[]
  readonly parameters: readonly string[]
  /** Prefixes of subprotocols that are credentials. */
  readonly subprotocols: readonly string[]
  /** Answers are scrubbed, so they must come whole and unencoded. */
  readonly isScrubbed: boolean
  /** What the client brings as its credential passes. */
  readonly isOpen: boolean
  /** It is signed as AWS does: what the client signed says how. */
  readonly isAwsSigned: boolean
}

/** Memo of a pure function of the service; agents choose names, so it is bounded. */
const plans = new WeakMap<Service, Plan>()
const openPlans = new WeakMap<Service, Plan>()
const MAX_NAMES = 512
const MAX_NAME_LENGTH = 64

const FIXED: ReadonlyMap<string, Action> = new Map<string, Action>([
  ['host', 'drop'], // written from the endpoint that policy decided on
  ['connection', 'connection'],
  ['keep-alive', 'drop'],
  ['te', 'te'],
  ['transfer-encoding', 'transfer-encoding'],
  ['upgrade', 'drop'],
  ['http2-settings', 'drop'],
  ['expect', 'drop'], // answered by the ingress
  ['content-length', 'content-length'],
  ['authorization', 'drop'],
  ['dpop', 'drop'], // a proof for what Authorization held
  ['x-http-method-override', 'drop'], // policy decided on the method in the request line
  ['x-http-method', 'drop'],
  ['x-method-override', 'drop'],
  ['forwarded', 'drop'],
  ['sec-websocket-protocol', 'subprotocol'],
])

/** What asks for an answer in which nothing is found: parts, character sets, differences (RFC 3229), packed messages. */
const HIDING: ReadonlySet<string> = new Set([
  'range',
  'if-range',
  'accept-charset',
  'a-im',
  'grpc-accept-encoding',
  'connect-accept-encoding',
])

/**
 * Fields by which a proxy tells the server behind it where a request really goes (`X-Forwarded-Host`, `X-Original-URL`,
 * `X-Rewrite-URL`). Policy decided on the request line and Host; an agent may not say otherwise to whoever believes these.
 */
const REROUTING = /^x-(?:original-|rewrite-|forwarded-(?!for$))/

/** What becomes of the fields of this request. */
export function planFor(service: Service, { mode }: Pick<Inbound, 'mode'>): Plan {
  const isOpen = service.passesOwn === true && mode !== 'reverse' // there, the client's credential is its grant
  return (isOpen ? openPlans : plans).get(service) ?? newPlan(service, isOpen)
}

/** @param name as received, any case */
export function actionOn(name: string, plan: Plan): Action {
  return plan.actions.get(name) ?? learn(name, plan)
}

function newPlan(service: Service, isOpen: boolean): Plan {
  const slots = isOpen ? [] : service.slots
  const isAwsSigned = slots.some((slot) => slot.in === 'signature' && slot.scheme === 'aws4')
  const fields = slots.flatMap((slot) => (slot.in === 'header' ? [slot.name.toLowerCase()] : []))
  const plan: Plan = {
    actions: new Map(),
    slots: new Set(isAwsSigned ? [...fields, ...AWS_SIGNATURE_FIELDS] : fields),
    cookies: slots.flatMap((slot) => (slot.in === 'cookie' ? [slot.name] : [])),
    parameters: slots.flatMap((slot) => (slot.in === 'query' ? [slot.name] : [])),
    subprotocols: slots.flatMap((slot) => (slot.in === 'subprotocol' ? [slot.prefix] : [])),
    isScrubbed: carriesSecret({ slots }),
    isOpen,
    isAwsSigned,
  }
  const memo = isOpen ? openPlans : plans
  memo.set(service, plan)
  return plan
}

function learn(name: string, plan: Plan): Action {
  const action = classify(name.toLowerCase(), plan)
  if (plan.actions.size < MAX_NAMES && name.length <= MAX_NAME_LENGTH) plan.actions.set(name, action)
  return action
}

function classify(name: string, plan: Plan): Action {
  // CGI, WSGI and PHP read `X_API_Key` as `X-API-Key`: what has a meaning here has it there under either name.
  if (name.includes('_') && classify(name.replaceAll('_', '-'), plan) !== 'keep') return 'drop'
  if (plan.slots.has(name) || name.startsWith('proxy-') || name.startsWith('keyless-') || name.startsWith(':'))
    return 'drop'
  if (plan.isOpen && name === 'authorization') return 'keep'
  if (name === 'cookie' && plan.cookies.length > 0) return 'cookie'
  if (plan.isScrubbed) {
    // A coding, a character set or a range of the answer could hide a credential that it echoes (standards.md H10).
    if (name === 'accept-encoding') return 'identity'
    if (HIDING.has(name)) return 'drop'
  }
  if (REROUTING.test(name)) return 'drop'
  return FIXED.get(name) ?? 'keep'
}
