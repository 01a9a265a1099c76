/** GitHub's REST API, as far as an app asks it for tokens: one request, and what its rate limits say. */
import type { Clock } from '../../protocol/clock.ts'
import type { Secret } from '../../protocol/secret.ts'
import { exchange, type IssuerAnswer, isPassing, unavailable } from '../oauth/issuer-exchange.ts'
import type { GuardedFetch } from '../provider.ts'

/** One GitHub, as the app speaks to it. */
export interface GithubApi {
  /** Host, for messages. */
  readonly name: string
  /** @param bearer the app's JWT, or the token that is to be ended. */
  ask(method: 'GET' | 'POST' | 'DELETE', path: string, o: GithubAsk): Promise<IssuerAnswer>
}

interface GithubAsk {
  readonly bearer: Secret
  readonly body?: unknown
  readonly signal: AbortSignal
}

/** @param url of its REST API. */
export function githubApi(url: string, fetch: GuardedFetch, clock: Clock): GithubApi {
  const base = url.replace(/\/+$/, '')
  const name = `GitHub at ${new URL(base).host}`
  return {
    name,
    async ask(method, path, { bearer, body, signal }) {
      let spent: number | undefined
      const watching: GuardedFetch = async (input, init) => {
        const response = await fetch(input, init)
        spent = spentUntilMs(response.headers)
        return response
      }
      const headers = {
        Accept: 'application/vnd.github+json',
        Authorization: `Bearer ${bearer.reveal()}`,
        'User-Agent': 'keyless',
        'X-GitHub-Api-Version': '2022-11-28',
      }
      const request = { url: `${base}${path}`, method, headers, signal, ...(body !== undefined && { body }) }
      const answer = await exchange(watching, name, request)
      // Rate limits come as 429, or as 403 with either of two fields ("Rate limits for the REST API").
      const isLimited = answer.status === 403 && (spent !== undefined || answer.retryAfterMs !== undefined)
      if (!isPassing(answer.status) && !isLimited) return answer
      const waitMs = answer.retryAfterMs ?? (spent === undefined ? undefined : Math.max(0, spent - clock.nowMs()))
      throw unavailable(name, `answered ${answer.status}`, waitMs)
    },
  }
}

/** Milliseconds since the epoch at which the primary rate limit begins anew; undefined unless it is used up. */
function spentUntilMs(headers: Headers): number | undefined {
  if (headers.get('x-ratelimit-remaining') !== '0') return undefined
  const reset = headers.get('x-ratelimit-reset') ?? ''
  return /^\d{1,12}$/.test(reset) ? Number(reset) * 1000 : undefined
}
