/**
 * Emergency access while it is open at this gateway: opened once by what custodians signed, announced, counted, ended by hand or by
 * its time. Every step is in the log or in the journal; only an end takes effect without.
 */

import type { Audit } from '../audit/audit.ts'
import type { Aside } from '../audit/entries/aside.ts'
import type { Journal } from '../audit/files/journal.ts'
import type { BreakGlassGrants } from '../grant/break-glass.ts'
import { readSealed, type Sealed } from '../grant/break-glass-request.ts'
import type { InstructionRooms } from '../instruction.ts'
import type { Leases } from '../lease/leases.ts'
import type { BreakGlassDoor, BreakGlassStatus, BreakGlassView, OpenedBreakGlass } from '../protocol/break-glass.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import { uuidv7 } from '../protocol/id.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import { requireOpening } from './break-glass-terms.ts'

const TICK_MS = 1000
const REMIND_MS = 60_000

interface Open {
  readonly grant: Grant
  uses: number
  /** Monotonic. */
  remindedMs: number
}

export interface EmergencyRooms {
  readonly tenant: string
  /** Custodians who have to sign. */
  readonly threshold: number
  readonly aside: Aside
  readonly audit: Pick<Audit, 'record'>
  readonly journal: Journal
  readonly grants: BreakGlassGrants
  readonly leases: Pick<Leases, 'purge'>
  readonly policy: InstructionRooms['policy']
  readonly clock: Clock
}

export class Emergency implements BreakGlassDoor {
  readonly #rooms: EmergencyRooms
  /** grant id → what is open here; written only by `open`, `begin` and `#finish` */
  readonly #open = new Map<string, Open>()
  /** Ends that neither log nor journal took yet. */
  #unrecorded: (() => Promise<unknown>)[] = []
  readonly #timer: NodeJS.Timeout
  #total = { opened: 0, uses: 0 }

  constructor(rooms: EmergencyRooms) {
    this.#rooms = rooms
    this.#timer = setInterval(() => void this.#tick(), TICK_MS).unref()
  }

  /** Before any door opens: what the last process left behind is in the log, and what it opened lives on. */
  async begin(): Promise<void> {
    const { aside, journal, audit, grants, tenant } = this.#rooms
    await aside.drain()
    const { damage } = journal
    if (damage !== undefined) {
      say(`the journal was changed by somebody else; ${damage.keptIn} keeps it`)
      const { journal: name, whole, keptIn } = damage
      await audit.record('breakglass.journal_damaged', tenant, { journal: name, whole, kept_in: keptIn })
    }
    for (const grant of grants.living()) {
      this.#open.set(grant.id, { grant, uses: 0, remindedMs: 0 })
      this.#announce(grant, 'is still open')
    }
  }

  get isOpen(): boolean {
    return this.#open.size > 0
  }

  /** Since the start of the process. */
  get total(): { readonly opened: number; readonly uses: number } {
    return this.#total
  }

