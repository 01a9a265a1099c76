/** Options by which every command that makes a grant says what should be in it. */
import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { thumbprintOf } from '../../grant/chain/jws.ts'
import type { GrantBody } from '../../protocol/control.ts'
import type { Preset } from '../../protocol/grant.ts'
import { parseStrictJson } from '../../protocol/strict-json.ts'
import { parseTtl } from '../at-gateway.ts'

/** What a grant holds, whoever makes it. */
export interface Contents {
  readonly scope?: string
  readonly details?: readonly unknown[]
  /** Seconds. */
  readonly ttl?: number
  readonly trace?: string
  readonly step?: string
  /** False with `--no-delegate`. */
  readonly delegate?: boolean
  readonly maxDepth?: number
  readonly dpopJkt?: string
  /** Thumbprint of the key in the file that was named. */
  readonly bind?: string
}

export interface GrantOptions extends Contents {
  readonly preset?: Preset
}

const PRESETS = ['per-task', 'per-session', 'per-prompt', 'training-batch', 'sensitive'] satisfies Preset[]

export function asksForGrant(command: Command): Command {
  return saysPreset(saysHowFar(saysWhat(command)))
}

export function saysWhat(command: Command): Command {
  return command
    .option('--scope <operations>', 'what it may do, as in "github:issues.read openai:*"')
    .option(
      '--details <json>',
      'authorization_details with paths and constraints: a JSON array, or @FILE with one',
      parseDetails,
    )
    .option('--ttl <duration>', 'how long at most: 30s, 15m, 1h', parseTtl)
    .option('--trace <id>', 'W3C trace id (32 hex digits) that requests must carry')
    .option('--step <name>', 'step of the task that the grant dies with')
}

export function saysPreset(command: Command): Command {
  return command.addOption(new Option('--preset <kind>', 'table of lifetimes (default: per-task)').choices(PRESETS))
}

/** To whom it may go. */
export function saysHowFar(command: Command): Command {
  return command
    .option('--no-delegate', 'it cannot be delegated')
    .option('--max-depth <n>', 'how many delegations deep the chain may become, from the root grant on', parseDepth)
    .option('--bind <file>', 'bind it to this key (PEM, Ed25519 or P-256); it then has no handle', parseBinding)
    .addOption(
      new Option('--dpop-jkt <thumbprint>', 'bind it to the key of this thumbprint (RFC 7638)').conflicts('bind'),
    )
}

/** Only what was given: the gateway knows the defaults. */
export function grantBodyOf(o: GrantOptions): GrantBody {
  return {
    ...(o.scope !== undefined && { scope: o.scope }),
    ...(o.details !== undefined && { authorization_details: o.details }),
    ...(o.ttl !== undefined && { ttl_s: o.ttl }),
    ...(o.preset !== undefined && { preset: o.preset }),
    ...(o.trace !== undefined && { trace: o.trace }),
    ...(o.step !== undefined && { step: o.step }),
    ...(o.delegate === false && { delegable: false }),
    ...(o.maxDepth !== undefined && { max_depth: o.maxDepth }),
    ...keyOf(o),
  }
}

function keyOf({ bind, dpopJkt = bind }: GrantOptions): { readonly dpop_jkt?: string } {
  return dpopJkt === undefined ? {} : { dpop_jkt: dpopJkt }
}

export function parseDetails(text: string): readonly unknown[] {
  const json = text.startsWith('@') ? read(text.slice(1)) : text
  try {
    const details = parseStrictJson(json)
    if (Array.isArray(details)) return details
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new InvalidArgumentError(`It is not JSON: ${cause.message}.`)
  }
  throw new InvalidArgumentError('It must be a JSON array: [{"type": "keyless_access", "operations": ["…"]}]')
}

function parseBinding(file: string): string {
  const text = read(file)
  try {
    return thumbprintOf(createPublicKey(text))
  } catch (cause) {
    throw new InvalidArgumentError(`${file} holds no key that can be used (${(cause as Error).message}).`)
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new InvalidArgumentError(`${file} cannot be read (${(cause as NodeJS.ErrnoException).code}).`)
  }
}

function parseDepth(text: string): number {
  if (!/^\d$/.test(text)) throw new InvalidArgumentError('Write a number from 0 to 8.')
  return Number(text)
}
