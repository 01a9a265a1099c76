import { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { expect, test } from 'vitest'
import { collect } from '../../gateway/protocol/collect.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'

const WITHIN_MS = 600_000
const terms = {
  maxBytes: 5,
  withinMs: WITHIN_MS,
  refuse: (fault: string) => new GatewayError('request_malformed', fault),
}

test('a stream is read whole, up to its bound', async () => {
  expect(await collect(Readable.from([Buffer.from('ab'), Buffer.from('cde')]), terms)).toEqual(Buffer.from('abcde'))
  await expect(collect(Readable.from([Buffer.from('abc'), Buffer.from('def')]), terms)).rejects.toThrow('long')
})

test('a stream that breaks off is refused then, and one that had broken off before at once', async () => {
  const breaking = new Readable({ read: () => {} })
  const collected = collect(breaking, terms)
  breaking.push('ab')
  breaking.destroy()
  await expect(collected).rejects.toThrow('broken')

  const broken = new Readable({ read: () => {} })
  broken.destroy()
  await expect(finished(broken)).rejects.toThrow()
  await expect(collect(broken, terms)).rejects.toThrow('broken')
})
