/** An explanation of policy in words. Values come from agents: they are printed as JSON, on one line. */
import type { Account, Change, Explanation, Failed, Standing, Way } from '../../policy/tools/explain.ts'
import type { Recorded } from '../../policy/tools/recorded.ts'
import type { Scene } from '../../policy/tools/scene.ts'
import { printable } from '../log/words.ts'

/** Near misses that are told when not all are asked for. */
const NEAREST = 3

/** @param all every policy that could have a say. */
export function explanationText(explanation: Explanation, of: Recorded | Scene, all: boolean): string {
  const { decision, services, ways, unknown } = explanation
  const lines = [headline(explanation, of), ...('seq' in of ? [recordedText(of)] : [])]
  if (decision.code === 'host_unmanaged') lines.push(`  ${decision.detail}`)
  lines.push(...decision.errors.map((error) => `  a policy could not be evaluated: ${error}`))
  for (const account of services) lines.push(...accountLines(account, all, services.length > 1))
  if (unknown.length === 0 && decision.effect === 'deny') lines.push(...wayLines(ways))
  return `${lines.join('\n')}\n`
}

function headline({ decision, unknown }: Explanation, of: Recorded | Scene): string {
  const what = askedText(of)
  if (unknown.length > 0) return `${what}: cannot be told, it depends on ${unknown.join(', ')}`
  if (decision.effect === 'deny') return `${what}: denied (${decision.code ?? 'no code'})`
  const { approval } = decision.obligations
  const consent =
    approval &&
    `, once ${approval.count} of ${approval.from.join(', ')} ${approval.count === 1 ? 'consents' : 'consent'}`
  return `${what}: allowed${consent ?? ''}`
}

function askedText(of: Recorded | Scene): string {
  if ('asked' in of) return `${of.kind === 'call' ? '' : `${of.kind} `}${of.asked.join(' ')} by ${printable(of.agent)}`
  return of.kind === 'call' ? `${of.method} ${of.endpoint.operation.name}` : `${of.kind} ${of.scope.join(' ')}`
}

function recordedText({ seq, ts, effect, code, policyIds }: Recorded): string {
  if (effect === 'none') return `  in the log (${seq}, ${ts}): ${code ?? 'refused'}, before policy was asked`
  const by = policyIds.length === 0 ? 'by no policy' : `by ${policyIds.join(', ')}`
  return `  in the log (${seq}, ${ts}): ${effect === 'unread' ? 'refused' : effect} ${by}${code === undefined ? '' : `, ${code}`}`
}

function accountLines({ service, policies }: Account, all: boolean, isOneOfMany: boolean): string[] {
  const applied = policies.filter(({ truth }) => truth === 'true')
  const others = policies.filter(({ truth }) => truth !== 'true')
  const shown = all ? others : others.slice(0, NEAREST)
  const lines = isOneOfMany ? [`  for ${service}:`] : []
  if (policies.length === 0) lines.push('  no policy is about it at all')
  lines.push(...applied.map((one) => `  applies: ${nameOf(one)}${general(one)}`))
  for (const one of shown) lines.push(`  does not apply: ${nameOf(one)}`, ...one.failed.map(failedLine))
  if (others.length > shown.length) lines.push(`  and ${others.length - shown.length} more do not apply (--all)`)
  return lines
}

function nameOf({ policy }: Standing): string {
  return `${policy.json.effect} ${policy.id} (${policy.file}:${policy.line}, owner ${policy.owner})`
}

function general({ isTooGeneral }: Standing): string {
  return isTooGeneral ? '; but only a policy that names the operation can allow it' : ''
}

function failedLine({ text, shouldBe, truth, saw }: Failed): string {
  const seen = Object.entries(saw).map(
    ([name, value]) => `${name} is ${value === undefined ? 'not known' : show(value)}`,
  )
  const how = { unknown: 'not known', error: 'was not reached', true: 'holds, and should not', false: 'does not hold' }[
    truth
  ]
  const state = truth === 'false' && !shouldBe ? 'does not hold' : how
  return `    ${state}: ${printable(text)}${seen.length === 0 ? '' : `   ${seen.join(', ')}`}`
}

function wayLines(ways: readonly Way[]): string[] {
  if (ways.length === 0)
    return ['  nothing that was tried would make it pass: it takes another operation, or another policy']
  return ['  would be allowed if:', ...ways.map(({ changes }) => `    - ${changes.map(changeText).join(' and ')}`)]
}

function changeText({ name, from, to, isAnother }: Change): string {
  if (isAnother) return `${name} were something else than ${show(from)}`
  return `${name} were ${show(to)}${from === undefined ? '' : ` (is ${show(from)})`}`
}

function show(value: unknown): string {
  return printable(JSON.stringify(value))
}
