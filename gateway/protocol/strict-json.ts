/**
 * JSON that everybody reads alike (standards.md H32). `JSON.parse` keeps the last of two equal keys, other readers the first:
 * a text that could mean two things is refused, never settled. Pure.
 */

const MAX_DEPTH = 32

/**
 * As `JSON.parse`; `__proto__` is a key like any other.
 * @throws {SyntaxError} also for an object with two equal keys, half a surrogate pair, and more than 32 levels.
 */
export function parseStrictJson(text: string): unknown {
  const value: unknown = JSON.parse(text)
  scan(text)
  return value
}

const QUOTE = 0x22
const BACKSLASH = 0x5c

/**
 * Character by character, because an agent may send a megabyte of brackets, and nobody else is served meanwhile.
 * @param text valid JSON: a string before a colon is a key of the innermost object.
 */
function scan(text: string): void {
  /** Keys of the objects and lists that are open, as far as there were any. */
  const open: (Set<string> | undefined)[] = []
  let last = ''
  for (let at = 0; at < text.length; at += 1) {
    switch (text.charCodeAt(at)) {
      case QUOTE: {
        const end = endOfString(text, at)
        last = stringOf(text.slice(at, end))
        at = end - 1
        break
      }
      case 0x7b: // {
      case 0x5b: // [
        if (open.push(undefined) > MAX_DEPTH)
          throw new SyntaxError(`The JSON is nested deeper than ${MAX_DEPTH} levels.`)
        break
      case 0x7d: // }
      case 0x5d: // ]
        open.pop()
        break
      case 0x3a: // :
        addKey(open, last)
        break
    }
  }
}

/** Index after the quote that ends the string at `start`. */
function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1)
  while (isEscaped(text, end)) end = text.indexOf('"', end + 1)
  return end + 1
}

/** An odd number of backslashes stands before it. */
function isEscaped(text: string, at: number): boolean {
  let first = at
  while (text.charCodeAt(first - 1) === BACKSLASH) first -= 1
  return (at - first) % 2 === 1
}

function addKey(open: (Set<string> | undefined)[], key: string): void {
  const keys = open[open.length - 1] ?? new Set()
  open[open.length - 1] = keys
  if (keys.has(key))
    throw new SyntaxError(`The JSON has the key ${JSON.stringify(key.slice(0, 80))} twice in one object.`)
  keys.add(key)
}

function stringOf(token: string): string {
  const string = token.includes('\\') ? String(JSON.parse(token)) : token.slice(1, -1)
  if (!string.isWellFormed()) throw new SyntaxError('The JSON holds half of a surrogate pair.')
  return string
}
