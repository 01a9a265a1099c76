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

/** Strings, and whatever opens, closes or follows a key; everything else of a valid text needs no look. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\]:]/g

/** @param text valid JSON: a string before a colon is a key of the innermost object. */
function scan(text: string): void {
  const open: Set<string>[] = []
  let last = ''
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{' || token === '[') {
      if (open.push(new Set()) > MAX_DEPTH) throw new SyntaxError(`The JSON is nested deeper than ${MAX_DEPTH} levels.`)
    } else if (token === '}' || token === ']') open.pop()
    else if (token === ':') addKey(open.at(-1), last)
    else last = stringOf(token)
  }
}

function addKey(keys: Set<string> | undefined, key: string): void {
  if (keys?.has(key))
    throw new SyntaxError(`The JSON has the key ${JSON.stringify(key.slice(0, 80))} twice in one object.`)
  keys?.add(key)
}

function stringOf(token: string): string {
  const string = token.includes('\\') ? String(JSON.parse(token)) : token.slice(1, -1)
  if (!string.isWellFormed()) throw new SyntaxError('The JSON holds half of a surrogate pair.')
  return string
}
