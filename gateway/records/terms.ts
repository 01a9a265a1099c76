/**
 * What a record can be found by, as terms of an inverted index: every filter is the question whether a record has a term. Terms
 * are lower-case letters and digits, whatever they stand for, so that nothing a value says has a meaning in a query. Pure.
 */
import { hash } from 'node:crypto'
import type { Ending, Row } from './row.ts'

/** What is looked for → first letter of its terms. `w` and `x` are words. */
const LETTERS = {
  tenant: 't',
  log: 'l',
  human: 'h',
  agent: 'a',
  task: 'k',
  ancestor: 'n',
  grant: 'g',
  service: 's',
  operation: 'o',
  host: 'd',
  status: 'c',
  effect: 'e',
  kind: 'y',
  credential: 'r',
  trace: 'i',
  prompt: 'p',
} as const

export type TermName = keyof typeof LETTERS

/** Words that one record can be found by; an agent could fill a path with thousands. */
export const MAX_WORDS = 512

/** Values recur: agents, hosts, operations. */
const known = new Map<string, string>()
const MAX_KNOWN = 20_000

/** 96 bits of SHA-256 stand for the value. */
export function term(name: TermName, value: string): string {
  const key = LETTERS[name] + value
  const found = known.get(key)
  if (found !== undefined) return found
  const made = LETTERS[name] + digest(value)
  if (known.size >= MAX_KNOWN) known.clear()
  known.set(key, made)
  return made
}

export function wordTerm(word: string): string {
  return /^[a-z0-9]{1,40}$/.test(word) ? `w${word}` : `x${digest(word)}`
}

function digest(value: string): string {
  return hash('sha256', value.toWellFormed(), 'hex').slice(0, 24)
}

/** Letters and digits in a row are a word; case and compatibility forms (NFKC) make no difference. */
export function wordsOf(text: string): string[] {
  if (ASCII.test(text)) return text.toLowerCase().match(/[a-z0-9]+/g) ?? []
  return (
    text
      .normalize('NFKC')
      .toLowerCase()
      .match(/[\p{L}\p{N}]+/gu) ?? []
  )
}

const ASCII = /^[\0-\x7f]*$/

export function wordTerms(text: string): string[] {
  return wordsOf(text).map(wordTerm)
}

/** What an outcome without an error adds to what its call is found by. */
export function termsOfEnd({ status, credential, cred_id, provider }: Ending): string[] {
  const names = [credential, cred_id].filter((value) => value !== null && value !== '') as string[]
  return [
    ...(status === null ? [] : statuses(status)).map((value) => term('status', value)),
    ...names.map((value) => term('credential', value)),
    ...[credential, provider].flatMap((value) => (value === null ? [] : wordTerms(value))),
  ]
}

/** Everything a record is found by. `actors` are the humans, agents and grants of its lineage. */
export function termsOf(row: Row, actors: readonly string[]): string[] {
  const terms = new Set<string>()
  const add = (name: TermName, ...values: (string | null)[]) => {
    for (const value of values) if (value !== null && value !== '') terms.add(term(name, value))
  }
  add('tenant', row.tenant)
  add('log', row.log)
  add('human', row.human, row.human && row.human_iss && `${row.human_iss} ${row.human}`)
  add('agent', row.agent)
  add('task', row.task)
  add('ancestor', ...actors)
  add('grant', row.grant_id)
  add('service', row.service)
  add('operation', ...operations(row.operation))
  add('host', ...hosts(row.host))
  if (row.status !== null) add('status', ...statuses(row.status))
  add('effect', row.effect)
  add('kind', row.kind, `${row.kind.split('.', 1)[0]}.*`)
  add('credential', row.credential, row.cred_id)
  add('trace', row.trace)
  add('prompt', row.prompt_hash)
  const limit = terms.size + MAX_WORDS
  for (const text of texts(row)) {
    for (const word of wordsOf(text)) {
      if (terms.size >= limit) return [...terms]
      terms.add(wordTerm(word))
    }
  }
  return [...terms]
}

/** `404`, and its class. */
function statuses(status: number): string[] {
  return [String(status), `${Math.floor(status / 100)}xx`]
}

/** `github:issues.read`, and what covers it: `github:issues.*`, `github:*`. */
function operations(operation: string | null): string[] {
  if (operation === null) return []
  return [operation, ...[...operation.matchAll(/[.:]/g)].map(({ index }) => `${operation.slice(0, index + 1)}*`)]
}

/** `api.github.com`, and what it is below: `*.github.com`, `*.com`. */
function hosts(host: string | null): string[] {
  if (host === null) return []
  return [host, ...[...host.matchAll(/\./g)].map(({ index }) => `*${host.slice(index)}`)]
}

function texts(row: Row): string[] {
  const { path, purpose, code, error, service, operation, host, human, agent, credential, provider, ua } = row
  const plain = [path, purpose, code, error, service, operation, host, human, agent, credential, provider, ua]
  const nested = [row.policy_ids, row.detail].flatMap((json) => (json === null ? [] : stringsIn(JSON.parse(json))))
  return [...plain, ...nested].filter((text) => text !== null)
}

function stringsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(stringsIn) : []
}
