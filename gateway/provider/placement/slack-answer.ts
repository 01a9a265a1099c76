/**
 * Slack's token endpoint in the words of OAuth: it answers 200 to everything, says `ok: false` with codes of its own, and calls its
 * tokens `bot` or `user` (docs.slack.dev, "Using token rotation", "oauth.v2.access").
 */
import type { GuardedFetch } from '../provider.ts'

/** Its code → that of RFC 6749 §5.2; anything else is an error that OAuth does not know. */
const CODES: Readonly<Record<string, string>> = {
  invalid_refresh_token: 'invalid_grant',
  token_expired: 'invalid_grant',
  token_revoked: 'invalid_grant',
  invalid_code: 'invalid_grant',
  code_already_used: 'invalid_grant',
  bad_client_secret: 'invalid_client',
  invalid_client_id: 'invalid_client',
  bad_redirect_uri: 'invalid_request',
  ratelimited: 'temporarily_unavailable',
  internal_error: 'server_error',
  fatal_error: 'server_error',
  service_unavailable: 'temporarily_unavailable',
}

type Json = Readonly<Record<string, unknown>>

/** The same fetch, whose answers are those that an OAuth client expects. */
export function asOauth(fetch: GuardedFetch): GuardedFetch {
  return async (input, init) => {
    const response = await fetch(input, init)
    if (response.status !== 200) return response
    const text = await response.text()
    const said = parsed(text)
    if (said === undefined) return new Response(text, { status: 200 })
    if (said.ok === true) return Response.json({ ...tokensOf(said), token_type: 'bearer' })
    const code = typeof said.error === 'string' && Object.hasOwn(CODES, said.error) ? CODES[said.error] : 'slack_error'
    return Response.json(
      { error: code },
      { status: code === 'temporarily_unavailable' ? 429 : code === 'server_error' ? 503 : 400 },
    )
  }
}

/** A user token stands inside `authed_user` when it is first given, and outside when it is refreshed. */
function tokensOf(said: Json): Json {
  const { authed_user: user } = said
  return said.access_token === undefined && typeof user === 'object' && user !== null ? { ...user } : said
}

function parsed(text: string): Json | undefined {
  try {
    const json: unknown = JSON.parse(text)
    return typeof json === 'object' && json !== null ? (json as Json) : undefined
  } catch {
    return undefined
  }
}
