/** Entries about credentials that were where none may be: in an answer, or in a request. Never a value, always a place. */
import type { Grant } from '../../protocol/grant.ts'
import type { Inbound, Leaks, Outcome, Sighting } from '../../protocol/message.ts'
import type { Endpoint } from '../../protocol/service.ts'
import type { Draft, JsonValue } from '../canonical.ts'
import { authorityOf, type Fields } from './authority.ts'
import { draftOn, type Letterhead } from './letterhead.ts'
import type { LeaseFacts } from './record.ts'

interface Call {
  readonly inbound: Inbound
  readonly endpoint: Endpoint | undefined
  readonly grant: Grant | undefined
  readonly lease: LeaseFacts | undefined
}

/** An upstream sent our credential back. */
interface Leak {
  /** What was done about it. */
  readonly fate: string
  readonly leaks: Leaks | undefined
  /** Absent: the answer was not passed on. */
  readonly outcome: Outcome | undefined
}

export function leakDraft(paper: Letterhead, call: Call, { fate, leaks, outcome }: Leak): Draft {
  const { lease } = call
  return entry(paper, 'leak.detected', call, {
    provider: lease?.provider,
    credential: lease?.credential,
    cred_id: lease?.credentialId,
    ephemeral: lease?.ephemeral,
    count: Object.values(leaks ?? {}).reduce((sum, count) => sum + count, 0),
    where: leaks && { ...leaks },
    fate,
    status: outcome?.status,
    address: outcome?.address,
  })
}

/** `leak.foreign`: a request carried what looks like somebody's credential, and policy said to write that down. */
export function foreignDraft(paper: Letterhead, call: Call, sightings: readonly Sighting[]): Draft {
  return entry(paper, 'leak.foreign', call, { sightings: sightings.map(({ rule, where }) => ({ rule, where })) })
}

function entry(paper: Letterhead, kind: string, call: Call, facts: Record<string, JsonValue | undefined>): Draft {
  const { inbound, endpoint, grant } = call
  const place: Fields = {
    service: endpoint?.service.name,
    operation: endpoint?.operation.name,
    host: inbound.host,
    grant: grant?.id,
  }
  const { id: req, tenant, trace } = inbound
  const members = { kind, req, tenant, trace, ...(grant && authorityOf(grant)), facts: { ...place, ...facts } }
  return draftOn(paper, members, grant?.human)
}
