/**
 * What a refusal tells an agent besides why: what it may do instead, whom to ask and how, which approval it waits for. Members of the
 * answer, spelled as on the wire. Says only what the agent's own grant would let it find out by trying. Pure.
 */
/** The approval that this very request waits for, or waited for in vain. */
export interface ApprovalNotice {
  /** UUIDv7 */
  readonly id: string
  /** Asked with the grant of the refused request. */
  readonly status_url: string
  /** Seconds between two questions. */
  readonly interval: number
}

/** Something that grant and policy would let through now, as far as can be said without trying. */
export interface Alternative {
  /** `github:issues.read` */
  readonly operation?: string
  readonly access?: 'read' | 'write' | 'admin'
  /** Method and path, with names in braces where the refused request does not say what belongs there. */
  readonly request?: string
  /** Somebody has to approve it first. */
  readonly needs_approval?: true
  /** Of a grant that would live too long: the most that policy allows, seconds. */
  readonly ttl_s?: number
}

/** A request that turns the refusal into a proposal to a human. */
export interface HowToAsk {
  readonly method: 'POST'
  readonly url: string
  /** JSON; text in angle brackets is for the agent to fill in. */
  readonly body: Readonly<Record<string, string>>
}

export interface Advice {
  readonly approval?: ApprovalNotice
  readonly instead?: readonly Alternative[]
  readonly how_to_ask?: HowToAsk
}

/** The same in words, for clients that show nothing but a sentence; empty when there is nothing to say. */
export function adviceWords({ approval, instead = [], how_to_ask: ask }: Advice): string {
  const words: string[] = []
  if (approval)
    words.push(
      `Ask again about it every ${approval.interval} s at ${approval.status_url}, then repeat the same request.`,
    )
  if (instead.length > 0) words.push(`Allowed instead: ${instead.map(alternativeWords).join(', ')}.`)
  if (ask)
    words.push(`To ask a human for it: ${ask.method} ${ask.url} with this grant and ${JSON.stringify(ask.body)}.`)
  return words.join(' ')
}

function alternativeWords({ operation, request, needs_approval: isHeld, ttl_s: ttlS }: Alternative): string {
  const name = [operation ?? '', request === undefined ? '' : `(${request})`, isHeld ? 'after approval' : ''].filter(
    Boolean,
  )
  return [...name, ttlS === undefined ? '' : `for at most ${ttlS} s`].filter(Boolean).join(' ')
}
