/** What a decision obliges to, as entries have it. Members in canonical order, none of them from the agent. */
import type { ApprovalTerms } from '../protocol/approval.ts'
import type { Obligations } from '../protocol/decision.ts'
import { cutList, type Limits, roomy } from './canonical.ts'

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
