/** The part of the composition root that reaches engines outside the gateway: gives each its way out, its secrets, or its thread. */
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Catalogue } from '../policy/catalogue/catalogue.ts'
import { type Answer, MAX_ANSWER_BYTES, none, readDecision, readResult } from '../policy/outside/answer.ts'
import { readOpaBundle } from '../policy/outside/opa-bundle.ts'
import { OpaThread } from '../policy/outside/opa-thread.ts'
import { createOutside, type Outside, type OutsideEngine } from '../policy/outside/outside.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'
import { createReader } from '../provider/reader.ts'
import type { PolicyEngineSettings } from '../settings/policy-engines.ts'
import type { Settings } from '../settings.ts'
import type { Ways } from './policy-source.ts'

export interface HouseEngines {
  readonly outside: Outside
  /** Each with what decides there, as far as that is known. */
  readonly described: readonly string[]
  close(): Promise<void>
}

interface Parts extends Ways {
  readonly catalogue: Pick<Catalogue, 'knows'>
}

/** @returns undefined where settings name none. @throws {Error} naming the engine that cannot be used. */
export async function openEngines({ policy }: Settings, parts: Parts): Promise<HouseEngines | undefined> {
  if (policy.engines.length === 0) return undefined
  requireKnown(policy.engines, parts.catalogue)
  const threads: OpaThread[] = []
  const engines: OutsideEngine[] = []
  const described: string[] = []
  try {
    for (const one of policy.engines) {
      const common = {
        name: one.name,
        operations: one.for,
        facts: one.facts && new Set(one.facts),
        cacheS: one.cache_s,
        timeoutMs: one.timeout_ms,
      }
      if (one.kind !== 'opa_wasm') {
        described.push(`${one.name} ${one.kind} ${one.url}`)
        engines.push({ ...common, ask: overHttp(one, parts) })
        continue
      }
      const { digest, ...bundle } = await bundleAt(one)
      described.push(`${one.name} ${one.kind} ${digest}`)
      const thread = new OpaThread({ ...bundle, entrypoint: one.entrypoint })
      threads.push(thread)
      await thread.begin().catch((cause: Error) => refuse(one, cause.message))
      engines.push({ ...common, ask: async (q, about, signal) => readResult(await thread.evaluate(q, signal), about) })
    }
  } catch (cause) {
    await Promise.all(threads.map((thread) => thread.close()))
    throw cause
  }
  return {
    outside: createOutside(engines, () => parts.clock.elapsedMs()),
    described,
    async close() {
      await Promise.all(threads.map((thread) => thread.close()))
    },
  }
}

/** A pattern that nothing matches would look like protection. */
function requireKnown(engines: readonly PolicyEngineSettings[], catalogue: Parts['catalogue']): void {
  for (const { name, for: patterns = [] } of engines) {
    const unknown = patterns.find((pattern) => !pattern.startsWith('unmanaged:') && !catalogue.knows(pattern))
    if (unknown !== undefined)
      throw new Error(
        `policy.engines, ${name}: no service here has an operation ${unknown}. Correct \`for\`, or add the service.`,
      )
  }
}

async function bundleAt(one: PolicyEngineSettings & { readonly kind: 'opa_wasm' }) {
  try {
    const bytes = await readFile(one.file)
    return { ...readOpaBundle(bytes), digest: `sha256:${hash('sha256', bytes)}` }
  } catch (cause) {
    return refuse(one, `${one.file}: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
}

function refuse({ name }: PolicyEngineSettings, why: string): never {
  throw new Error(`policy.engines, ${name}: ${why}.`)
}

type OverHttp = PolicyEngineSettings & { readonly kind: 'authzen' | 'opa' }

/** AuthZEN 1.0 §10.1: an error is a status, a decision is a 200. OPA answers 200 with `{}` where the document is undefined. */
function overHttp(
  { kind, url, headers = {}, addresses = [] }: OverHttp,
  { fetchFor, readSecret }: Ways,
): OutsideEngine['ask'] {
  let post: ReturnType<typeof createReader> | undefined
  return async (question, about, signal): Promise<Answer> => {
    post ??= createReader({ fetch: fetchFor(addresses), headers, readSecret }) // what fetches is built after the policies
    const json = JSON.stringify(kind === 'opa' ? { input: question } : question)
    const { status, body } = await post(url, { json, signal })
    if (status !== 200) return none(`it answered ${status}`)
    if (body.length > MAX_ANSWER_BYTES) return none(`its answer is larger than ${MAX_ANSWER_BYTES} bytes`)
    const answer = parsed(body)
    if (kind === 'authzen') return readDecision(answer, about)
    if (typeof answer !== 'object' || answer === null || Array.isArray(answer))
      return none('the answer is no JSON object')
    return readResult((answer as { readonly result?: unknown }).result, about)
  }
}

function parsed(body: Buffer): unknown {
  try {
    return parseStrictJson(body.toString('utf8')) // whoever reads the first of two members would read another answer
  } catch {
    return undefined
  }
}
