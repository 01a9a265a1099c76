/** The thread that compresses closed segments, one after the other, and answers which of them it could not. */
import { setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'
import { type ClosedSegment, compressSegment } from './compress.ts'

/** What is said of a segment that stays as it is. */
export interface Failure {
  readonly first: number
  readonly message: string
  /** The error is the system's, and may pass; otherwise the text is not what was logged. */
  readonly code: string | undefined
}

// On Linux a priority is the thread's own; elsewhere it would be that of the whole gateway.
if (process.platform === 'linux') setPriority(10)
parentPort?.on('message', async (segments: readonly ClosedSegment[]) => {
  const failures: Failure[] = []
  for (const segment of segments) {
    try {
      await compressSegment(segment)
    } catch (cause) {
      const { message, code } = cause as NodeJS.ErrnoException
      failures.push({ first: segment.first, message, code })
    }
  }
  parentPort?.postMessage(failures)
})
