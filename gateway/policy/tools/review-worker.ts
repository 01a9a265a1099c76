/** The program of a thread that checks policies before they are taken up: validation holds a thread for as long as a second. */
import { parentPort } from 'node:worker_threads'
import { loadCatalogue } from '../catalogue/catalogue.ts'
import { type Fault, PolicyFaults } from '../fault.ts'
import { review } from '../source/bundle.ts'
import type { ToReview, WasReviewed } from './review-thread.ts'

parentPort?.on('message', ({ id, paths, source }: ToReview) => {
  reviewed(paths, source).then(
    (answer) => parentPort?.postMessage({ id, ...answer } satisfies WasReviewed),
    (cause: unknown) => parentPort?.postMessage({ id, faults: faultsOf(cause) } satisfies WasReviewed),
  )
})

async function reviewed(paths: ToReview['paths'], source: ToReview['source']) {
  const catalogue = await loadCatalogue(source)
  return { catalogue: catalogue.digest, reviewed: await review({ paths, catalogue }) }
}

function faultsOf(cause: unknown): readonly Fault[] {
  if (cause instanceof PolicyFaults) return cause.faults
  const got = cause instanceof Error ? cause.message : String(cause)
  return [{ where: 'policies', got, allowed: 'policies that Cedar can validate', fix: 'correct them' }]
}
