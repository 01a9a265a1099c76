/** What the pages of requests for access say. Facts and what the agent says stand apart; all of it is escaped. */
import type { AccessView, Wanted } from '../../protocol/access.ts'
import { escaped } from '../page.ts'
import { quoted, signedInWords, timeOf, told } from './approval-words.ts'

export interface ShownAccess {
  readonly view: AccessView
  /** Of the form. */
  readonly proof: string
}

export function accessListWords(who: string, views: readonly AccessView[], signOut: string): string {
  const rows = views.map(
    ({ id, agent, human, wanted, expiresAt }) =>
      `<li><a href="/approve/access/${escaped(id)}">${told(shortOf(wanted))}</a> by ${told(agent.id)} for ${told(human.sub)}, until ${timeOf(expiresAt)}</li>`,
  )
  const list = rows.length === 0 ? '<p>No agent asks you for access.</p>' : `<ul>${rows.join('')}</ul>`
  return `<h1>Requests for access</h1>${list}<p><a href="/approve">Approvals</a></p>${signedInWords(who, signOut)}`
}

export function accessWords({ view, proof }: ShownAccess, who: string, signOut: string): string {
  const { agent, human, lineage, task, wanted, asked, expiresAt, agentSays, state } = view
  const rows: (readonly [string, string | undefined])[] = [
    ['Agent', `${agent.id} (${view.isAttested ? 'proved who it is' : 'named by who opened the task'})`],
    ['Agent’s owner, purpose, risk', `${agent.owner}; ${agent.purpose}; ${agent.riskTier}`],
    ['Works for', `${human.sub} (${human.iss})`],
    ['Lineage', lineage.map(({ id }) => id).join(' → ')],
    ['Task', task.id],
    ['Would be given', wordsOf(wanted)],
    ['The agent asked for', asked && wordsOf(asked)],
    ['Until', timeOf(expiresAt)],
  ]
  const list = rows.flatMap(([term, says]) => (says === undefined ? [] : `<dt>${term}</dt><dd>${told(says)}</dd>`))
  const said = [
    ['Why', agentSays.reason],
    ['Intent', agentSays.intent],
    ['About the refusal', agentSays.event],
  ].flatMap(([term, says]) => (says === undefined ? [] : `<dt>${term}</dt><dd><pre>${quoted(says, 500)}</pre></dd>`))
  return `<h1>Request for access</h1><h2>Verified by the gateway</h2><p>What you grant, you give in your own name; policy decides whether you can.</p><dl>${list.join('')}</dl><div class="says"><h2>What the agent says</h2><p>Not verified. Decide by what stands above.</p><dl>${said.join('')}</dl></div>${state === 'pending' ? formWords(wanted, proof) : `<p><strong>It is ${state}.</strong></p>`}<p><a href="/approve/access">All requests</a></p>${signedInWords(who, signOut)}`
}

function formWords({ scope = '', authorization_details: details, ttl_s: ttlS }: Wanted, proof: string): string {
  const hidden = `<input type="hidden" name="proof" value="${escaped(proof)}">`
  const json = details === undefined ? '' : JSON.stringify(details, null, 2)
  const edit = `<h2>Change it first</h2><form method="post">${hidden}<p>Scope<br><textarea name="scope" rows="2">${escaped(scope)}</textarea></p><p>authorization_details<br><textarea name="authorization_details" rows="6">${escaped(json)}</textarea></p><p>Seconds<br><input name="ttl_s" value="${ttlS ?? ''}"></p><button name="verdict" value="edit">Change</button></form>`
  return `<form method="post">${hidden}<button name="verdict" value="grant">Grant</button><button name="verdict" value="deny">Deny</button></form>${edit}`
}

function wordsOf({ scope, authorization_details: details, ttl_s: ttlS }: Wanted): string {
  const parts = [scope, details && JSON.stringify(details), ttlS === undefined ? undefined : `for ${ttlS} s`]
  return parts.filter((part) => part !== undefined).join('; ')
}

function shortOf({ scope, authorization_details: details = [] }: Wanted): string {
  const text = scope ?? JSON.stringify(details)
  return text.length > 100 ? `${text.slice(0, 100)}…` : text
}
