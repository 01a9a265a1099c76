/** Handles and grants of a gateway where they stand in a text, whoever's they are. By their shape alone; pure. */

const HANDLE = /(?<![\w-])b?kh_[\w-]{43}(?![\w-])/g
/** A signed JWT, or a chain of them as offline delegation makes it; what the claims say is looked at, not who signed them. */
const JWT =
  /eyJ[\w-]{10,1000}\.eyJ[\w-]{20,16000}\.[\w-]{20,1000}(?:~eyJ[\w-]{10,1000}\.eyJ[\w-]{20,16000}\.[\w-]{20,1000})*/g

export interface GrantText {
  readonly token: string
  /** Place of its first character. */
  readonly at: number
}

/** In the order in which they are found. Lazy: whoever wants to know whether there is one stops at it. */
export function* grantsIn(text: string): Generator<GrantText, void> {
  if (text.includes('kh_')) for (const { 0: token, index } of text.matchAll(HANDLE)) yield { token, at: index }
  if (!text.includes('.eyJ')) return
  for (const { 0: token, index } of text.matchAll(JWT)) {
    const parts = token.split(/[.~]/)
    if (parts.some((part, at) => at % 3 === 1 && isAccess(part))) yield { token, at: index }
  }
}

function isAccess(claims: string): boolean {
  return Buffer.from(claims, 'base64url').includes('"keyless_access"')
}
