/** A text as those could read it who undo one layer of what clients wrap around values: JSON, percent and Base64 escapes. Pure. */

/** Encoded runs shorter than this hold no credential worth the look. */
const BASE64 = /[A-Za-z0-9+/_-]{24,8192}={0,2}/g
const PRINTABLE = /^[\t\r\n\x20-\x7e]+$/

/** The text itself, and what it says without escapes where it has any; joined, because nobody asks where it stood. */
export function readings(text: string): string {
  const all = [text]
  if (text.includes('\\')) all.push(withoutJsonEscapes(text))
  if (/%[0-9a-f]{2}/i.test(text)) all.push(withoutPercents(text))
  for (const [run] of text.matchAll(BASE64)) {
    const plain = Buffer.from(run, 'base64').toString('latin1')
    if (PRINTABLE.test(plain)) all.push(plain)
  }
  return all.join('\n')
}

function withoutJsonEscapes(text: string): string {
  return text.replaceAll(/\\(?:u([0-9a-fA-F]{4})|([\s\S]))/g, (_, code?: string, char?: string) =>
    code === undefined ? (SHORT[char ?? ''] ?? char ?? '') : String.fromCharCode(Number.parseInt(code, 16)),
  )
}

const SHORT: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t' }

function withoutPercents(text: string): string {
  return text.replaceAll(/%([0-9a-fA-F]{2})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)))
}
