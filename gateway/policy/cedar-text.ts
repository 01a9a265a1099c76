/** Texts of others as parts of Cedar policies: they cannot be anything but texts there. */
import { hash } from 'node:crypto'

/** Printable ASCII: of anything else in a name Cedar warns, and a policy with a warning is not loaded. */
export const NAMEABLE = /^[ -~]+$/

/** A Cedar string literal. */
export function quoted(text: string): string {
  const escaped = text
    .toWellFormed()
    .replace(/[^ !#-[\]-~]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`)
  return `"${escaped}"`
}

/** An @id made of an agent's id. Unique, whatever is left out of it. */
export function slugOf(agent: string): string {
  const words =
    agent
      .toLowerCase()
      .replace(/^[a-z]+:\/\//, '')
      .match(/[a-z0-9]+/g) ?? []
  return [words.join('-').slice(0, 50), hash('sha256', agent, 'hex').slice(0, 6)]
    .filter((part) => part !== '')
    .join('-')
}
