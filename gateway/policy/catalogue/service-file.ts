/**
 * A service file (`policies/services/*.yaml`): its schema, and every mistake in it at once with path, got, allowed and fix.
 * What it becomes is the business of `catalogue.ts`.
 */
import ipaddr from 'ipaddr.js'
import { LineCounter, parseDocument } from 'yaml'
import { z } from 'zod'
import { isExactHost } from '../../protocol/host-pattern.ts'
import { parseParameter } from '../../protocol/parameter.ts'
import { DIALECTS, PARAMETER_TYPES } from '../../protocol/service.ts'
import type { Fault } from '../fault.ts'
import { hostSchema, labelSchema, rangeSchema, SERVICE_NAME } from '../selection.ts'
import { PATTERN_FORM, parsePattern } from './pattern.ts'

const OPERATION_ID = /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const POINTER = /^(?:\/(?:[^~/]|~[01])+)+$/
const ENVIRONMENT_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/

/** Which part of the credential goes there; absent: its secret. */
const part = z
  .string()
  .regex(/^[a-z][a-z0-9_]*$/)
  .optional()

const slot = z.discriminatedUnion('in', [
  z.strictObject({
    in: z.literal('header'),
    name: z.string().regex(TOKEN).toLowerCase(),
    prefix: z.string().optional(),
    part,
  }),
  z.strictObject({ in: z.literal('basic'), username: z.string().regex(/^[^:]+$/), part }),
  z.strictObject({ in: z.literal('query'), name: z.string().min(1), part }),
  z.strictObject({ in: z.literal('cookie'), name: z.string().regex(TOKEN), part }),
  z.strictObject({ in: z.literal('subprotocol'), prefix: z.string().regex(TOKEN), part }),
  z.strictObject({ in: z.literal('body'), pointer: z.string().regex(POINTER), part }),
  z.strictObject({ in: z.literal('form'), name: z.string().min(1), part }),
  z.strictObject({
    in: z.literal('path'),
    prefix: z.string().regex(/^[A-Za-z0-9._~-]+(?:\/[A-Za-z0-9._~-]+)*$/),
    part,
  }),
  z.strictObject({
    in: z.literal('signature'),
    scheme: z.enum(['aws4', 'hmac']),
    /** What the service is called in signatures of AWS, the usual name first. */
    services: z
      .array(z.string().regex(/^[a-z0-9-]+$/, 'a name such as s3'))
      .min(1)
      .optional(),
  }),
  z.strictObject({ in: z.literal('certificate') }),
])

/** Words that Cedar keeps for itself: no attribute can be read under them. */
const RESERVED = ['true', 'false', 'if', 'then', 'else', 'in', 'is', 'like', 'has']
const parameterKey = z
  .string()
  .refine((key) => parseParameter(key) !== undefined, 'query.NAME, or body. and a JSON pointer such as body./amount')
const parameters = z.record(
  z
    .string()
    .regex(/^[a-z][a-z0-9_]{0,39}$/)
    .refine((name) => !RESERVED.includes(name), 'any name but a word of Cedar'),
  z.union([parameterKey, z.strictObject({ from: parameterKey, type: z.enum(PARAMETER_TYPES) })]),
)

const SLOT_KINDS = slot.options.map((option) => option.shape.in.value)

const dialect = z.enum(DIALECTS)

const operation = z
  .strictObject({
    match: z.array(z.string().refine((text) => typeof parsePattern(text) === 'object', PATTERN_FORM)).min(1),
    access: z.enum(['read', 'write', 'admin']),
    sensitivity: z.enum(['public', 'internal', 'confidential', 'restricted']).default('internal'),
    returns_secret: z.boolean().default(false),
    irreversible: z.boolean().default(false),
    websocket: z.boolean().default(false),
    /** Where in the JSON of its answer the credentials are: JSON pointers, `*` for any member or element. */
    captures: z.array(z.string().regex(POINTER, 'a JSON pointer such as /token or /keys/*/secret')).default([]),
    /**
     * Where the credential goes for this operation, if elsewhere than in the first slot (git wants Basic, its API Bearer).
     * `none`: ours stays away and what the client sends passes, for requests that the API itself authorised (LFS objects).
     */
    attach: z.union([slot, z.literal('none')]).optional(),
    dialect: dialect.optional(),
    /** What it needs in IAM: `s3:GetObject arn:{partition}:s3:::{bucket}/{key}`, the place with names of `match`, or no place. */
    iam: z
      .array(
        z
          .string()
          .regex(
            /^[a-z0-9-]+:[A-Za-z*]+(?: arn:[^\s]+)?$/,
            'an action, and perhaps an ARN: s3:GetObject arn:{partition}:s3:::{bucket}/{key}',
          ),
      )
      .min(1)
      .optional(),
    /** By what policies choose it besides: `resource.labels.contains("payments")`. */
    labels: z.array(labelSchema).optional(),
    /** What of its requests policies can read, as text unless it says more: `{ state: query.state }` is `context.params.state`. */
    params: parameters.optional(),
    /** What it needs in the upstream's own words, for providers that narrow by it: `{ contents: read }` at GitHub. */
    permissions: z
      .record(z.string().regex(/^[a-z][a-z0-9_]*$/), z.string().regex(/^[A-Za-z][A-Za-z0-9_./-]*$/))
      .optional(),
  })
  .refine((one) => one.captures.length === 0 || one.returns_secret, {
    path: ['captures'],
    message: 'nothing, or returns_secret: true beside it',
  })
  .refine((one) => !(one.websocket && one.returns_secret), {
    path: ['websocket'],
    message: 'false beside returns_secret: true, because what comes in frames cannot be captured',
  })

