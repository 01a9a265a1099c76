/**
 * The table of lifetimes: for how long a grant lives by what it is for. Settings may shorten every row and lengthen none;
 * 3600 s is the ceiling of all.
 */
import type { Grant, Preset } from '../../protocol/grant.ts'
import type { GrantRequest } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'

interface Row {
  /** Seconds. Absent: the setting `grants.ttl_s`. */
  readonly defaultS?: number
  readonly maxS: number
  /** Every entry of its authority can be used once, and there is one entry only. */
  readonly isSingleUse?: true
  /** What a grant of this kind must name. */
  readonly needs?: 'trace' | 'step'
}

export const presets: Readonly<Record<Preset, Row>> = {
  'per-task': { maxS: 3600 },
  'per-session': { defaultS: 900, maxS: 900 }, // somebody sits in front of it and can be asked again
  'per-prompt': { defaultS: 300, maxS: 900, needs: 'trace' }, // next to a model: ends with the context that it belongs to
  'training-batch': { defaultS: 900, maxS: 3600, needs: 'step' }, // one batch or epoch; the next one is another step
  sensitive: { defaultS: 60, maxS: 60, isSingleUse: true },
}

export interface Lifetime {
  readonly defaultS: number
  readonly maxS: number
}

/** Bounds in seconds of a grant's life. @param settings `grants.ttl_s` and `grants.max_ttl_s`. Default preset: `per-task`. */
export function lifetimeOf(preset: Preset | undefined, settings: Lifetime): Lifetime {
  const row = presets[preset ?? 'per-task']
  const maxS = Math.min(row.maxS, settings.maxS)
  return { defaultS: Math.min(row.defaultS ?? settings.defaultS, maxS), maxS }
}

/** @throws {GatewayError} `instruction_invalid` when a preset lacks what it is bound to. */
export function checkPreset({ preset, trace, step }: Pick<GrantRequest, 'preset' | 'trace' | 'step'>): void {
  if (preset === undefined) return
  if (!Object.hasOwn(presets, preset)) {
    throw new GatewayError(
      'instruction_invalid',
      `There is no preset of that name; allowed are ${Object.keys(presets).join(', ')}.`,
    )
  }
  const { needs } = presets[preset]
  if (needs === 'trace' && trace === undefined)
    throw new GatewayError('instruction_invalid', `A ${preset} grant needs trace: the W3C trace id of the prompt.`)
  if (needs === 'step' && step === undefined)
    throw new GatewayError('instruction_invalid', `A ${preset} grant needs step: the batch or epoch that it is for.`)
}

/** A single-use preset as a constraint, so that children inherit it and budgets count it. @throws {GatewayError} `invalid_details` */
export function presetAuthority(authority: Grant['authority'], preset: Preset | undefined): Grant['authority'] {
  if (preset === undefined || presets[preset].isSingleUse !== true) return authority
  if (authority.length > 1) {
    throw new GatewayError(
      'invalid_details',
      `A ${preset} grant is used once, so it has one entry of authorization_details; ${authority.length} were asked for. Ask for one grant each.`,
    )
  }
  return authority.map((entry) => ({ ...entry, constraints: { ...entry.constraints, single_use: true } }))
}
