/** The key and note of golang.org/x/mod/sumdb/note's own tests; checkpoints by C2SP tlog-checkpoint. */
import { generateKeyPairSync, sign, verify } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkpointSigner, openCheckpoint } from '../../gateway/audit/tree/checkpoint.ts'
import { EMPTY_ROOT } from '../../gateway/audit/tree/merkle.ts'
import { formatVerifier, NoteRefused, noteVerifier, parseVerifier } from '../../gateway/audit/tree/note.ts'

const PETER = 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW'
const PETER_TEXT =
  "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
const PETER_SIGNATURE = 'x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM='

const keys = () => generateKeyPairSync('ed25519')
const root = EMPTY_ROOT

describe('verifier keys', () => {
  it('reads the key of the Go reference, checks its signature, and writes it back byte for byte', () => {
    const peter = parseVerifier(PETER)
    const signature = Buffer.from(PETER_SIGNATURE, 'base64')
    expect(signature.subarray(0, 4)).toEqual(peter.keyId)
    expect(verify(null, Buffer.from(PETER_TEXT), peter.publicKey, signature.subarray(4))).toBe(true)
    expect(formatVerifier(peter)).toBe(PETER)
  })

  it('refuses every piece of a key that is not the whole', () => {
    for (let i = 0; i < PETER.length; i++) {
      expect(() => parseVerifier(PETER.slice(0, i)), PETER.slice(0, i)).toThrow(NoteRefused)
      if (i > 0) expect(() => parseVerifier(PETER.slice(i)), PETER.slice(i)).toThrow(NoteRefused)
    }
  })

  it('refuses a wrong length and an unknown algorithm even under the right id', () => {
    expect(() => parseVerifier('PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==')).toThrow(
      NoteRefused,
    )
    expect(() => parseVerifier('PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW')).toThrow(
      NoteRefused,
    )
  })

  it('refuses names that cannot stand in a signature line', () => {
    for (const name of ['', 'two words', 'a+b', 'no\u00a0break'])
      expect(() => noteVerifier(name, keys().publicKey)).toThrow(NoteRefused)
  })

  it('refuses keys that are not Ed25519', () => {
    expect(() => noteVerifier('log', generateKeyPairSync('ed448').publicKey)).toThrow('must be an Ed25519 key')
  })
})

describe('checkpoints', () => {
  it('come back as they were signed', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.uint8Array({ minLength: 32, maxLength: 32 }), (size, bytes) => {
        const { privateKey, publicKey } = keys()
        const note = checkpointSigner('example.com/log', privateKey)({ size, root: Buffer.from(bytes) })
        const opened = openCheckpoint(Buffer.from(note), noteVerifier('example.com/log', publicKey))
        expect(opened).toEqual({ origin: 'example.com/log', size, root: Buffer.from(bytes) })
      }),
      { numRuns: 20 },
    )
  })

  it('have exactly the form of the specification', () => {
    const { privateKey } = keys()
    const note = checkpointSigner('example.com/log', privateKey)({ size: 20852163, root })
    expect(note).toMatch(
      /^example\.com\/log\n20852163\n47DEQpj8HBSa\+\/TImW\+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— example\.com\/log [A-Za-z0-9+/]{91}=\n$/,
    )
  })

  it('are believed with signatures of strangers around', () => {
    const { privateKey, publicKey } = keys()
    const note = checkpointSigner('log', privateKey)({ size: 1, root })
    const strangers = `— witness.example ${Buffer.alloc(68).toString('base64')}\n— log ${Buffer.alloc(68, 1).toString('base64')}\n`
    expect(openCheckpoint(Buffer.from(note + strangers), noteVerifier('log', publicKey)).size).toBe(1)
  })

  it('are refused when a known key fails, though it also signed rightly', () => {
    const { privateKey, publicKey } = keys()
    const verifier = noteVerifier('log', publicKey)
    const note = checkpointSigner('log', privateKey)({ size: 1, root })
    const forged = `— log ${Buffer.concat([verifier.keyId, Buffer.alloc(64)]).toString('base64')}\n`
    expect(() => openCheckpoint(Buffer.from(note + forged), verifier)).toThrow(
      'signature of log on the checkpoint is wrong',
    )
  })

  it('are refused from another key, from another log, and after any change', () => {
    const { privateKey, publicKey } = keys()
    const verifier = noteVerifier('log', publicKey)
    const note = checkpointSigner('log', privateKey)({ size: 12, root })
    expect(() => openCheckpoint(Buffer.from(note), noteVerifier('log', keys().publicKey))).toThrow('not signed by log')
    expect(() => openCheckpoint(Buffer.from(note), noteVerifier('other', publicKey))).toThrow('not signed by other')
    expect(() => openCheckpoint(Buffer.from(note.replace('12', '13')), verifier)).toThrow(NoteRefused)
  })

  it('are refused when the key is ours and the origin is not', () => {
    const { privateKey, publicKey } = keys()
    const verifier = noteVerifier('log', publicKey)
    const text = `other\n1\n${root.toString('base64')}\n`
    const line = `— log ${Buffer.concat([verifier.keyId, sign(null, Buffer.from(text), privateKey)]).toString('base64')}\n`
    expect(() => openCheckpoint(Buffer.from(`${text}\n${line}`), verifier)).toThrow('is of the log "other"')
  })

  it.each([
    ['no signature', `log\n1\n${root.toString('base64')}\n`],
    ['no blank line', `log\n1\n${root.toString('base64')}\n— log AAAAAAAA\n`],
    ['a carriage return', 'log\r\n1\r\n\r\n— log AAAAAAAA\r\n'],
    ['a hyphen for the em dash', `log\n1\n${root.toString('base64')}\n\n- log AAAAAAAA\n`],
    ['no final line feed', `log\n1\n${root.toString('base64')}\n\n— log AAAAAAAA`],
    ['nothing', ''],
  ])('are refused with %s', (_, note) => {
    expect(() => openCheckpoint(Buffer.from(note), noteVerifier('log', keys().publicKey))).toThrow(NoteRefused)
  })

  it.each([
    ['a leading zero in the size', `log\n01\n${root.toString('base64')}\n`],
    ['a size beyond exact numbers', `log\n9007199254740993\n${root.toString('base64')}\n`],
    ['a short root', 'log\n1\nAAAA\n'],
    ['no root', 'log\n1\n'],
    ['an empty extension line', `log\n1\n${root.toString('base64')}\n\n`],
  ])('are refused with %s, though rightly signed', (_, text) => {
    const { privateKey, publicKey } = keys()
    const verifier = noteVerifier('log', publicKey)
    const line = `— log ${Buffer.concat([verifier.keyId, sign(null, Buffer.from(text), privateKey)]).toString('base64')}\n`
    expect(() => openCheckpoint(Buffer.from(`${text}\n${line}`), verifier)).toThrow(NoteRefused)
  })

  it('are refused when they are not UTF-8', () => {
    const { privateKey, publicKey } = keys()
    const note = Buffer.from(checkpointSigner('log', privateKey)({ size: 1, root }))
    expect(() => openCheckpoint(Buffer.concat([Buffer.of(0xff), note]), noteVerifier('log', publicKey))).toThrow(
      'not UTF-8',
    )
  })
})
