/** Entries about emergency access: that it was opened, used, closed, refused; and those that came into the log after the fact. */
import type { Decision } from '../../protocol/decision.ts'
import type { Grant } from '../../protocol/grant.ts'
import type { Inbound } from '../../protocol/message.ts'
import type { Endpoint } from '../../protocol/service.ts'
import { cut, type Draft, draftFrom, type JsonValue, roomy } from '../canonical.ts'
import type { Journalled } from '../files/journal.ts'
import { authorityOf, type Fields } from './authority.ts'
import { grantOf } from './granted.ts'
import { draftOn, type Letterhead } from './letterhead.ts'

interface Matter {
  readonly tenant: string
  readonly req: string
  readonly grant: Grant | undefined
  readonly decision?: Decision | undefined
}

export function breakGlassDraft(paper: Letterhead, kind: string, matter: Matter, facts: Fields): Draft {
  const { tenant, req, grant, decision } = matter
  const members = {
    ...{ kind, req, tenant, facts },
    ...(grant && { ...authorityOf(grant), grant: grantOf(grant) }),
    decision: decision && {
      effect: decision.effect,
      policy_ids: decision.policyIds,
      policy_set: decision.policySet,
      errors: decision.errors,
    },
  }
  return draftOn(paper, members, grant?.human)
}

/** Beside the decision of the call, which says everything else: what is listened for is a kind of its own. */
export function usedDraft(paper: Letterhead, grant: Grant, { service, operation }: Endpoint, inbound: Inbound): Draft {
  const { tenant, breakGlass } = grant
  const facts = {
    grant: grant.id,
    request: breakGlass?.request,
    service: service.name,
    operation: operation.name,
    method: cut(inbound.method, roomy.name),
    host: cut(inbound.host, roomy.name),
  }
  return draftOn(paper, { kind: 'breakglass.used', req: inbound.id, tenant, ...authorityOf(grant), facts }, grant.human)
}

/** An entry of the journal as the log takes it: its members as they were, and in `facts` what it was, and when. */
export function lateDraft(paper: Letterhead, { entry, n }: Journalled, journal: string): Draft {
  const { seq: _seq, v: _v, ts, gw, log: _log, kind, facts, ...members } = JSON.parse(entry) as Entry
  const late = { of: kind, at: ts, boot: gw?.boot, node: gw?.node, journal, n, facts }
  return draftFrom({ ...members, kind: 'breakglass.recorded_late', gw: paper.gw, log: paper.origin, facts: late })
}

interface Entry extends Fields {
  readonly ts: string
  readonly kind: string
  readonly gw?: { readonly [name: string]: JsonValue | undefined }
}
