/**
 * What the pages of approvals say. What the gateway has verified and what an agent says of itself stand apart; all of it is escaped, and
 * characters that cannot be seen, or turn the order of others around, are spelled out.
 */
import type { AgentSays, ApprovalFacts, ApprovalView } from '../../protocol/approval.ts'
import { urlOf } from '../../protocol/control-approvals.ts'
import { escaped } from '../page.ts'

export interface ShownApproval {
  readonly view: ApprovalView
  /** Undefined: who looks may decide. */
  readonly hindrance: string | undefined
  /** Of the form. */
  readonly proof: string
}

export function listWords(who: string, views: readonly ApprovalView[], signOut: string): string {
  const rows = views.map(({ id, facts, expiresAt, agentSays }) => {
    const link = `<a href="/approve/${escaped(id)}">${told(facts.operation)}</a>`
    return `<li>${link} by ${told(facts.agent.id)} for ${told(facts.human.sub)}, until ${timeOf(expiresAt)}<br><small>The agent says: ${quoted(agentSays.intent, 100)}</small></li>`
  })
  const list = rows.length === 0 ? '<p>Nothing waits for you.</p>' : `<ul>${rows.join('')}</ul>`
  return `<h1>Approvals</h1>${list}${signedInWords(who, signOut)}`
}

export function approvalWords({ view, hindrance, proof }: ShownApproval, who: string, signOut: string): string {
  const { facts, state } = view
  const buttons =
    state === 'pending' && hindrance === undefined
      ? `<form method="post"><input type="hidden" name="proof" value="${escaped(proof)}"><button name="verdict" value="approve">Approve</button><button name="verdict" value="deny">Deny</button></form>`
      : `<p><strong>${escaped(stateWords(view))}</strong>${hindrance === undefined || state !== 'pending' ? '' : ` ${told(hindrance)}`}</p>`
  return `<h1>${told(facts.operation)}</h1>${facts.isIrreversible ? '<p><strong>This cannot be undone.</strong></p>' : ''}${factWords(view)}${saysWords(view.agentSays)}${buttons}<p><a href="/approve">All approvals</a></p>${signedInWords(who, signOut)}`
}

function factWords(view: ApprovalView): string {
  const { facts, terms, consents, missing, needed, fingerprint, expiresAt } = view
  const rows: (readonly [string, string | undefined])[] = [
    ...requestRows(facts),
    ['Kind', `${facts.access}, ${facts.sensitivity}`],
    ['Agent', `${facts.agent.id} (${facts.isAttested ? 'proved who it is' : 'named by who opened the task'})`],
    ['Agent’s owner, purpose, risk', `${facts.agent.owner}; ${facts.agent.purpose}; ${facts.agent.riskTier}`],
    ['Works for', `${facts.human.sub} (${facts.human.iss})`],
    ['Lineage', facts.lineage.map(({ id }) => id).join(' → ')],
    ['Task', facts.task.id],
    ['Asked are', `${terms.from.join(', ')}; ${terms.count} ${terms.count === 1 ? 'person' : 'people'} altogether`],
    ['Consented', consents.map(({ name, groups }) => `${name} (${groups.join(', ')})`).join(', ') || 'nobody yet'],
    ['Missing', view.state === 'pending' ? [...missing, `${needed} more`].join(', ') : undefined],
    ['Good for', terms.reuseS === undefined ? 'one call' : `the same request during ${terms.reuseS} s`],
    ['Until', timeOf(expiresAt)],
    ['Fingerprint', fingerprint],
  ]
  const list = rows.flatMap(([term, says]) => (says === undefined ? [] : `<dt>${term}</dt><dd>${told(says)}</dd>`))
  return `<h2>Verified by the gateway</h2><dl>${list.join('')}</dl>`
}

function requestRows({ request, authority, ttlS }: ApprovalFacts): (readonly [string, string | undefined])[] {
  if (request === undefined)
    return [
      ['Grant', authority && JSON.stringify(authority)],
      ['For', ttlS === undefined ? undefined : `${ttlS} s`],
    ]
  const { method, fields, body, isUpgrade } = request
  // What an agent wrote stands last in its row: nothing in it passes for what follows.
  return [
    ['Request', `${method} ${urlOf(request)}`],
    ['WebSocket', isUpgrade ? 'What is said in it is not seen before: all of it is approved.' : undefined],
    ['Body', body === undefined ? 'none' : `${body.bytes} bytes, sha256 ${body.sha256}, of ${body.type ?? 'no type'}`],
    ...fields.map(([name, value]) => ['Header field', `${name}: ${value}`] as const),
  ]
}

/** Nothing of this is verified, and it may be written to mislead whoever reads it. */
function saysWords({ intent, userAgent, content }: AgentSays): string {
  const rows: (readonly [string, string | undefined])[] = [
    ['Intent', intent],
    ['User agent', userAgent],
    ['Beginning of the body', content],
  ]
  const list = rows.flatMap(([term, says]) =>
    says === undefined ? [] : `<dt>${term}</dt><dd><pre>${quoted(says, 4096)}</pre></dd>`,
  )
  return `<div class="says"><h2>What the agent says</h2><p>Not verified. Decide by what stands above.</p><dl>${list.join('')}</dl></div>`
}

function stateWords({ state, deniedBy, why }: ApprovalView): string {
  switch (state) {
    case 'pending':
      return 'It waits for somebody else.'
    case 'approved':
      return 'It is approved. The agent may make this very request.'
    case 'denied':
      return `It is denied${deniedBy === undefined ? '' : ` by ${visible(deniedBy.name)}`}.`
    case 'expired':
      return why === 'grant_ended' ? 'What asked for it is gone.' : 'Nobody decided in time.'
    case 'used':
      return 'It was approved, and used.'
    default:
      return state satisfies never
  }
}

/** @param signOut proof of the form. */
export function signedInWords(who: string, signOut: string): string {
  return `<hr><p>You are ${told(who)}. <form method="post" action="/approve/sign-out"><input type="hidden" name="proof" value="${escaped(signOut)}"><button>Sign out</button></form></p>`
}

export function signedOutWords(): string {
  return '<h1>Signed out</h1><p><a href="/approve">Sign in again</a></p>'
}

export function refusedWords(detail: string | undefined): string {
  return `<h1>Not done</h1><p>${told(detail ?? 'Something unexpected happened. The operator finds it in the log of the gateway.')}</p><p><a href="/approve">All approvals</a></p>`
}

/** A value, on a page. */
export function told(text: string): string {
  return escaped(visible(text))
}

/** The same of what an agent wrote: cut. */
export function quoted(text: string, most: number): string {
  return told(text.length > most ? `${text.slice(0, most)}…` : text)
}

/**
 * Controls, joiners, fillers, marks of direction, private and unassigned characters as `\u{…}`: what is read is what is there. So are marks
 * beyond the fourth on one letter, which no script has: piled up they cover the lines above.
 */
export function visible(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/[\p{C}\p{DI}\p{Zl}\p{Zp}]|(?<=\p{M}{4})\p{M}/gu, (one) =>
      one === '\n' || one === '\t' ? one : `\\u{${(one.codePointAt(0) ?? 0).toString(16)}}`,
    )
}

export function timeOf(epochS: number): string {
  return new Date(epochS * 1000).toISOString().replace(/\.\d+Z$/, 'Z')
}