const HOSTLESS = 'at least 1 entry, or an example as `instance` where each customer has a host of its own'

const serviceFile = z
  .strictObject({
    name: SERVICE_NAME,
    title: z.string().min(1),
    hosts: z.array(hostSchema),
    /** An example of a host that each customer has another of: settings name theirs, which takes the place of `hosts`. */
    instance: z.string().refine(isExactHost, 'an exact host name, as an example').optional(),
    ports: z.array(z.int().min(1).max(65535)).min(1).default([443]),
    unsafe_cleartext: z.boolean().default(false),
    slots: z.array(slot).default([]),
    /** What the API sets on whoever shows our credential: a session, which stays here, or nothing that gives access. */
    cookies: z.enum(['drop', 'pass']).default('drop'),
    addresses: z.array(rangeSchema).default([]),
    dialect: dialect.default('problem'),
    credential: z.string().min(1).optional(),
    placeholders: z.record(z.string().regex(ENVIRONMENT_NAME), z.string().regex(/^[\x21-\x7e]+$/)).default({}),
    base_urls: z.array(z.string().regex(ENVIRONMENT_NAME)).default([]),
    tools: z.array(z.enum(['git', 'kubectl', 'gcloud', 'docker', 'npm', 'pip'])).default([]),
    operations: z.record(
      z
        .string()
        .regex(OPERATION_ID)
        .refine((id) => id !== 'unlisted', 'any id but the reserved `unlisted`'),
      operation,
    ),
  })
  .refine(({ hosts, instance }) => hosts.length > 0 || instance !== undefined, { path: ['hosts'], message: HOSTLESS })

/** A service description as written; also accepted in memory by `loadCatalogue`. */
export type ServiceFile = z.input<typeof serviceFile>
/** The same with every default filled in. */
export type ServiceDescription = z.output<typeof serviceFile>

/** @returns the description, or the faults found in the YAML text or in the description itself. */
export function readServiceText(text: string, label: string): ServiceDescription | Fault[] {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  if (document.errors.length === 0) return readService(document.toJS(), label)
  return document.errors.map((error) => ({
    where: `${label}:${lines.linePos(error.pos[0]).line}`,
    got: error.message,
    allowed: 'YAML 1.2 without duplicate keys',
    fix: 'correct the YAML at this line',
  }))
}

/** @returns the description, or every fault in it. */
export function readService(value: unknown, label: string): ServiceDescription | Fault[] {
  const parsed = serviceFile.safeParse(value)
  if (!parsed.success) return parsed.error.issues.flatMap((issue) => issueFaults(issue, value, label))
  return parsed.data
}

function issueFaults(issue: z.core.$ZodIssue, root: unknown, label: string): Fault[] {
  const where = issue.path.length === 0 ? label : `${label}: ${issue.path.map(String).join('.')}`
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      where,
      got: `the unknown key ${key}`,
      allowed: knownKeys(issue.path),
      fix: `remove ${key}, or correct its spelling`,
    }))
  }
  const value = issue.path.reduce<unknown>(member, root)
  const got = shown(value)
  const allowed = allowedBy(issue)
  // The range of one address, not the example: that would open a whole network to whoever copies it.
  if (issue.path[0] === 'addresses' && typeof value === 'string' && ipaddr.isValid(value))
    return [{ where, got, allowed, fix: `write ${value}/${value.includes(':') ? 128 : 32}` }]
  const fix =
    got === 'nothing' ? `add ${String(issue.path.at(-1) ?? 'the description')}: ${allowed}` : `write ${allowed}`
  return [{ where, got, allowed, fix }]
}

function member(parent: unknown, key: PropertyKey): unknown {
  return typeof parent === 'object' && parent !== null ? (parent as Record<PropertyKey, unknown>)[key] : undefined
}

function shown(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 120 ? `${text.slice(0, 120)}…` : text
}

function knownKeys(path: readonly PropertyKey[]): string {
  if (path.length === 0) return Object.keys(serviceFile.shape).join(', ')
  if (path[0] === 'operations' && path.length === 2) return Object.keys(operation.shape).join(', ')
  return 'in, part; name and prefix for a header, username for basic, name for query, cookie and form, prefix for subprotocol and path, pointer for body, scheme for signature'
}

/** A type in words. */
const KINDS: Readonly<Record<string, string>> = {
  record: 'a mapping',
  object: 'a mapping',
  boolean: 'true or false, without quotes',
  array: 'a list',
  string: 'text',
  int: 'a whole number',
  number: 'a number',
}

function allowedBy(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return KINDS[issue.expected] ?? `a value of type ${issue.expected}`
    case 'invalid_value':
      return issue.values.length === 1 ? String(issue.values[0]) : `one of ${issue.values.map(String).join(', ')}`
    case 'invalid_union':
      return `${SLOT_KINDS.join(', ')} as \`in\``
    case 'too_small':
      return `at least ${issue.minimum}${issue.origin === 'array' ? ' entry' : ''}`
    case 'too_big':
      return `at most ${issue.maximum}`
    case 'invalid_format':
      return issue.message.startsWith('Invalid')
        ? `text that matches ${'pattern' in issue ? issue.pattern : issue.format}`
        : issue.message
    case 'invalid_key':
      return issue.issues.map((inner) => allowedBy(inner)).join('; ')
    default:
      return issue.message
  }
}
