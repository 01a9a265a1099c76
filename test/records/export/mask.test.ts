/** What is masked leaves in no format, in no member, not even as a hash that could be guessed. */
import { hash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Entry } from '../../../gateway/audit/entries/entry.ts'
import { leafHash } from '../../../gateway/audit/tree/merkle.ts'
import { FORMATS, MASKS, type Mask } from '../../../gateway/protocol/exporting.ts'
import { formats } from '../../../gateway/records/export/format.ts'
import { createMask } from '../../../gateway/records/export/mask.ts'
import { entryBytes, itemsOf, KEY, samples } from './entries.fixture.ts'

/** Mask → what must not leave under it. */
const HIDDEN: Readonly<Record<Mask, readonly string[]>> = {
  human: ['ana@acme.test', 'dGhlIGhhc2ggb2YgdGhlIGxpbmVhZ2Ugc3RlcHMgaGVyZQ'],
  address: ['10.1.2.3'],
  user_agent: ['triage-bot'],
  path: ['/repos/acme'],
  purpose: ['triage issue 42', 'triage issues', 'PAHroRngDXnIK29l1wvF8QRNVoYYv0E3fm0UMgI_wrg'],
  policies: ['policies/acme', 'sha256:abc'],
}

describe.each(FORMATS)('as %s', (name) => {
  it.each(MASKS)('no entry tells what the mask %s hides', (mask) => {
    const plain = formats[name]
      .bodies(itemsOf())
      .map(({ text }) => text)
      .join('')
    const masked = formats[name]
      .bodies(itemsOf(samples, [mask]))
      .map(({ text }) => text)
      .join('')
    const rows = itemsOf(samples, [mask]).map(formats[name].row).join('')
    for (const value of HIDDEN[mask]) expect(masked + rows).not.toContain(value)
    expect(HIDDEN[mask].some((value) => plain.includes(value))).toBe(true) // so the mask did it
    expect(masked).toContain('masked:')
  })
})

describe('a mask', () => {
  it('leaves neither the leaf hash of an entry nor the entry itself, from which the rest could be guessed', () => {
    const leaves = entryBytes().map((bytes) => leafHash(bytes))
    for (const name of FORMATS) {
      const text = formats[name]
        .bodies(itemsOf(samples, ['human']))
        .map((body) => body.text)
        .join('')
      for (const leaf of leaves)
        for (const form of ['base64', 'hex', 'base64url'] as const) expect(text).not.toContain(leaf.toString(form))
    }
  })

  it('gives equal values equal masks, in every member and every entry, and others others', () => {
    const mask = createMask(['human', 'path'], KEY)
    const [one, two, other] = ['ana', 'ana', 'ben'].map((sub, i) =>
      mask(entry({ human: { iss: 'i', sub }, lineage: [{ type: 'human', id: sub }], seq: i })),
    )
    expect(one?.human?.sub).toBe(two?.human?.sub)
    expect(one?.lineage?.[0]?.id).toBe(one?.human?.sub)
    expect(one?.human?.sub).not.toBe(other?.human?.sub)
  })

  it('is keyed: without the key nobody can try names', () => {
    const masked = createMask(['human'], KEY)(entry({ human: { iss: 'i', sub: 'ana' } })).human?.sub as string
    for (const form of ['base64url', 'hex', 'base64'] as const)
      expect(masked).not.toContain(hash('sha256', 'ana', form).slice(0, 16))
  })

  it('reaches a name in the middle of any text of the entry, and leaves words that merely contain it', () => {
    const masked = createMask(
      ['human'],
      KEY,
    )(
      entry({
        human: { iss: 'i', sub: 'ana' },
        facts: { error: 'ana has no analysis: ask (ana)' },
      }),
    )
    expect(masked.facts?.error).toMatch(/^masked:\S+ has no analysis: ask \(masked:\S+\)$/)
  })

  it('reaches a name that a path spells otherwise', () => {
    const path = '/users/ana%40acme.test/ANA@acme.test/anas'
    const target = { host: 'api.test', method: 'GET', path, port: 443, scheme: 'https' }
    const masked = createMask(['human'], KEY)(entry({ human: { iss: 'i', sub: 'ana@acme.test' }, target }))
    expect(masked.target?.path).toMatch(/^\/users\/masked:[\w-]+\/masked:[\w-]+\/anas$/)
  })

  it('hides whom and what a reader of the records asked for', () => {
    const filter = { human: 'ana', ancestor: 'i ana', text: 'triage issue', kind: 'call' }
    const facts = { log: 'l', reader: 'siem', address: '10.1.2.3', filter, found: 3 }
    const masked = createMask(['human', 'address'], KEY)(entry({ kind: 'admin.records_read', facts }))
    const hidden = expect.stringMatching(/^masked:\S+$/)
    expect(masked.facts).toEqual({
      ...facts,
      address: hidden,
      filter: { human: hidden, ancestor: hidden, text: hidden, kind: 'call' },
    })
  })

  it.each([
    ['path', 'This grant covers it only at: /repos/secret/**. Ask the grantor for a grant that covers this path.'],
    ['address', "The caller's address 10.1.2.3 is outside 10.9.0.0/16 (source). Call from there."],
    ['human', 'no issuer "https://id.test" with subjects like "bo" is configured for this under trust.issuers'],
  ] as const)('hides what a refusal quotes of the grant, which is not in the entry: %s', (mask, detail) => {
    const masked = createMask([mask], KEY)(entry({ decision: { effect: 'deny', code: 'scope_exceeded', detail } }))
    expect(masked.decision).toEqual({
      effect: 'deny',
      code: 'scope_exceeded',
      detail: expect.stringMatching(/^masked:\S+$/),
    })
  })

  it('keeps number, time, kind and log, whatever people are called', () => {
    const masked = createMask(MASKS, KEY)(entry({ log: 'ana', kind: 'call.decision', human: { iss: 'i', sub: 'ana' } }))
    expect(masked).toMatchObject({ v: 'ar/1', seq: 0, kind: 'call.decision', log: 'ana' })
  })

  it('hides any value at all, with whatever characters, and keeps the rest as it is', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 6 }), (sub) => {
        const given = entry({
          human: { iss: 'i', sub },
          lineage: [{ type: 'human', id: `iss#${sub}` }],
          facts: { by: sub, n: 7 },
        })
        const masked = createMask(['human'], KEY)(given)
        expect(JSON.stringify([masked.human?.sub, masked.lineage, masked.facts])).not.toContain(
          JSON.stringify(sub).slice(1, -1),
        )
        expect(masked.facts?.n).toBe(7)
      }),
    )
  })
})

function entry(members: Partial<Entry>): Entry {
  return { v: 'ar/1', seq: 0, ts: '2026-11-22T10:00:00.000Z', kind: 'call.decision', ...members }
}
