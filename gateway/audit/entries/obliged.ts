/**
 * What a decision obliges to, as entries have it, and what is recorded of the request because of that. Members in canonical order.
 */
import type { ApprovalTerms } from '../../protocol/approval.ts'
import type { Decision, Obligations, ParameterValue } from '../../protocol/decision.ts'
import type { Inbound } from '../../protocol/message.ts'
import { cut, cutList, type JsonValue, type Limits, roomy } from '../canonical.ts'

export function obliged(o: Obligations, limits: Limits = roomy) {
  return {
    approval: o.approval && consent(o.approval, limits),
    downscope: o.downscope,
    foreign_credentials: o.foreignCredentials,
    log: o.log,
    max_depth: o.maxDepth,
    notify: o.notify && cutList(o.notify, limits),
    rates: o.rates?.map(({ n, perS }) => `${n}/${perS}`),
    read_only: o.readOnly,
    redact: o.redact && cutList(o.redact, limits),
    revoke: o.revoke,
    single_use: o.singleUse,
    ttl_s: o.ttlS === undefined ? null : o.ttlS,
  }
}

function consent({ count, fields, from, reuseS }: ApprovalTerms, limits: Limits) {
  return {
    count,
    fields: fields.length > 0 ? cutList(fields, limits) : undefined,
    from: cutList(from, limits),
    reuse_s: reuseS,
  }
}

/** Names alone: what stands in a field may be a credential. */
const FIELDS = 64

/**
 * With `@log("full")`: which fields came, of what type and length the body is said to be, and the parameters that the service file names
 * for policy. Chosen by whoever wrote service file and policy, written by the agent, and cut.
 */
export function askedFor({ rawHeaders, isHttp2, upgrade }: Inbound, { params }: Decision, limits: Limits) {
  const names = rawHeaders.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
  const sent = (wanted: string) => {
    const at = names.indexOf(wanted)
    return at === -1 ? undefined : cut(rawHeaders[2 * at + 1] as string, limits.name)
  }
  return {
    content_length: sent('content-length'),
    content_type: sent('content-type'),
    fields: cutList([...new Set(names)].sort().slice(0, FIELDS), limits),
    params: params && paramsOf(params, limits),
    protocol: upgrade?.protocol ?? (isHttp2 === true ? 'h2' : 'http/1.1'),
  }
}

/** In the order of their names, as every object of an entry. */
function paramsOf(params: NonNullable<Decision['params']>, limits: Limits) {
  const written = (value: ParameterValue): JsonValue =>
    typeof value === 'string' ? cut(value, limits.name) : typeof value === 'object' ? cutList(value, limits) : value
  return Object.fromEntries(
    Object.entries(params)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => [name, written(value)]),
  )
}
