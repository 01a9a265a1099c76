/** The program of a thread that examines blocks of the log for the verifier. */
import { parentPort, workerData } from 'node:worker_threads'
import { blockReader } from './block.ts'

const read = blockReader(workerData === 'whole')

parentPort?.on('message', ({ id, bytes }: { readonly id: number; readonly bytes: Uint8Array<ArrayBuffer> }) => {
  const block = read(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  parentPort?.postMessage({ id, block }, [block.leaves.buffer as ArrayBuffer])
})
