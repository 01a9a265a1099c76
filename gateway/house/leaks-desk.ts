/**
 * What becomes of one reported credential. It is ours when it is a grant that lives here, or has the keyed hash of a credential that was
 * leased; by name, id or likeness nothing ends. In the log first; a log that cannot be written holds up no end.
 */
import type { Audit } from '../audit/audit.ts'
import type { Grants } from '../grant/grants.ts'
import type { Leases } from '../lease/leases.ts'
import type { Unused } from '../lease/revoke.ts'
import { canaryDigest } from '../protocol/canary.ts'
import type { Grant } from '../protocol/grant.ts'
import { grantsIn } from '../protocol/grant-text.ts'
import type { LeakKind, LeakReport, LeakVerdict } from '../protocol/leak.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import type { Revocations, RevocationTarget } from '../protocol/revocation.ts'
import { Secret } from '../protocol/secret.ts'
import type { RecordsThread } from '../records/records-thread.ts'
import type { Settings } from '../settings.ts'
import { operator } from './audit.ts'
import type { HouseBreakGlass } from './break-glass.ts'
import { type Facts, noted, partyOf, reasonOf, saidOf } from './leaks-note.ts'

export interface DeskParts {
  readonly audit: Pick<Audit, 'record' | 'recordUnder' | 'late'>
  readonly grants: Pick<Grants, 'named' | 'list' | 'task'>
  readonly leases: Pick<Leases, 'credentialId' | 'known' | 'stray'>
  readonly revocations: Pick<Revocations, 'order'>
  readonly breakGlass: Pick<HouseBreakGlass, 'leaked'> | undefined
  /** Undefined: there is no index of what was leased. */
  readonly records: Pick<RecordsThread, 'find'> | undefined
}

type Take = (reports: readonly LeakReport[], from: string) => Promise<readonly LeakVerdict[]>

/** What lives of the reported credentials, as far as that is known. */
interface Leased {
  /** credential id → leases */
  readonly known: ReadonlyMap<string, readonly Unused[]>
  /** Why others may be lent that are not known here. */
  readonly failure: GatewayError | undefined
}

const NOTHING: LeakVerdict = { kind: 'unknown', outcome: 'unknown' }

export function createLeakDesk(settings: Settings, parts: DeskParts): Take {
  const desk = new Desk(settings, parts)
  return (reports, from) => desk.take(reports, from)
}

class Desk {
  readonly #settings: Settings
  readonly #parts: DeskParts
  /** Hex SHA-256 → name */
  readonly #canaries: ReadonlyMap<string, string>

  constructor(settings: Settings, parts: DeskParts) {
    this.#settings = settings
    this.#parts = parts
    this.#canaries = new Map(Object.entries(settings.leaks.canaries).map(([name, { sha256 }]) => [sha256, name]))
  }

