/**
 * Where an entry speaks of people: the one list of what `audit.personal: sealed` covers. docs/personal-data.md is this list in words.
 */
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import { cut, type JsonValue, roomy } from '../canonical.ts'
import type { Fields } from '../entries/authority.ts'

import type { Field, Seal } from '../sealing.ts'

/** The issuer that stands for this gateway's own list of agents (protocol/grant.ts): an owner has a key like any human. */
export const REGISTRY = 'registry'

/** Whose keys are used in one entry. */
export interface Seals {
  /** Of the human of the entry; of everybody unknown on this day, when there is none. */
  own(): Seal
  /** Of somebody who is named beside: the owner of an agent. */
  of(iss: string, sub: string): Seal
}

/** Member → its members that speak of the human of the entry, by the kind of what they hold. */
const PLACES: readonly (readonly [string, readonly (readonly [string, Field])[]])[] = [
  ['human', [['sub', 'human']]],
  [
    'task',
    [
      ['purpose', 'purpose'],
      ['intent_hash', 'intent'],
    ],
  ],
  [
    'client',
    [
      ['ip', 'address'],
      ['ua', 'user_agent'],
    ],
  ],
  ['decision', [['detail', 'detail']]],
  [
    'facts',
    [
      ['purpose', 'purpose'],
      ['detail', 'detail'],
    ],
  ],
]

/** A copy of some members of an entry, in the same order, in which nobody is named in plain text. */
export function sealFields(fields: Fields, seals: Seals): Fields {
  const copy = { ...fields }
  for (const [name, places] of PLACES) {
    const inner = copy[name]
    if (isObject(inner)) copy[name] = sealMembers(inner, places, seals)
  }
  if (Array.isArray(copy.lineage)) {
    const lineage = sealSteps(copy.lineage as readonly Fields[], seals.own())
    copy.lineage = lineage
    if (copy.lineage_hash !== undefined) copy.lineage_hash = lineageHash(lineage)
  }
  if (isObject(copy.grant)) copy.grant = withOwner(copy.grant, seals)
  // Of whoever reads; in other entries it is that of an upstream.
  if (copy.kind === 'admin.records_read' && isObject(copy.facts))
    copy.facts = sealMembers(copy.facts, [['address', 'address']], seals)
  return copy
}

function sealMembers(inner: Fields, places: readonly (readonly [string, Field])[], seals: Seals): Fields {
  const copy = { ...inner }
  for (const [place, field] of places) {
    const text = copy[place]
    if (typeof text === 'string') copy[place] = closed(seals.own(), field, text)
  }
  return copy
}

function sealSteps(steps: readonly Fields[], seal: Seal): Fields[] {
  return steps.map((step) =>
    step.type === 'human' && typeof step.id === 'string' ? { ...step, id: closed(seal, 'human', step.id) } : step,
  )
}

/**
 * Of the steps as the entry has them. The hash over the names themselves would let anybody who guesses a name see that it is right:
 * everything else in a chain is in the log.
 */
export function lineageHash(steps: readonly Fields[]): string {
  return hash('sha256', canonicalize(steps.map(({ att: _, ...step }) => step)) ?? '', 'base64url')
}

function withOwner(grant: Fields, seals: Seals): Fields {
  const { agent } = grant
  if (!isObject(agent) || typeof agent.owner !== 'string') return grant
  return { ...grant, agent: { ...agent, owner: closed(seals.of(REGISTRY, agent.owner), 'human', agent.owner) } }
}

/** Cut before it is sealed: what is cut afterwards opens no more. A sealed text has a third more bytes. */
function closed(seal: Seal, field: Field, text: string): string {
  return seal.close(field, cut(text, field === 'human' ? roomy.name : roomy.prose - 64))
}

function isObject(value: JsonValue | undefined): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
