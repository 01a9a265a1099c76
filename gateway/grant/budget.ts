/**
 * Budgets are a tree: a call spends from its grant and from every grant above it, all of them in one step or none. Calls are
 * spent before they are made: a crash after that loses a call, never gives one back. Bytes are counted as they pass, over all
 * calls of this process (`bytes.ts`), and told to the store when a call is over: each replica may carry what was left when its
 * calls began, and the bytes of calls that a crash interrupts are not counted.
 */
import type { Decision } from '../protocol/decision.ts'
import type { Grant, Level } from '../protocol/grant.ts'
import type { Traffic } from '../protocol/meter.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type Allowance, Purses } from './bytes.ts'
import { type Counted, pastCharge } from './life/past-charge.ts'
import { SUSPENDED_S } from './life/task.ts'
import type { Charge, CountCharge, Eventual, GrantStore, RateCharge } from './store/store.ts'

/** No grant lives longer, so none above this one outlives it by more. */
const LONGEST_LIFE_S = 3600

/** What is spent on: the part of a permit that this room looks at. */
export interface Spending {
  readonly grant: Grant
  readonly endpoint: { readonly operation: Counted }
  readonly decision: Pick<Decision, 'levels' | 'obligations' | 'seen'>
}

/** Something happened in the task on which the decision rests: it has to be made anew. */
export const MOVED = 'moved'

export interface Budgets {
  /**
   * @returns undefined when nothing counts bytes, `moved` when nothing was spent because the decision rests on a past that is over; no
   *   promise when there is nothing to spend, or the store answers at once.
   * @throws {GatewayError} `use_spent`, `limit_exceeded`, `store_unavailable`
   */
  debit(spending: Spending): Eventual<Allowance | undefined | typeof MOVED>
  /**
   * Nothing that the call would spend is used up for good; what comes back with time is not looked at, and nothing is spent.
   * @throws {GatewayError} `use_spent`, `limit_exceeded`, `store_unavailable`
   */
  afford(spending: Spending): Promise<void>
  /** Never throws: what the store cannot be told now it is told before it allows anything more. */
  settle(spending: Spending, traffic: Traffic): void
}

/**
 * What one call spends, root first; a byte budget is only asked whether anything is left. Pure.
 * @param levels entries that let the call through, as `reach` names them.
 * @param o.isSingleUse policy obliges to let the operation be used once, by this grant and everything around it in the tree.
 */
export function chargesOf(
  grant: Grant,
  levels: readonly Level[],
  o: { readonly operation: string; readonly isSingleUse: boolean },
): readonly (CountCharge | RateCharge)[] {
  const untilOf = untilIn(grant)
  const charges = levels.flatMap((level) => chargesAt(level, untilOf(level.grant)))
  if (!o.isSingleUse) return charges
  const [root = grant] = grant.ancestry
  const ids = [...grant.ancestry.map(({ id }) => id), grant.id]
  const owners = root.succession === undefined ? ids : [root.succession.origin, ...ids]
  // The oldest outlives a suspension: whoever is resumed has used it still.
  const uses = owners.map((owner, i) =>
    once(`${owner}/once/${o.operation}`, untilOf(owner) + (i === 0 ? SUSPENDED_S : 0)),
  )
  return [...charges, ...uses]
}

function untilIn(grant: Grant): (owner: string) => number {
  return (owner) => grant.expiresAt + (owner === grant.id ? 0 : LONGEST_LIFE_S)
}

/** Every budget that counts calls or bytes, of the levels that a call would spend from. */
export function budgetsAt(
  grant: Grant,
  levels: readonly Level[],
): readonly { readonly counts: 'calls' | 'bytes'; readonly charge: CountCharge }[] {
  const untilOf = untilIn(grant)
  const charges = levels.flatMap((level) => chargesAt(level, untilOf(level.grant)))
  return charges.flatMap((charge) =>
    charge.kind === 'count' ? [{ counts: isBytes(charge) ? ('bytes' as const) : ('calls' as const), charge }] : [],
  )
}

/** By policy: of one agent, over all its grants and tasks. The numbers are in the name, so that other ones count for themselves. */
function ratesOf({ grant, endpoint, decision }: Spending): readonly RateCharge[] {
  const { rates } = decision.obligations
  if (rates === undefined) return []
  const { name } = endpoint.operation
  return rates.map(({ n, perS }) => ({
    ...{ name: `rates/${name}/${n}/${perS}/${grant.agent.id}`, kind: 'rate', n, perS },
    untilS: grant.expiresAt,
  }))
}

