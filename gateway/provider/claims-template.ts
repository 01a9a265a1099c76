/** Claims as settings write them, with places for what is known of the grant: `sub: "agents/{agent}"`. */
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import type { Grant } from '../protocol/grant.ts'

/** What a place stands for. */
const PLACES = {
  human: ({ human }: Grant) => human.sub,
  human_iss: ({ human }: Grant) => human.iss,
  agent: ({ agent }: Grant) => agent.id,
  task: ({ task }: Grant) => task.id,
  grant: ({ id }: Grant) => id,
  lineage_hash: ({ lineageHash }: Grant) => lineageHash,
  tenant: ({ tenant }: Grant) => tenant,
  jti: () => randomUUID(),
} as const

const PLACE = /\{([^{}]*)\}/g

const text = z
  .string()
  .refine((template) => [...template.matchAll(PLACE)].every(([, name = '']) => Object.hasOwn(PLACES, name)), {
    error: `has a place that there is not: those are ${Object.keys(PLACES)
      .map((name) => `{${name}}`)
      .join(', ')}`,
  })

/** Text, a list of text, a number or a boolean per claim. */
export const claimsTemplate = z.record(z.string().min(1), z.union([text, z.array(text), z.number(), z.boolean()]))

export type ClaimsTemplate = z.infer<typeof claimsTemplate>

/** One text of a template. */
export const textTemplate = text

export function fillClaims(template: ClaimsTemplate, grant: Grant): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(template).map(([name, value]) => {
      if (typeof value === 'string') return [name, fillText(value, grant)]
      return [name, Array.isArray(value) ? value.map((one) => fillText(one, grant)) : value]
    }),
  )
}

/** Where several values stand in one text they are percent-encoded: none can pretend to be another one's end. */
export function fillText(template: string, grant: Grant): string {
  const isAlone = [...template.matchAll(PLACE)].length < 2
  return template.replaceAll(PLACE, (_place, name: keyof typeof PLACES) => {
    const value = PLACES[name](grant)
    return isAlone ? value : encodeURIComponent(value)
  })
}
