/** Policy files on disk: found, split into policies, their annotations read. Validation against the schema is in `bundle.ts`. */

import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import { type PolicyJson, policySetTextToParts, policyToJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Obligations } from '../../protocol/decision.ts'
import { readAnnotations } from '../annotation.ts'
import type { Fault } from '../fault.ts'
import { NO_OBLIGATIONS } from '../obligation.ts'
import { asksOf } from '../scope.ts'
import { isUnchosenPack } from '../tools/packs.ts'

export interface Policy {
  /** Unique in the bundle: `<directory>/<file>#<@id>`. */
  readonly id: string
  readonly owner: string
  /** `2027-01-31`, from @review. */
  readonly review?: string
  readonly text: string
  readonly json: PolicyJson
  readonly obligations: Obligations
  readonly file: string
  /** Line in `file` where the policy begins, from 1. */
  readonly line: number
}

/** A file as ids and messages name it, and what it holds. */
export interface SourceFile {
  /** `<directory>/<file>`. */
  readonly label: string
  readonly text: string
}

/** Policy files in the places given; what is wrong goes to `faults`. */
export async function findSources(paths: readonly string[], faults: Fault[]): Promise<SourceFile[]> {
  const files: SourceFile[] = []
  for (const [index, path] of paths.entries()) {
    if (paths.indexOf(path) === index) files.push(...(await readSources(path, faults)))
    else
      faults.push({
        where: 'policies',
        got: `${path} twice`,
        allowed: 'each place once; `shipped` is the directory `policies` of Keyless itself',
        fix: 'name it once, and another directory for policies of your own',
      })
  }
  return files
}

/** Every policy in these files; what is wrong goes to `faults`. */
export function readPolicies(files: readonly SourceFile[], faults: Fault[]): Policy[] {
  const policies = files.flatMap((file) => splitFile(file, faults))
  const seen = new Map<string, Policy>()
  for (const policy of policies) {
    const first = seen.get(policy.id)
    if (first === undefined) seen.set(policy.id, policy)
    else {
      const at = `${first.file}:${first.line}`
      faults.push({
        where: `${policy.file}:${policy.line}`,
        got: `a second policy ${policy.id}, after ${at}`,
        allowed: 'each @id once in a file',
        fix: 'give one of them another @id',
      })
    }
  }
  return policies
}

async function readSources(path: string, faults: Fault[]): Promise<SourceFile[]> {
  try {
    if (!(await stat(path)).isDirectory()) return [{ label: basename(path), text: await readFile(path, 'utf8') }]
    const found = (await readdir(path, { recursive: true }))
      .filter((name) => name.endsWith('.cedar') && !isUnchosenPack(path, join(path, name)))
      .sort()
    if (found.length === 0) throw new Error('it holds no *.cedar file')
    return await Promise.all(
      found.map(async (name) => ({
        label: join(basename(path), relative(path, join(path, name))),
        text: await readFile(join(path, name), 'utf8'),
      })),
    )
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message
    faults.push({
      where: 'policies',
      got: `${path} (${reason})`,
      allowed: 'a *.cedar file, or a directory that holds some',
      fix: 'correct the path',
    })
    return []
  }
}

function splitFile(file: SourceFile, faults: Fault[]): Policy[] {
  const parts = policySetTextToParts(file.text)
  if (parts.type === 'failure') {
    for (const error of parts.errors) {
      const place = error.sourceLocations?.[0]
      const expected = place?.label ?? error.help ?? 'Cedar policies'
      faults.push({
        where: `${file.label}:${lineAt(file.text, place?.start ?? 0)}`,
        got: error.message,
        allowed: expected,
        fix: 'correct the policy here',
      })
    }
    return []
  }
  const lineOf = lineFinder(file.text)
  for (const template of parts.policy_templates) {
    const line = lineOf(template)
    faults.push({
      where: `${file.label}:${line}`,
      got: 'a template',
      allowed: 'static policies: nothing links templates here',
      fix: 'write principal and resource out',
    })
  }
  return parts.policies
    .flatMap((text) => readPolicy(file, { text, line: lineOf(text) }, faults))
    .sort((a, b) => a.line - b.line)
}

interface Part {
  readonly text: string
  readonly line: number
}

function readPolicy(file: SourceFile, { text, line }: Part, faults: Fault[]): Policy[] {
  const where = `${file.label}:${line}`
  const parsed = policyToJson(text)
  if (parsed.type === 'failure') {
    faults.push(
      ...parsed.errors.map((error) => ({
        where,
        got: error.message,
        allowed: error.help ?? 'a Cedar policy',
        fix: 'correct the policy here',
      })),
    )
    return []
  }
  const annotated = readAnnotations(parsed.json.annotations ?? {}, parsed.json.effect, asksOf(parsed.json))
  if (Array.isArray(annotated)) faults.push(...annotated.map((fault) => ({ where, ...fault })))
  // A policy without a usable name is still validated, so that one run shows all that is wrong with it.
  const { id, owner, review, obligations } = Array.isArray(annotated)
    ? { id: `line ${line}`, owner: '', obligations: NO_OBLIGATIONS }
    : annotated
  const unique = `${file.label.replace(/\.cedar$/, '')}#${id}`
  const told = { id: unique, owner, ...(review && { review }), obligations }
  return [{ ...told, text, json: parsed.json, file: file.label, line }]
}

/** The line from 1 on which a part begins. Parts come about in the order of the file, so each is looked for behind the last. */
function lineFinder(source: string): (part: string) => number {
  const starts = [0]
  for (let at = source.indexOf('\n'); at !== -1; at = source.indexOf('\n', at + 1)) starts.push(at + 1)
  let from = 0
  return (part) => {
    const behind = source.indexOf(part, from)
    const index = behind === -1 ? source.indexOf(part) : behind
    if (index !== -1) from = index + part.length
    return Math.max(1, upperBound(starts, index))
  }
}

/** How many of these ascending numbers are not above `limit`. */
function upperBound(ascending: readonly number[], limit: number): number {
  let [low, high] = [0, ascending.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((ascending[middle] as number) <= limit) low = middle + 1
    else high = middle
  }
  return low
}

/** Line from 1 of a byte offset: Cedar counts in UTF-8. */
export function lineAt(source: string, byteOffset: number): number {
  let line = 1
  for (const byte of Buffer.from(source).subarray(0, byteOffset)) if (byte === 0x0a) line++
  return line
}
