/** What a `vault` credential asks for, for one call: its path and parameters with the role and the names of the call put in. Pure. */
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Endpoint } from '../../protocol/service.ts'
import { type Roles, roleKey } from '../roles.ts'

export type Parameters = Readonly<Record<string, string | number | boolean>>

export interface VaultTemplate {
  /** Below `/v1/`. */
  readonly path: string
  readonly parameters: Parameters
  readonly roles: Roles<string>
}

export type Filled = Pick<VaultTemplate, 'path' | 'parameters'>

/** `{role}`, `{task}`, `{params.NAME}`, … */
const PLACEHOLDER = /\{([^{}]*)\}/g

/** One path segment, or part of one, that means the same to every reader. */
const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/

/** A parameter's value: a comma would be a second value to the server. */
const VALUE = /^[\x21-\x2b\x2d-\x7e]{1,255}$/

const NAMES = ['role', 'task', 'agent', 'human'] as const

/** @returns what stands in braces and has no meaning; undefined when there is none. */
export function unknownPlaceholder(texts: readonly string[]): string | undefined {
  return placeholders(texts).find((name) => !(NAMES as readonly string[]).includes(name) && !/^params\.\w+$/.test(name))
}

export function placeholders(texts: readonly string[]): readonly string[] {
  return texts.flatMap((text) => [...text.matchAll(PLACEHOLDER)].map(([, name = '']) => name))
}

/** Everything of a template that can have placeholders. */
export function textsOf({ path, parameters }: Filled): readonly string[] {
  return [path, ...Object.values(parameters).filter((value) => typeof value === 'string')]
}

/** @throws {GatewayError} `credential_unconfigured` when the call has no role, or a value that cannot stand where it is to. */
export function fill(template: VaultTemplate, endpoint: Endpoint, grant: Grant): Filled {
  const put = (text: string, allowed: RegExp) =>
    text.replace(PLACEHOLDER, (_, name: string) => checked(name, nameFor(name, template, endpoint, grant), allowed))
  const parameters = Object.entries(template.parameters).map(([name, value]) => [
    name,
    typeof value === 'string' ? put(value, VALUE) : value,
  ])
  return { path: put(template.path, SEGMENT), parameters: Object.fromEntries(parameters) }
}

function nameFor(name: string, { roles }: VaultTemplate, { operation, params }: Endpoint, grant: Grant): string {
  switch (name) {
    case 'role':
      return roles[roleKey(roles, operation)] ?? ''
    case 'task':
      return grant.task.id
    case 'agent':
      return grant.agent.id
    case 'human':
      return grant.human.sub
    default: {
      // Chosen by the agent: nothing but one plain word may come of it, wherever it goes.
      const key = name.slice('params.'.length)
      return checked(name, Object.hasOwn(params, key) ? (params[key] ?? '') : '', SEGMENT)
    }
  }
}

function checked(name: string, value: string, allowed: RegExp): string {
  if (allowed.test(value)) return value
  throw unconfigured(`{${name}} of this call is empty, or has characters that cannot stand there`)
}

function unconfigured(what: string): GatewayError {
  return new GatewayError('credential_unconfigured', `Vault is not asked for a credential: ${what}.`)
}
