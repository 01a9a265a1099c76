/** Forgetting a human: the log says first that it happens, and not to whom; then the key is destroyed. */
import type { Human } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Audit } from '../audit.ts'
import type { Personal } from './personal.ts'
import { REGISTRY } from './places.ts'

export interface ForgetParts {
  readonly audit: Pick<Audit, 'administer'>
  readonly personal: Personal
  readonly tenant: string
  /** Who gives the order; undefined: somebody who may write the log. */
  readonly by: Human | undefined
}

/** A human as people name one. */
export interface Named {
  readonly sub: string
  readonly iss?: string | undefined
}

export interface Forgotten {
  /** Number of `admin.personal_forgotten` in the log. */
  readonly seq: number
  /** Ids of the keys that are no more, as they stand in sealed values. */
  readonly keys: readonly string[]
}

/**
 * A crash after the entry leaves the key, and whoever gave the order without an answer: give it again.
 * @param iss needed only when several issuers know a human of this name.
 * @throws {GatewayError} `instruction_invalid` when there is no such human, or more than one; `audit_unavailable`.
 */
export async function forget({ audit, personal, tenant, by }: ForgetParts, { sub, iss }: Named): Promise<Forgotten> {
  await personal.refresh()
  const known = personal.known(sub).filter((one) => one.tenant === tenant)
  const issuers = new Set(known.map((one) => one.iss).filter((one) => one !== REGISTRY))
  if (iss === undefined && issuers.size > 1)
    throw invalid(`Several issuers know a human of this name: ${[...issuers].join(', ')}. Say which one with --iss.`)
  const meant = known.filter((one) => iss === undefined || one.iss === iss)
  if (meant.length === 0)
    throw invalid(
      'Nothing in the log is sealed under a key of this human. Either they were forgotten already, or nothing was written of them while audit.personal was "sealed".',
    )
  const keys = meant.map(({ id }) => id)
  const { seq } = await audit.administer('admin.personal_forgotten', { tenant, ...(by && { human: by }) }, { keys })
  // The entry is durable and the keys are there. Each of the next steps is finished by any process that looks, once it is begun.
  for (const key of keys) await personal.destroy(key)
  return { seq, keys }
}

function invalid(detail: string): GatewayError {
  return new GatewayError('instruction_invalid', detail)
}