export function createBudgets(store: Pick<GrantStore, 'spend' | 'add' | 'left'>): Budgets {
  /** Bytes of calls that are over, oldest first; written only by `settle` and `tell` */
  const untold: { readonly tenant: string; readonly charges: readonly CountCharge[] }[] = []
  let telling: Promise<void> | undefined
  const purses = new Purses()

  const tell = async () => {
    for (let next = untold[0]; next !== undefined; next = untold[0]) {
      await store.add(next.tenant, next.charges)
      untold.shift()
    }
  }
  const spend = (spending: Spending, charges: readonly Charge[]): Eventual<Allowance | undefined | typeof MOVED> => {
    const { tenant } = spending.grant
    const bytes = charges.filter(isBytes)
    const answers = [store.spend(tenant, charges), ...bytes.map((each) => store.left(tenant, each))]
    const judge = ([misfit, ...left]: readonly number[]) => {
      const unfit = misfit === -1 ? undefined : (charges[misfit ?? 0] as Charge)
      if (unfit?.kind === 'past') return MOVED
      if (unfit !== undefined) throw refusal(unfit, spending)
      return left.length === 0 ? undefined : purses.open(namesOf(tenant, bytes), left)
    }
    return answers.every((answer) => typeof answer === 'number') ? judge(answers) : Promise.all(answers).then(judge)
  }
  return {
    debit(spending) {
      const charges = chargesFor(spending)
      if (charges.length === 0) return undefined
      if (untold.length === 0) return spend(spending, charges)
      telling ??= tell().finally(() => {
        telling = undefined
      })
      return telling.then(() => spend(spending, charges))
    },
    async afford(spending) {
      for (const charge of chargesFor(spending))
        if (charge.kind === 'count' && (await store.left(spending.grant.tenant, charge)) < 1)
          throw refusal(charge, spending)
    },
    settle(spending, { sentBytes, receivedBytes }) {
      const by = sentBytes + receivedBytes
      const charges = chargesFor(spending).filter(isBytes)
      purses.close(namesOf(spending.grant.tenant, charges), by)
      if (charges.length === 0 || by === 0) return
      const bill = { tenant: spending.grant.tenant, charges: charges.map((charge) => ({ ...charge, by })) }
      try {
        const added = store.add(bill.tenant, bill.charges)
        if (added instanceof Promise) added.catch(() => void untold.push(bill))
      } catch {
        untold.push(bill)
      }
    },
  }
}

const NO_CHARGES: readonly Charge[] = []

function chargesFor(spending: Spending): readonly Charge[] {
  const { grant, endpoint, decision } = spending
  const { levels, obligations, seen = {} } = decision
  const isCounted = grant.task.counted === true
  if (levels.length === 0 && !obligations.singleUse && !isCounted && obligations.rates === undefined) return NO_CHARGES
  return [
    ...chargesOf(grant, levels, { operation: endpoint.operation.name, isSingleUse: obligations.singleUse }),
    ...ratesOf(spending),
    ...(isCounted ? [pastCharge(grant, endpoint.operation, seen)] : []),
  ]
}

function chargesAt({ grant, entry, constraints }: Level, untilS: number): (CountCharge | RateCharge)[] {
  if (constraints === undefined) return []
  const { max_calls, max_bytes, rate, single_use } = constraints
  const name = `${grant}/${entry}`
  const charges: (CountCharge | RateCharge)[] = []
  if (single_use === true) charges.push(once(`${name}/use`, untilS))
  if (max_calls !== undefined) charges.push({ name: `${name}/calls`, kind: 'count', limit: max_calls, by: 1, untilS })
  if (max_bytes !== undefined) charges.push({ name: `${name}/bytes`, kind: 'count', limit: max_bytes, by: 0, untilS })
  if (rate !== undefined) charges.push({ name: `${name}/rate`, kind: 'rate', n: rate.n, perS: rate.per, untilS })
  return charges
}

function once(name: string, untilS: number): CountCharge {
  return { name, kind: 'count', limit: 1, by: 1, untilS }
}

function namesOf(tenant: string, charges: readonly Charge[]): readonly string[] {
  return charges.map(({ name }) => `${tenant} ${name}`)
}

function isBytes(charge: Charge): charge is CountCharge {
  return charge.kind === 'count' && charge.by === 0
}

/** Says whose budget it is: the holder of a child cannot see what its siblings spent. */
function refusal(charge: CountCharge | RateCharge, { grant, endpoint }: Spending): GatewayError {
  if (charge.name.startsWith('rates/')) {
    const { n, perS } = charge as RateCharge
    return new GatewayError(
      'limit_exceeded',
      `Policy lets ${grant.agent.id} call ${endpoint.operation.name} ${n} times in any ${perS} s, over all its tasks, and it has. Wait up to ${perS} s and try again.`,
    )
  }
  const [owner, , kind] = charge.name.split('/') as [string, string, string]
  const whose = owner === grant.id ? `grant ${owner}` : `grant ${owner} above it`
  const operation = endpoint.operation.name
  if (charge.kind === 'rate') {
    return new GatewayError(
      'limit_exceeded',
      `${operation} may be called ${charge.n} times in any ${charge.perS} s under ${whose}, and has been. Wait up to ${charge.perS} s and try again.`,
    )
  }
  if (kind === 'calls' || kind === 'bytes') {
    return new GatewayError(
      'limit_exceeded',
      `The ${charge.limit} ${kind} that ${whose} allows are used up, those of all grants below it included. Ask the grantor for a new grant.`,
    )
  }
  return new GatewayError(
    'use_spent',
    `${operation} may be used once under a grant, and ${whose} has used it. Ask for a new grant to use it again.`,
  )
}
