/** The event of one instruction: recorded before it takes effect, and again if it then does not. */
import type { Approved } from '../../protocol/approval.ts'
import type { Decision } from '../../protocol/decision.ts'
import type { Enquiry, Instruction, Proposal } from '../../protocol/instruction.ts'
import type { GatewayError } from '../../protocol/problem.ts'
import { humanOf } from './asked.ts'
import { type Desk, type InstructionEvent, type Receipt, receiptFor, recorded, type Stage } from './event.ts'
import { deniedDraft, failedDraft, type Instructed, performedDraft } from './instructed.ts'

export class RecordedInstruction implements InstructionEvent {
  readonly id: string
  readonly #desk: Desk
  readonly #instruction: Instruction | Enquiry
  readonly #startedMs: number
  #stage: Stage = 'open'
  #proposal: Proposal | undefined
  #decision: Decision | undefined
  #approved: Approved | undefined

  constructor(desk: Desk, instruction: Instruction | Enquiry) {
    this.id = instruction.id
    this.#desk = desk
    this.#instruction = instruction
    this.#startedMs = desk.clock.elapsedMs()
  }

  proposed(proposal: Proposal): Proposal {
    this.#proposal = proposal
    return proposal
  }

  decided(decision: Decision): Decision {
    this.#decision = decision
    return decision
  }

  approved(approved: Approved | undefined): Approved | undefined {
    this.#approved = approved
    return approved
  }

  async commit(): Promise<Receipt> {
    const proposal = this.#proposal
    if (!proposal) throw new Error('an instruction was committed before it was proposed')
    await this.#ready()
    const draft = performedDraft(this.#desk.paper, { ...this.#instructed, proposal })
    const receipt = await receiptFor(this.#desk, this.id, draft)
    this.#stage = 'committed'
    return receipt
  }

  async refused(refusal: GatewayError): Promise<GatewayError> {
    const was = this.#stage
    this.#stage = 'closed'
    if (was === 'closed') return refusal
    const { paper, log, tally } = this.#desk
    tally.watcher?.denied(refusal.code)
    // Recorded, but it did not take effect: the log must not go on saying that it did.
    if (was === 'committed') log.enqueue(failedDraft(paper, this.#instructed, refusal))
    else return recorded(refusal, this.#append(refusal))
    return refusal
  }

  performed<I>(issued: I): I {
    const kind = this.#proposal?.kind
    if (kind !== undefined) this.#desk.tally.watcher?.performed(kind, this.#desk.clock.elapsedMs() - this.#startedMs)
    return issued
  }

  async #append(refusal: GatewayError): Promise<number> {
    await this.#ready()
    return this.#desk.log.append(deniedDraft(this.#desk.paper, this.#instructed, refusal))
  }

  #ready(): Promise<void> | undefined {
    const grant = this.#proposal?.grant
    return this.#desk.ready(grant?.human ?? humanOf(this.#instruction), grant?.agent.owner)
  }

  get #instructed(): Instructed {
    return {
      instruction: this.#instruction,
      proposal: this.#proposal,
      decision: this.#decision,
      approved: this.#approved,
    }
  }
}