  async open(value: unknown, by: Human): Promise<OpenedBreakGlass> {
    const opener = `${by.iss} ${by.sub}`
    let request = uuidv7(this.#rooms.clock.nowMs())
    try {
      const sealed = readSealed(value)
      request = sealed.request.id
      return await this.#opened(sealed, opener)
    } catch (cause) {
      const { code, detail } = asGatewayError(cause)
      say(`an opening was refused: ${detail}`)
      const facts = { request, code, detail, opened_by: opener }
      const about = { tenant: this.#rooms.tenant, req: uuidv7(this.#rooms.clock.nowMs()), grant: undefined }
      await this.#rooms.aside.record('breakglass.refused', about, facts).catch(() => undefined)
      throw cause
    }
  }

  async close(id: string, by: Human): Promise<void> {
    const found = [...this.#open.values()].find(({ grant }) => grant.id === id || grant.breakGlass?.request === id)
    if (found === undefined)
      throw new GatewayError('break_glass_refused', `Nothing is open here under ${JSON.stringify(id.slice(0, 64))}.`)
    await this.#finish(found, 'closed', `${by.iss} ${by.sub}`)
  }

  status(): BreakGlassStatus {
    const { journal } = this.#rooms
    return {
      open: [...this.#open.values()].map(viewOf),
      journalled: journal.pending,
      journal_trouble: journal.probe() ?? null,
    }
  }

  /** What is open stays so: its end is in its own store. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#recordEnds()
    await this.#rooms.aside.drain()
  }

  async #opened(sealed: Sealed, opener: string): Promise<OpenedBreakGlass> {
    const { aside, grants, policy, threshold, tenant } = this.#rooms
    const { request } = sealed
    const grant = grants.propose(sealed)
    const decision = await requireOpening(grant, policy)
    const { custodians, digest } = grant.breakGlass ?? { custodians: [], digest: '' }
    const { logged } = await aside.record(
      'breakglass.opened',
      { tenant, req: request.id, grant, decision },
      {
        request: request.id,
        digest,
        custodians: [...custodians],
        threshold,
        opened_by: opener,
        ttl_s: grant.expiresAt - grant.issuedAt,
        hosts: [...(request.at ?? [])],
      },
    )
    // It is on record. A crash here leaves a request that can still be opened, and is then on record twice.
    const handle = grants.open(grant)
    const open = { grant, uses: 0, remindedMs: this.#rooms.clock.elapsedMs() }
    this.#open.set(grant.id, open)
    this.#total.opened += 1
    this.#announce(grant, `was opened by ${opener}`)
    return { ...viewOf(open), handle, logged }
  }

  /** A call goes out with a credential. */
  used(grant: Grant, what: string): void {
    const open = this.#open.get(grant.id)
    if (open !== undefined) open.uses += 1
    this.#total.uses += 1
    say(`${grant.id} was used by ${grant.agent.id} for ${what}`)
  }

  async #finish({ grant, uses }: Open, reason: 'closed' | 'expired' | 'revoked', by?: string): Promise<void> {
    const { aside, grants, leases, tenant } = this.#rooms
    this.#open.delete(grant.id)
    // It ends whether that can be written or not.
    let failure: unknown
    try {
      if (reason !== 'expired') grants.end(grant, reason)
    } catch (cause) {
      failure = cause
    }
    void leases.purge(grant)
    say(`${grant.id} is ${reason}, after ${uses} calls`)
    const { request = '' } = grant.breakGlass ?? {}
    const facts = { request, reason, closed_by: by, uses }
    const about = { tenant, req: uuidv7(this.#rooms.clock.nowMs()), grant }
    this.#unrecorded.push(() => aside.record('breakglass.closed', about, facts))
    await this.#recordEnds()
    if (failure !== undefined) throw failure
  }

  async #recordEnds(): Promise<void> {
    const waiting = this.#unrecorded
    this.#unrecorded = []
    for (const record of waiting) await record().catch(() => this.#unrecorded.push(record))
  }

  async #tick(): Promise<void> {
    const { aside, clock, grants, journal } = this.#rooms
    for (const open of this.#open.values()) {
      const { grant } = open
      const isExpired = clock.nowMs() >= grant.expiresAt * 1000
      if (isExpired || grants.isRevoked(grant))
        await this.#finish(open, isExpired ? 'expired' : 'revoked').catch(() => undefined)
      else if (clock.elapsedMs() - open.remindedMs >= REMIND_MS) {
        open.remindedMs = clock.elapsedMs()
        this.#announce(grant, `is open, with ${open.uses} calls so far`)
      }
    }
    if (this.#unrecorded.length > 0) await this.#recordEnds()
    if (journal.pending > 0) await aside.drain()
  }

  #announce({ id, agent, human, task, expiresAt, breakGlass }: Grant, how: string): void {
    const until = new Date(expiresAt * 1000).toISOString()
    say(
      `emergency access ${id} ${how}: ${agent.id} for ${human.sub}, signed by ${breakGlass?.custodians.join(' and ')}, until ${until}: ${JSON.stringify(task.purpose)}. End it with: keyless break-glass close ${id}`,
    )
  }
}

function viewOf({ grant, uses }: Open): BreakGlassView {
  const { id, human, agent, task, authority, breakGlass, issuedAt, expiresAt } = grant
  return {
    ...{ id, uses, who: human.sub, agent: agent.id, why: task.purpose, task: task.id },
    request: breakGlass?.request ?? '',
    custodians: breakGlass?.custodians ?? [],
    scope: authority.flatMap(({ operations }) => operations),
    opened_at: issuedAt,
    expires_at: expiresAt,
  }
}

/** Loud, whatever else is down. */
export function say(text: string): void {
  process.stderr.write(`keyless: BREAK-GLASS: ${text}\n`)
}