  async take(reports: readonly LeakReport[], from: string): Promise<readonly LeakVerdict[]> {
    const leased = await this.#leased(reports)
    let failure: GatewayError | undefined
    const verdicts: LeakVerdict[] = []
    for (const report of reports) {
      const verdict = await this.#judge(report, from, leased).catch((cause: unknown) => {
        failure = asGatewayError(cause)
        return NOTHING
      })
      verdicts.push(verdict)
    }
    const count = verdicts.filter(({ kind }) => kind === 'unknown').length
    const [first] = reports
    if (count > 0 && first) await this.#record({ from, what: 'unknown', count, ...saidOf(first), action: 'none' })
    if (failure !== undefined) throw failure // who reported asks again; what has ended has ended
    return verdicts
  }

  async #judge(report: LeakReport, from: string, leased: Leased): Promise<LeakVerdict> {
    const canary = this.#canaries.get(canaryDigest(report.token))
    if (canary !== undefined) return this.#alarm(canary, report, from)
    for (const { token } of grantsIn(report.token)) {
      const verdict = token.startsWith('bkh_')
        ? await this.#breakGlass(token, report, from)
        : await this.#grant(token, report, from)
      if (verdict.kind !== 'unknown') return verdict
    }
    const id = this.#parts.leases.credentialId(new Secret(report.token))
    const found = leased.known.get(id) ?? []
    if (found.length > 0) return this.#credential(found, report, from)
    if (leased.failure !== undefined) throw leased.failure
    return this.#former(id, report, from)
  }

  async #alarm(canary: string, report: LeakReport, from: string): Promise<LeakVerdict> {
    const { tenant } = this.#settings
    const facts = { canary, where: 'report', from, action: 'nothing' }
    await this.#record({ from, what: 'canary', canary, ...saidOf(report), action: 'alert' })
    await noted('leak.canary_used', { facts, grant: undefined, tenant }, this.#parts.audit)
    return { kind: 'canary', outcome: 'alerted' }
  }

  /** An offline delegation that was never used here is worth as much as the grant that it was made of: the nearest that is known ends. */
  async #grant(token: string, report: LeakReport, from: string): Promise<LeakVerdict> {
    const { grants } = this.#parts
    const kind: LeakKind = token.startsWith('kh_') ? 'handle' : 'grant'
    const said = { from, what: kind, ...saidOf(report) }
    for (let rest = token; rest !== ''; rest = rest.includes('~') ? rest.slice(rest.indexOf('~') + 1) : '') {
      const found = await grants.named(this.#settings.tenant, rest).catch((cause: unknown) => asGatewayError(cause))
      if (!('code' in found)) {
        await this.#record({ ...said, ...partyOf(found), action: 'revoke' }, found)
        return { kind, outcome: await this.#end(found, from) }
      }
      if (found.code === 'grant_invalid') continue
      const isOver = found.code === 'grant_revoked' || found.code === 'grant_expired'
      await this.#record({ ...said, action: isOver ? 'none' : 'revoke' })
      if (isOver) return { kind, outcome: 'ended' }
      // It is parked, or nobody can say: ended by what was shown.
      await this.#parts.revocations.order({
        target: { grant: rest },
        reason: reasonOf(from),
        by: { automatic: 'leak' },
      })
      return { kind, outcome: 'revoked' }
    }
    return NOTHING
  }

  async #breakGlass(token: string, report: LeakReport, from: string): Promise<LeakVerdict> {
    const { breakGlass } = this.#parts
    if (breakGlass === undefined) return NOTHING
    if (!(await breakGlass.leaked(token, operator()))) return NOTHING
    await this.#record({ from, what: 'break_glass', ...saidOf(report), action: 'revoke' })
    return { kind: 'break_glass', outcome: 'revoked' }
  }

  /** Whoever was lent it cannot be trusted with another one: what settings say of its grant ends too. */
  async #credential(found: readonly Unused[], report: LeakReport, from: string): Promise<LeakVerdict> {
    const { leases, revocations } = this.#parts
    const { standingKeys } = this.#settings.leaks
    const isStanding = found.some(({ credential }) => !credential.ephemeral)
    const action = !isStanding ? 'revoke' : standingKeys === 'block' ? 'block' : 'alert'
    const names = new Set(found.map(({ claim }) => claim.name))
    for (const { claim, credential, credentialId } of found) {
      const what = { credential: claim.name, cred_id: credentialId, ephemeral: credential.ephemeral }
      const facts = { from, what: 'credential', ...saidOf(report), ...partyOf(claim.grant), ...what, action }
      await this.#record(facts, claim.grant)
    }
    if (!isStanding) {
      await Promise.all(found.map((one) => leases.stray(one)))
      const grants = new Map(found.map(({ claim }) => [claim.grant.id, claim.grant]))
      await Promise.all([...grants.values()].map((grant) => this.#end(grant, from)))
    }
    if (action === 'block')
      for (const credential of names)
        await revocations.order({ target: { credential }, reason: reasonOf(from), by: { automatic: 'leak' } })
    return { kind: 'credential', outcome: action === 'alert' ? 'alerted' : action === 'block' ? 'blocked' : 'revoked' }
  }

  /** The log knows it, and nobody holds it any more. A standing key is as good as ever. */
  async #former(id: string, report: LeakReport, from: string): Promise<LeakVerdict> {
    const query = { credential: id, limit: 1 } as const
    const page = await this.#parts.records?.find(query).catch(untold)
    const found = page?.records.find(({ cred_id: known }) => known === id)
    if (found === undefined) return NOTHING
    const name = typeof found.credential === 'string' ? found.credential : ''
    const isStanding = found.ephemeral === false || found.ephemeral === 0
    const { standingKeys } = this.#settings.leaks
    const isBlocked = isStanding && standingKeys === 'block' && Object.hasOwn(this.#settings.credentials, name)
    const action = isBlocked ? 'block' : isStanding ? 'alert' : 'none'
    const what = { credential: name, cred_id: id, ephemeral: !isStanding }
    await this.#record({ from, what: 'credential', ...saidOf(report), ...what, action })
    if (isBlocked)
      await this.#parts.revocations.order({
        target: { credential: name },
        reason: reasonOf(from),
        by: { automatic: 'leak' },
      })
    return { kind: 'credential', outcome: isBlocked ? 'blocked' : isStanding ? 'alerted' : 'ended' }
  }

  async #end(grant: Grant, from: string): Promise<'revoked' | 'ended'> {
    const target = endOf(grant, this.#settings.leaks.ends)
    try {
      await this.#parts.revocations.order({ target, reason: reasonOf(from), by: { automatic: 'leak' } })
      return 'revoked'
    } catch (cause) {
      const { code } = asGatewayError(cause)
      if (code === 'grant_revoked' || code === 'grant_expired' || code === 'task_unknown') return 'ended'
      throw cause
    }
  }

  async #leased(reports: readonly LeakReport[]): Promise<Leased> {
    const { leases } = this.#parts
    // Handles and grants are looked up by themselves.
    const others = reports.filter(({ token }) => grantsIn(token).next().done)
    const ids = new Set(others.map(({ token }) => leases.credentialId(new Secret(token))))
    if (ids.size === 0) return { known: new Map(), failure: undefined }
    try {
      return { known: this.#byId(await leases.known(ids, await this.#living())), failure: undefined }
    } catch (cause) {
      const own = await leases.known(ids, []).catch(() => [])
      return { known: this.#byId(own), failure: unanswered(cause) }
    }
  }

  /** Every grant that lives. @throws when nobody can say. */
  async #living(): Promise<readonly Grant[]> {
    const { grants } = this.#parts
    const { tenant } = this.#settings
    const tasks = await grants.list(tenant)
    const living = await Promise.all(
      tasks.map(({ id }) =>
        grants.task(tenant, id).catch((cause: unknown) => {
          if (asGatewayError(cause).code === 'store_unavailable') throw cause
          return undefined // it has just ended
        }),
      ),
    )
    return living.flatMap((one) => one?.grants ?? [])
  }

  #byId(known: readonly Unused[]): Leased['known'] {
    const own = known.filter(({ claim }) => claim.grant.tenant === this.#settings.tenant)
    return Map.groupBy(own, ({ credentialId }) => credentialId)
  }

  #record(facts: Facts, grant?: Grant): Promise<void> {
    return noted('leak.reported', { facts, grant, tenant: this.#settings.tenant }, this.#parts.audit)
  }
}

/** What of a grant ends. */
export function endOf({ id, task, agent }: Grant, ends: 'grant' | 'task' | 'agent'): RevocationTarget {
  return { grant: { grant: id }, task: { task: task.id }, agent: { agent: agent.id } }[ends]
}

/** Who reported asks again: a credential that lives must not pass for one that is nobody's. */
function unanswered(cause: unknown): GatewayError {
  const detail = 'Whether what was reported is ours cannot be looked up now. Report it again.'
  return new GatewayError('store_unavailable', detail, { cause })
}

function untold(cause: unknown): never {
  throw unanswered(cause)
}
