/** A search that misses a spelling would make every leak test pass. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { findCanary, findCanaryInTree, newCanary } from './canary.ts'

const encodings: Readonly<Record<string, (bytes: Buffer) => string>> = {
  raw: (bytes) => bytes.toString('latin1'),
  base64: (bytes) => bytes.toString('base64'),
  base64url: (bytes) => bytes.toString('base64url'),
  hex: (bytes) => bytes.toString('hex'),
  percent: (bytes) => encodeURIComponent(bytes.toString('latin1')),
  JSON: (bytes) => JSON.stringify(bytes.toString('latin1')),
}

describe('the search for a canary', () => {
  for (const [name, encode] of Object.entries(encodings)) {
    it(`finds it in ${name}, whatever surrounds it`, () => {
      const canary = newCanary()
      const around = fc.uint8Array({ maxLength: 12 })
      fc.assert(
        fc.property(around, around, (before, after) => {
          const text = encode(Buffer.concat([before, Buffer.from(canary), after]))
          expect(findCanary(Buffer.from(text, 'latin1'), canary)).not.toEqual([])
        }),
      )
    })
  }

  it('finds nothing where there is nothing', () => {
    expect(findCanary(JSON.stringify({ authorization: newCanary() }), newCanary())).toEqual([])
  })

  it('looks into every file, packed ones too', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-canary-'))
    const canary = newCanary()
    await writeFile(join(dir, 'clean'), newCanary())
    await writeFile(join(dir, 'packed'), gzipSync(`seen: ${canary}`))
    expect(await findCanaryInTree(dir, canary)).toEqual([expect.stringContaining('packed: raw at')])
    await rm(dir, { recursive: true })
  })
})
