/** Finds credentials in a stream of text, window by window: memory does not grow with what is read. Values stay in this process. */
import { grantsIn } from '../../protocol/grant-text.ts'
import type { SecretFinder } from '../../upstream/secret-rules.ts'

export interface Finding {
  /** `src/app.ts`, `-`, `env`, `git:3f2a…:src/app.ts`. */
  readonly place: string
  /** From 1. */
  readonly line: number
  /** `keyless`: a handle or grant. `leased`: a credential that this gateway lent. Otherwise a rule of secretlint. */
  readonly rule: string
  /** Never printed. */
  readonly value: string
  /** Name in settings of what was leased, or of the canary. */
  readonly name?: string
}

export interface Seekers {
  readonly secrets: SecretFinder
  /** Name of the credential that was leased, by its value. */
  readonly leased?: ((word: string) => string | undefined) | undefined
  /** Name of a canary in a text. */
  readonly canary?: ((text: string) => string | undefined) | undefined
}

const WINDOW = 256 * 1024
/** No credential that is looked for is longer. */
const OVERLAP = 20 * 1024
const BASE64 = /[A-Za-z0-9+/_-]{24,8192}={0,2}/g
const PRINTABLE = /^[\t\r\n\x20-\x7e]+$/
const WORD = /[\w.~+/-]{16,4096}={0,2}/g

interface Spot {
  readonly rule: string
  readonly start: number
  readonly end: number
  readonly value: string
  readonly name?: string
}

export async function* findingsIn(
  place: string,
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>,
  seekers: Seekers,
): AsyncGenerator<Finding, void> {
  let decoder: TextDecoder | undefined
  let text = ''
  let line = 1
  /** Offset in `text` up to which everything was told. */
  let told = 0
  const window = function* (isLast: boolean): Generator<Finding, void> {
    const edge = isLast ? text.length : text.length - OVERLAP
    let counted = 0
    for (const spot of spotsIn(text, seekers)) {
      if (spot.start >= edge || spot.start < told) continue
      line += newlines(text, counted, spot.start)
      counted = spot.start
      told = spot.end
      const { rule, value, name } = spot
      yield { place, line, rule, value, ...(name !== undefined && { name }) }
    }
    line += newlines(text, counted, edge)
    text = text.slice(edge)
    told = Math.max(0, told - edge)
  }
  for await (const chunk of chunks) {
    decoder ??= decoderFor(chunk)
    text += decoder.decode(chunk, { stream: true })
    if (text.length >= WINDOW) yield* window(false)
  }
  if (text !== '') yield* window(true)
}

/** Latin-1 loses no byte; what Windows writes as UTF-16 says so. */
function decoderFor(chunk: Buffer): TextDecoder {
  const mark = chunk.length >= 2 ? chunk.readUInt16BE(0) : 0
  return new TextDecoder(mark === 0xfffe ? 'utf-16le' : mark === 0xfeff ? 'utf-16be' : 'latin1')
}

/** In order; of those that overlap, what says most comes first. */
function spotsIn(text: string, { secrets, leased, canary }: Seekers): Spot[] {
  const found: Spot[] = []
  const look = (part: string, placed: (start: number, end: number) => readonly [number, number], suffix: string) => {
    for (const { token, at } of grantsIn(part)) add('keyless', token, at)
    for (const { rule, start, end } of secrets(part)) add(rule, part.slice(start, end), start)
    function add(rule: string, value: string, at: number): void {
      const [start, end] = placed(at, at + value.length)
      const name = canary?.(value)
      found.push({ start, end, value, rule: name === undefined ? rule + suffix : 'canary', ...(name && { name }) })
    }
  }
  look(text, (start, end) => [start, end], '')
  for (const { word, at } of wordsIn(text)) {
    const bait = canary?.(word)
    const name = bait ?? leased?.(word)
    if (name !== undefined)
      found.push({ start: at, end: at + word.length, value: word, rule: bait ? 'canary' : 'leased', name })
  }
  for (const { 0: run, index } of text.matchAll(BASE64)) {
    const plain = Buffer.from(run, 'base64').toString('latin1')
    if (PRINTABLE.test(plain)) look(plain, () => [index, index + run.length], ' (base64)')
  }
  return found.sort((a, b) => a.start - b.start || RANK(b) - RANK(a))
}

const RANK = ({ rule }: Spot) => ['leased', 'keyless', 'canary'].indexOf(rule)

function* wordsIn(text: string): Generator<{ readonly word: string; readonly at: number }> {
  for (const { 0: word, index } of text.matchAll(WORD)) {
    yield { word, at: index }
    if (!word.includes('/')) continue
    let at = index
    for (const part of word.split('/')) {
      if (part.length >= 16) yield { word: part, at }
      at += part.length + 1
    }
  }
}

function newlines(text: string, from: number, to: number): number {
  let count = 0
  for (let at = text.indexOf('\n', from); at !== -1 && at < to; at = text.indexOf('\n', at + 1)) count += 1
  return count
}

/** The first characters where they tell only of what kind it is, and how long it is. */
export function masked(value: string): string {
  const shown = value.length >= 20 ? value.slice(0, 4).replaceAll(/[^\x21-\x7e]/g, '?') : ''
  return `${shown}… (${value.length} characters)`
}
