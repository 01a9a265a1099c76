/** Leaves and roots of the Certificate Transparency reference tree (RFC 6962 test data, kept by transparency-dev/merkle). */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  consistencyProof,
  EMPTY_ROOT,
  Frontier,
  inclusionProof,
  leafHash,
  leafHashIn,
  nodeHash,
  treeRoot,
  verifyConsistency,
  verifyInclusion,
} from '../../gateway/audit/tree/merkle.ts'

const hex = (text: string) => Buffer.from(text, 'hex')
const LEAVES = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'].map(
  (text) => leafHash(hex(text)),
)
const ROOTS = [
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
].map(hex)
const root = (size: number) => ROOTS[size] as Buffer

describe('the reference tree', () => {
  it('has the published root at every size', () => {
    const frontier = new Frontier()
    expect(EMPTY_ROOT).toEqual(root(0))
    expect(frontier.root()).toEqual(root(0))
    LEAVES.forEach((leaf, i) => {
      frontier.append(leaf)
      expect(frontier.root()).toEqual(root(i + 1))
    })
  })

  it('has the published inclusion proofs', () => {
    expect(inclusionProof(LEAVES, 0).map((node) => node.toString('hex'))).toEqual([
      '96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7',
      '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
      '6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4',
    ])
    expect(inclusionProof(LEAVES, 5).map((node) => node.toString('hex'))).toEqual([
      'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b',
      'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0',
      'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    ])
  })

  it('has the published consistency proofs', () => {
    const proof = consistencyProof(LEAVES, 6).map((node) => node.toString('hex'))
    expect(proof).toEqual([
      '0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a',
      'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0',
      'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    ])
    expect(verifyConsistency({ size: 6, root: root(6) }, { size: 8, root: root(8) }, proof.map(hex))).toBe(true)
    expect(verifyConsistency({ size: 6, root: root(5) }, { size: 8, root: root(8) }, proof.map(hex))).toBe(false)
  })
})

/** Leaves that differ: of two equal ones, one is proved by the other's proof. */
const tree = fc
  .array(fc.uint8Array({ maxLength: 8 }), { minLength: 1, maxLength: 70 })
  .map((entries) => entries.map((entry, i) => leafHash(Buffer.from([i, ...entry]))))

describe('any tree', () => {
  it('grows by its frontier to the same root, and the frontier can be put down and taken up', () => {
    fc.assert(
      fc.property(tree, fc.nat(), (leaves, at) => {
        let frontier = new Frontier()
        leaves.forEach((leaf, i) => {
          if (i === at % leaves.length) frontier = new Frontier(frontier.size, frontier.peaks)
          frontier.append(leaf)
        })
        expect(frontier.root()).toEqual(byDefinition(leaves))
        expect(treeRoot(leaves)).toEqual(byDefinition(leaves))
      }),
    )
  })

  it('proves every leaf, and no other leaf, index, size or root', () => {
    fc.assert(
      fc.property(tree, fc.nat(), (leaves, n) => {
        const index = n % leaves.length
        const leaf = leaves[index] as Buffer
        const at = { index, size: leaves.length }
        const proof = inclusionProof(leaves, index)
        const whole = treeRoot(leaves)
        expect(verifyInclusion(leaf, at, proof, whole)).toBe(true)
        expect(verifyInclusion(leafHash(Buffer.from('another')), at, proof, whole)).toBe(false)
        expect(verifyInclusion(leaf, { ...at, index: index + 1 }, proof, whole)).toBe(false)
        expect(verifyInclusion(leaf, at, [...proof, leaf], whole)).toBe(false)
        expect(verifyInclusion(leaf, at, proof, leaf.equals(whole) ? EMPTY_ROOT : leaf)).toBe(false)
        if (proof.length > 0) expect(verifyInclusion(leaf, at, proof.slice(1), whole)).toBe(false)
      }),
    )
  })

  it('proves every prefix of itself, and no other', () => {
    fc.assert(
      fc.property(tree, fc.nat(), (leaves, n) => {
        const size = n % (leaves.length + 1)
        const first = { size, root: treeRoot(leaves.slice(0, size)) }
        const second = { size: leaves.length, root: treeRoot(leaves) }
        const proof = consistencyProof(leaves, size)
        expect(verifyConsistency(first, second, proof)).toBe(true)
        expect(verifyConsistency({ size, root: leafHash(Buffer.from('another')) }, second, proof)).toBe(false)
        expect(verifyConsistency(second, first, proof)).toBe(size === leaves.length)
        if (proof.length > 0) expect(verifyConsistency(first, second, proof.slice(1))).toBe(false)
        expect(verifyConsistency(first, second, [...proof, first.root])).toBe(false)
      }),
    )
  })

  it('is not taken for one whose node passes as a leaf', () => {
    const [a, b] = LEAVES as [Buffer, Buffer]
    expect(leafHash(Buffer.concat([a, b]))).not.toEqual(nodeHash(a, b))
  })
})

it('refuses a frontier whose peaks do not fit its size', () => {
  expect(() => new Frontier(3, [EMPTY_ROOT])).toThrow('has 2 peaks, not 1')
})

/** RFC 9162 §2.1.1, word for word. */
function byDefinition(leaves: readonly Buffer[]): Buffer {
  if (leaves.length === 0) return EMPTY_ROOT
  if (leaves.length === 1) return leaves[0] as Buffer
  let k = 1
  while (k * 2 < leaves.length) k *= 2
  return nodeHash(byDefinition(leaves.slice(0, k)), byDefinition(leaves.slice(k)))
}

it('a leaf that is hashed where it lies has the same hash, and only the byte in front of it changes', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.uint8Array({ minLength: 1 }),
      fc.uint8Array(),
      (entry, front, behind) => {
        const bytes = Buffer.concat([front, entry, behind])
        const hash = leafHashIn(bytes, front.length, front.length + entry.length)
        expect(hash).toEqual(leafHash(entry))
        front[front.length - 1] = 0x00
        expect(bytes).toEqual(Buffer.concat([front, entry, behind]))
      },
    ),
  )
})
