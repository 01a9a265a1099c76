/** What a caller has to prove of the keys that a grant is bound to. */
import { describe, expect, it } from 'vitest'
import { isProved } from '../../gateway/grant/chain/presented.ts'
import type { Confirmation } from '../../gateway/protocol/grant.ts'

const jkt = 'j'.repeat(43)
const x5t = 'c'.repeat(43)
const other = 'o'.repeat(43)

describe('a grant', () => {
  it.each<[string, Confirmation | undefined, Confirmation | undefined, boolean]>([
    ['to nothing, of whoever has it', undefined, undefined, true],
    ['to nothing, of whoever proves something else', undefined, { jkt }, true],
    ['to a key', { jkt }, { jkt }, true],
    ['to a key that nobody proves', { jkt }, undefined, false],
    ['to another key', { jkt }, { jkt: other }, false],
    ['to a key, with a certificate in its place', { jkt }, { 'x5t#S256': jkt }, false],
    ['to a certificate', { 'x5t#S256': x5t }, { jkt: other, 'x5t#S256': x5t }, true],
    ['to another certificate', { 'x5t#S256': x5t }, { 'x5t#S256': other }, false],
    ['to both, with one of them', { jkt, 'x5t#S256': x5t }, { jkt }, false],
    ['to both, with the other of them', { jkt, 'x5t#S256': x5t }, { 'x5t#S256': x5t }, false],
    ['to both', { jkt, 'x5t#S256': x5t }, { jkt, 'x5t#S256': x5t }, true],
    ['to something, and it is not said to what', {}, { jkt, 'x5t#S256': x5t }, false],
  ])('bound %s', (_, cnf, proof, isFine) => {
    expect(isProved(cnf, proof)).toBe(isFine)
  })
})
