/** Handles and grants of a gateway where they stand in a text, whoever's they are. By their shape alone; pure. */

const HANDLE = /(?<![\w-])b?kh_[\w-]{43}(?![\w-])/g
/**
 * A signed JWT from the dot behind its header on, or a chain of them as offline delegation makes it; what the claims say is looked at, not
 * who signed them.
 */
const FROM_DOT = /\.eyJ[\w-]{20,16000}\.[\w-]{20,1000}(?:~eyJ[\w-]{10,1000}\.eyJ[\w-]{20,16000}\.[\w-]{20,1000})*/y
/** Characters of a header: these, and as many more. */
const HEADER = { start: 'eyJ', least: 10, most: 1000 } as const

export interface GrantText {
  readonly token: string
  /** Place of its first character. */
  readonly at: number
}

/** In the order in which they are found. Lazy: whoever wants to know whether there is one stops at it. */
export function* grantsIn(text: string): Generator<GrantText, void> {
  if (text.includes('kh_')) for (const { 0: token, index } of text.matchAll(HANDLE)) yield { token, at: index }
  let from = 0
  for (let dot = text.indexOf('.eyJ'); dot !== -1; dot = text.indexOf('.eyJ', Math.max(dot + 1, from))) {
    const at = headerBefore(dot, text, from)
    if (at === -1) continue
    FROM_DOT.lastIndex = dot
    const [rest] = FROM_DOT.exec(text) ?? []
    if (rest === undefined) continue
    from = dot + rest.length
    const token = text.slice(at, from)
    if (token.split(/[.~]/).some((part, n) => n % 3 === 1 && isAccess(part))) yield { token, at }
  }
}

/**
 * Backwards from the dot, so that a text of nothing but beginnings is read once, not once for each of them: agents choose what is
 * looked through here. @returns -1 where no header ends.
 */
function headerBefore(dot: number, text: string, from: number): number {
  const { start, least, most } = HEADER
  const first = Math.max(from, dot - most - start.length)
  let begin = dot
  while (begin > first && isTokenCharacter(text.charCodeAt(begin - 1))) begin -= 1
  const at = text.slice(begin, dot).indexOf(start)
  return at === -1 || dot - (begin + at) < start.length + least ? -1 : begin + at
}

function isTokenCharacter(code: number): boolean {
  const isDigit = code >= 0x30 && code <= 0x39
  const isLetter = (code >= 0x61 && code <= 0x7a) || (code >= 0x41 && code <= 0x5a)
  return isDigit || isLetter || code === 0x5f || code === 0x2d // _ and -
}

function isAccess(claims: string): boolean {
  return Buffer.from(claims, 'base64url').includes('"keyless_access"')
}
