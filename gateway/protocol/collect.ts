/** A stream read whole, within bounds that whoever asks for it sets. Knows neither what it is nor what for. */
import type { Readable } from 'node:stream'
import type { GatewayError } from './problem.ts'

export interface CollectTerms {
  readonly maxBytes: number
  /** Nobody may keep this much memory, or a decision open, for as long as they like. */
  readonly withinMs: number
  /** What to reject with: it is longer than `maxBytes`, has not ended `withinMs` after this call, or broke off. */
  refuse(fault: 'long' | 'late' | 'broken'): GatewayError
}

/** On a refusal the stream is left paused, with what it still has, to whoever answers. One that broke off already tells nobody of it any more. */
export function collect(stream: Readable, { maxBytes, withinMs, refuse }: CollectTerms): Promise<Buffer> {
  if (stream.destroyed) return Promise.reject(refuse('broken'))
  const chunks: Buffer[] = []
  let length = 0
  return new Promise((resolve, reject) => {
    const settle = (outcome: () => void) => {
      clearTimeout(timer)
      stream.off('data', add).off('end', finish).off('error', breakOff).off('close', breakOff)
      stream.pause()
      outcome()
    }
    const add = (chunk: Buffer) => {
      length += chunk.length
      if (length > maxBytes) settle(() => reject(refuse('long')))
      else chunks.push(chunk)
    }
    const finish = () => settle(() => resolve(Buffer.concat(chunks)))
    const breakOff = () => settle(() => reject(refuse('broken')))
    const timer = setTimeout(() => settle(() => reject(refuse('late'))), withinMs)
    stream.on('data', add).on('end', finish).on('error', breakOff).on('close', breakOff)
  })
}
