/** What the desk tells an agent about itself, in plain words. Says only what the agent's own grant says. */
import { DESK_URL } from '../../protocol/desk.ts'
import { detailsOf } from '../../protocol/details.ts'
import type { Grant } from '../../protocol/grant.ts'

export function deskWords(grant: Grant): string {
  const { agent, human, task, lineage, authority, expiresAt, delegable, breakGlass } = grant
  const chain = lineage.slice(1).map(({ id }) => id)
  return [
    `You are ${shown(agent.id)}, and act for ${shown(human.sub)} (${shown(human.iss)}).`,
    ...(chain.length > 1 ? [`You were given this by delegation: ${chain.map(shown).join(' -> ')}.`] : []),
    `Your task, ${task.id}: ${shown(task.purpose)}`,
    ...(task.plan ? [`Your plan: ${task.plan.map(shown).join(', ')}`] : []),
    ...(breakGlass ? ['This is emergency access: everything you do is reported.'] : []),
    '',
    'This is the gateway between you and the services you call. It adds credentials to your calls; you need no keys, and should look',
    'for none. Every call is decided on by itself, and recorded.',
    '',
    'Your grant reaches no further than this (policy may allow less):',
    ...detailsOf(authority).map((one) => `  ${JSON.stringify(one)}`),
    `It ends at ${new Date(expiresAt * 1000).toISOString()} at the latest${delegable ? '' : ', and cannot be delegated'}.`,
    '',
    'When a call is refused, the answer says why (detail), what helps (remedy), and what you may do instead (instead).',
    '',
    `approval_required: a human has to agree first. GET ${DESK_URL}/approvals/ID/status, as in approval.status_url of the answer,`,
    'every few seconds; once it says approved, send the very same request again. Changed in anything, it asks again.',
    '',
    'More access: ask a human, who may change what you ask for, grant it or deny it.',
    `  POST ${DESK_URL}/access-requests`,
    '  content-type: application/json',
    '  {"scope": "github:issues.create", "reason": "why your task needs it", "event": "instance of the refusal, if there was one"}',
    'The answer names status_url: GET it. Once it is granted, POST to grant_url, without a body, gives you a further grant. Or the',
    'human widens your task, and the same call passes.',
    '',
  ].join('\n')
}

/** On one line, without control characters: what is told is read at terminals too. */
function shown(text: string): string {
  return JSON.stringify(text).slice(1, -1)
}
