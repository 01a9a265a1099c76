/**
 * Slack's incoming webhooks, and what copies them: `text` for notifications, `blocks` for the eye. Everything that comes from outside is
 * escaped and kept to one line: an agent must not mention a channel, forge a link or a line of ours.
 */
import { agentOf, callOf, nameOf } from './call.ts'
import type { Exported, Item } from './item.ts'
import type { LetterTerms } from './letter-terms.ts'

/** Slack refuses sections of more than 3,000 characters and headers of more than 150. */
const MAX_SECTION = 2_900
const MAX_VALUE = 300
const MAX_HEADER = 150

/** Kind → what a person reads first. Others are told by their kind. */
const TITLES: Readonly<Record<string, string>> = {
  'approval.requested': 'Approval requested',
  'approval.access_requested': 'An agent asks for more access',
  'approval.decided': 'Approval decided',
  'approval.expired': 'Approval expired',
  'leak.detected': 'A credential leaked',
  'leak.foreign': 'A foreign credential was sent',
  'grant.revoked': 'Access ended',
  'revocation.ordered': 'Access was revoked',
  'signal.received': 'A security event was received',
  'signal.undelivered': 'A message could not be delivered',
  'webhook.test': 'Test message of Keyless',
}

/** Facts that lead programs on, and tell people nothing. */
const DULL: ReadonlySet<string> = new Set([
  'access_request',
  'agent_says',
  'approval',
  'call',
  'fingerprint',
  'grant',
  'order',
  'jti',
])

export function slackText(item: Item, { publicUrl }: LetterTerms): string {
  const { entry } = item
  const title = TITLES[entry.kind] ?? entry.kind
  const lines = linesOf(item).map(([name, value]) => `*${name}:* ${escaped(value)}`)
  const page = pageOf(entry, publicUrl)
  const link = page === undefined ? '' : `<${page}|Open>\n` // first, so that no length of what an agent says pushes it out
  const section = (link + lines.join('\n')).slice(0, MAX_SECTION)
  const blocks = [
    { type: 'header', text: { type: 'plain_text', text: title.slice(0, MAX_HEADER) } },
    ...(section === '' ? [] : [{ type: 'section', text: mrkdwn(section) }]),
    { type: 'context', elements: [mrkdwn(escaped(`${entry.kind} · ${item.uid} · ${entry.ts}`))] },
  ]
  return JSON.stringify({ text: [escaped(title), ...lines.slice(0, 3)].join(' · '), blocks })
}

/** `verbatim`: otherwise Slack makes links of addresses, and mentions of names, that an agent wrote. */
function mrkdwn(text: string) {
  return { type: 'mrkdwn', text, verbatim: true }
}

function linesOf(item: Item): [string, string][] {
  const { entry } = item
  const facts = Object.entries((entry.facts ?? {}) as Readonly<Record<string, unknown>>).filter(
    ([name]) => !DULL.has(name),
  )
  const agent = agentOf(entry)
  const { url, error } = callOf(item)
  const said: [string, string | undefined][] = [
    ['Agent', agent && nameOf(agent.id)],
    ['Human', entry.human?.sub],
    ['Call', url],
    ['Refused', error],
    ...facts.map(([name, value]): [string, string | undefined] => [name, inWords(value)]),
    // The agent's own words stand last, and say whose they are.
    [
      'Reason, in the agent’s words',
      inWords((entry.facts as { readonly agent_says?: unknown } | undefined)?.agent_says),
    ],
    ['Task, in the agent’s words', entry.task?.purpose],
  ]
  return said.flatMap(([name, value]) => (value === undefined || value === '' ? [] : [[name, value]]))
}

function inWords(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** Where a person decides. The id is ours; anything else in its place makes no link. */
function pageOf({ kind, facts }: Exported, publicUrl: string): string | undefined {
  const { approval, access_request: access } = (facts ?? {}) as { readonly [name: string]: unknown }
  const [path, id] = access === undefined ? ['approve', approval] : ['approve/access', access]
  const isOurs = kind.startsWith('approval.') && typeof id === 'string' && /^[\w-]{1,64}$/.test(id)
  return isOurs ? `${publicUrl}/${path}/${id}` : undefined
}

/** Slack's three control characters; line ends and marks that could begin formatting are blunted too. */
function escaped(text: string): string {
  const line = text.replaceAll(/[\p{Cc}\p{Cf}\p{DI}\p{Zl}\p{Zp}]+/gu, ' ')
  const cut = line.length > MAX_VALUE ? `${line.slice(0, MAX_VALUE)}…` : line
  return cut
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll(/([*_~`])/g, '\u200b$1')
}
