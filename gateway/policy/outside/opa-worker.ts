/** The program of a thread that evaluates Rego compiled to wasm: what it cannot finish in time can only be stopped with its thread. */
import { parentPort, workerData } from 'node:worker_threads'
import type { OpaAnswer, OpaInput, OpaWork } from './opa-thread.ts'

/** Of 64 KiB. */
const MAX_PAGES = 2_048

const { wasm, data, entrypoint } = workerData as OpaWork
const { loadPolicy } = await import('@open-policy-agent/opa-wasm')
const policy = await loadPolicy(wasm as Uint8Array<ArrayBuffer>, { initial: 5, maximum: MAX_PAGES })
if (data !== undefined) policy.setData(JSON.parse(data))
const known = Object.keys(policy.entrypoints)
if (entrypoint !== undefined && !known.includes(entrypoint))
  throw new Error(`it has no entrypoint ${entrypoint}; it has ${known.join(', ')}`)
parentPort?.on('message', ({ id, input }: OpaInput) => {
  try {
    // The set of results is empty where the rule is undefined.
    const set: unknown = policy.evaluate(input, entrypoint ?? 0)
    const [first] = set as readonly [{ readonly result?: unknown }?]
    parentPort?.postMessage({ id, result: first?.result } satisfies OpaAnswer)
  } catch {
    parentPort?.postMessage({ id, failed: true } satisfies OpaAnswer)
  }
})
parentPort?.postMessage({ id: 0 } satisfies OpaAnswer)
