/** Emergency access in the settings: who keeps its keys, how many of them have to agree, and what they can open at most. */
import { join } from 'node:path'
import { z } from 'zod'
import { parseScope } from '../protocol/authority.ts'
import { BREAK_GLASS_MAX_S, type Custodian } from '../protocol/break-glass.ts'
import type { Authority } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { read } from './advice.ts'
import type { Surroundings } from './around.ts'

const KEY_BYTES = 32

function publicKey(text: string): string | null {
  const bytes = Buffer.from(text, 'base64url')
  // In its one spelling: a second one would pass for a second key.
  return bytes.length === KEY_BYTES && bytes.toString('base64url') === text ? text : null
}

function operations(text: string): readonly Authority[] | null {
  try {
    return parseScope(text)
  } catch (cause) {
    if (cause instanceof GatewayError) return null
    throw cause
  }
}

const custodian = z.strictObject({
  name: z
    .string()
    .max(255)
    .regex(/^[\x21-\x7e]+$/)
    .describe('Who keeps the key, without spaces. Stands in every record of what it opened.'),
  key: z
    .string()
    .transform(
      read(publicKey, {
        allowed: 'an Ed25519 public key: 32 bytes in base64url, 43 characters',
        fix: 'copy the line that `keyless break-glass keygen` printed',
      }),
    )
    .describe('Public key, as `keyless break-glass keygen` prints it.'),
})

export const breakGlassSchema = z
  .strictObject({
    custodians: z
      .array(custodian)
      .min(2)
      .max(32)
      .describe('Who keeps a key, two at least. Each keeps the private half alone, encrypted with a passphrase.'),
    threshold: z
      .int()
      .min(2)
      .max(32)
      .optional()
      .describe('Different custodians who have to sign a request. Default 2, which is the least.'),
    scope: z
      .string()
      .transform(
        read(operations, {
          allowed: 'operations separated by one space, such as "github:issues.* billing:invoices.read"',
          fix: 'name what an emergency may need, and no more',
        }),
      )
      .describe('The most that can be opened: operations separated by a space. A request asks for a part of it.'),
    max_ttl_s: z
      .int()
      .min(1)
      .max(BREAK_GLASS_MAX_S)
      .optional()
      .describe(`Longest life of what is opened, seconds. Default and ceiling ${BREAK_GLASS_MAX_S}.`),
    journal: z
      .string()
      .min(1)
      .optional()
      .describe(
        'Directory on another disk than data_dir: what is opened is kept there, and recorded there while the log cannot be written. Each replica needs its own. Default <data_dir>/break-glass, which goes down with the disk of the log.',
      ),
  })
  .describe('Emergency access while Redis, the identity provider or the log is down. Omit: there is none.')

type Written = z.output<typeof breakGlassSchema>

export interface BreakGlassSettings {
  readonly custodians: readonly Custodian[]
  /** Default 2. */
  readonly threshold: number
  readonly authority: readonly Authority[]
  /** Default 900. */
  readonly maxTtlS: number
  /** Absolute. Default `<dataDir>/break-glass`. */
  readonly journalDir: string
}

export function breakGlassOf(
  written: Written | undefined,
  o: { readonly dataDir: string; absolute(path: string): string },
  around: Surroundings,
): BreakGlassSettings | undefined {
  if (written === undefined) return undefined
  const { custodians, threshold = 2, scope, max_ttl_s: maxTtlS = BREAK_GLASS_MAX_S, journal } = written
  // One person with two keys, or one key under two names, is one person.
  for (const member of ['name', 'key'] as const) reportTwice(custodians, member, around)
  if (threshold > custodians.length)
    around.report(['break_glass', 'threshold'], {
      got: `${threshold}, and ${custodians.length} custodians`,
      allowed: `2 to ${custodians.length}`,
      fix: 'name as many custodians as have to sign, and one more who can stand in',
    })
  return {
    ...{ custodians, threshold, maxTtlS, authority: scope },
    journalDir: journal === undefined ? join(o.dataDir, 'break-glass') : o.absolute(journal),
  }
}

function reportTwice(custodians: readonly Custodian[], member: 'name' | 'key', around: Surroundings): void {
  custodians.forEach((one, index) => {
    if (custodians.findIndex((other) => other[member] === one[member]) === index) return
    around.report(['break_glass', 'custodians', String(index), member], {
      got: `${one[member]} a second time`,
      allowed: 'every person and every key once',
      fix: 'give each custodian a key of their own: keyless break-glass keygen',
    })
  })
}
