/** Removes a credential that the agent put into a query, a cookie or a subprotocol, and leaves every other byte as it was. Pure. */

/** The path without parameters of this name, however the name is percent-encoded. */
export function withoutParameter(rawPath: string, name: string): string {
  const start = rawPath.indexOf('?')
  if (start === -1) return rawPath
  const parts = rawPath.slice(start + 1).split('&')
  const kept = parts.filter((part) => parameterName(part) !== name)
  if (kept.length === parts.length) return rawPath
  return kept.length === 0 ? rawPath.slice(0, start) : `${rawPath.slice(0, start)}?${kept.join('&')}`
}

/** The value of a Cookie field without cookies of this name; empty when none is left. */
export function withoutCookie(value: string, name: string): string {
  const parts = value.split(';')
  const kept = parts.filter((part) => part.split('=', 1)[0]?.trim() !== name)
  return kept.length === parts.length ? value : kept.join(';').trimStart()
}

/** The value of a Sec-WebSocket-Protocol field without subprotocols of this prefix; empty when none is left. */
export function withoutSubprotocol(value: string, prefix: string): string {
  const parts = value.split(',')
  const kept = parts.filter((part) => !part.trim().toLowerCase().startsWith(prefix.toLowerCase()))
  return kept.length === parts.length ? value : kept.join(',').trim()
}

function parameterName(part: string): string {
  const end = part.indexOf('=')
  const raw = end === -1 ? part : part.slice(0, end)
  if (!raw.includes('%') && !raw.includes('+')) return raw
  try {
    return decodeURIComponent(raw.replaceAll('+', ' '))
  } catch {
    return raw // not UTF-8: no parameter of ours
  }
}
