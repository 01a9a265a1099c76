/** What a decision obliges to, as entries have it. Members in canonical order, none of them from the agent. */
import type { ApprovalTerms } from '../protocol/approval.ts'
import type { Obligations } from '../protocol/decision.ts'

export function obliged(o: Obligations) {
  return {
    approval: o.approval && consent(o.approval),
    downscope: o.downscope,
    foreign_credentials: o.foreignCredentials,
    log: o.log,
    max_depth: o.maxDepth,
    notify: o.notify && [...o.notify],
    rates: o.rates?.map(({ n, perS }) => `${n}/${perS}`),
    read_only: o.readOnly,
    redact: o.redact && [...o.redact],
    revoke: o.revoke,
    single_use: o.singleUse,
    ttl_s: o.ttlS === undefined ? null : o.ttlS,
  }
}

function consent({ count, fields, from, reuseS }: ApprovalTerms) {
  return { count, fields: fields.length > 0 ? [...fields] : undefined, from: [...from], reuse_s: reuseS }
}
