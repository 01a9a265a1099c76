/** The form of `*.test.yaml`: what is asked of policies, and what they shall answer. */
import { parse } from 'yaml'
import { z } from 'zod'
import { type Fault, throwFaults } from '../fault.ts'
import { selectionSchema } from '../selection.ts'

const facts = z.record(z.string(), z.json())

const given = {
  principal: facts.describe('Of the agent: id, owner, purpose, risk_tier, tags, …').optional(),
  resource: facts.describe('Of the place: host, path, tags, …; what the operation fixes is not written.').optional(),
  context: facts
    .describe('Whatever policies read of the context. `now` is a time such as 2026-11-23T10:00:00Z.')
    .optional(),
}

const request = z.union([
  z.string(),
  z.strictObject({
    method: z.string(),
    url: z.string(),
    headers: z.record(z.string(), z.string()).optional(),
    body: z.json().describe('JSON body.').optional(),
    form: z.string().describe('Form body, as it is sent.').optional(),
  }),
])

const one = z.union([z.string().transform((text) => text.split(' ')), z.array(z.string()).min(1)])

const QUESTIONS = ['call', 'operation', 'mint', 'delegate'] as const

const testCase = z
  .strictObject({
    name: z.string().min(1),
    call: z
      .union([request, z.array(request).min(1)])
      .describe('A request, METHOD URL; or several.')
      .optional(),
    operation: one.describe('An operation, where the request does not matter; or several.').optional(),
    mint: one.describe('Operation patterns that a root grant asks for.').optional(),
    delegate: one.describe('Operation patterns that a child grant asks for.').optional(),
    max_depth: z
      .int()
      .min(0)
      .max(8)
      .describe('With `mint`: how far down the grant could be delegated. Default 0.')
      .optional(),
    ...given,
    expect: z
      .enum(['allow', 'deny', 'approval'])
      .describe('`approval`: allowed once somebody consents. `allow`: without.'),
    decided_by: z.array(z.string()).describe('Exactly the policies that decide: their @id, or <file>#<id>.').optional(),
    obligations: z
      .record(z.string(), z.json())
      .describe('Obligations that the answer has; others are not looked at.')
      .optional(),
    code: z.string().describe('With `deny`: the code of docs/errors.md.').optional(),
  })
  .refine((value) => QUESTIONS.filter((name) => value[name] !== undefined).length === 1, {
    message: `exactly one of ${QUESTIONS.join(', ')}`,
  })

const testFile = z.strictObject({
  policies: z
    .array(z.string())
    .min(1)
    .describe('Cedar files or directories beside this file. Default: the policies of the command.')
    .optional(),
  services: z
    .array(z.union([z.string(), selectionSchema]))
    .min(1)
    .describe('As in the settings: shipped names, paths of service files, selections. Default: those of the command.')
    .optional(),
  given: z.strictObject(given).describe('Facts of all cases, unless a case says otherwise.').optional(),
  cases: z.array(testCase).min(1),
})

export type TestFile = z.output<typeof testFile>
export type TestCase = TestFile['cases'][number]

/** @param label how the file is called in faults. @throws {PolicyFaults} naming every place that is not of this form. */
export function readTestFile(text: string, label: string): TestFile {
  const written = readYaml(text, label)
  const parsed = testFile.safeParse(written)
  if (parsed.success) return parsed.data
  throwFaults(parsed.error.issues.map((issue) => faultOf(issue, written, label)))
  throw parsed.error
}

function readYaml(text: string, label: string): unknown {
  try {
    return parse(text)
  } catch (cause) {
    const got = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause)
    throwFaults([{ where: label, got, allowed: 'YAML', fix: 'correct the file there' }])
  }
}

function faultOf(issue: z.core.$ZodIssue, written: unknown, label: string): Fault {
  const where = `${label}: ${issue.path.map(String).join('.') || 'the file'}`
  if (issue.code === 'unrecognized_keys')
    return {
      where,
      got: issue.keys.join(', '),
      allowed: `${keysAt(issue.path)}; docs/policy-tests.md says what each is`,
      fix: 'remove it, or correct its spelling',
    }
  return {
    where,
    got: gotAt(issue.path, written),
    allowed: allowedBy(issue),
    fix: 'see the form in docs/policy-tests.md',
  }
}

function keysAt(path: readonly PropertyKey[]): string {
  if (path.length === 0) return Object.keys(testFile.shape).join(', ')
  if (path[0] === 'given') return Object.keys(given).join(', ')
  if (path.length === 2) return Object.keys(testCase.shape).join(', ')
  return 'fewer keys'
}

function gotAt(path: readonly PropertyKey[], written: unknown): string {
  const value = path.reduce<unknown>(
    (parent, key) => (typeof parent === 'object' ? (parent as Record<PropertyKey, unknown> | null)?.[key] : undefined),
    written,
  )
  if (value === undefined || value === null) return 'nothing'
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 120 ? `${text.slice(0, 120)}…` : text
}

/** A type in words. */
const KINDS: Readonly<Record<string, string>> = {
  array: 'a list',
  object: 'a mapping',
  record: 'a mapping',
  string: 'text',
}

function allowedBy(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_type') return KINDS[issue.expected] ?? `a value of type ${issue.expected}`
  if (issue.code === 'invalid_value') return `one of ${issue.values.map(String).join(', ')}`
  if (issue.code === 'invalid_union') return 'text, a mapping, or a list of these'
  if (issue.code === 'too_small' && issue.origin === 'array') return 'a list with something in it'
  return issue.message
}
