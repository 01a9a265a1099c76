/** Bait is found wherever an agent sends it, however clients wrap it, and whoever sends it learns no more than of any credential. */
import { gzipSync } from 'node:zlib'
import { expect, it } from 'vitest'
import { type CanaryLook, canaryDigest, createCanaries, LOOKS } from '../../gateway/protocol/canary.ts'
import type { Inbound } from '../../gateway/protocol/message.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import { inHead, seeking, type UsedCanary } from '../../gateway/upstream/bait.ts'
import { inspect } from '../../gateway/upstream/inspection.ts'
import { loadSecretRules } from '../../gateway/upstream/secret-rules.ts'

const looks = Object.keys(LOOKS) as CanaryLook[]
const tokens = Object.fromEntries(looks.map((look) => [look, LOOKS[look].make()])) as Record<CanaryLook, string>
const planted = Object.fromEntries(looks.map((look) => [look, { look, sha256: canaryDigest(tokens[look]) }]))
const canaries = createCanaries(planted)

function seekerOf(inbound: Inbound) {
  const used: UsedCanary[] = []
  const find = (text: string) => canaries?.find(text)
  return { used, found: seeking({ find, seen: (one) => used.push(one) }, inbound, undefined) }
}

const inbound = (o: Partial<Inbound> = {}) =>
  ({ rawHeaders: [], rawPath: '/', presented: null, body: {}, ...o }) as unknown as Inbound

it.each(looks)('%s: in fields, path, query and in place of a grant, also escaped and in Base64', (look) => {
  const token = tokens[look]
  const places: [Inbound, string][] = [
    [inbound({ rawHeaders: ['Authorization', `Bearer ${token}`] }), 'header authorization'],
    [inbound({ rawHeaders: ['Cookie', `a=${Buffer.from(`x:${token}`).toString('base64')}`] }), 'header cookie'],
    [
      inbound({ rawPath: `/x?k=${[...token].map((c) => `%${c.charCodeAt(0).toString(16)}`).join('')}` }),
      'path or query',
    ],
    [inbound({ presented: { token, scheme: 'basic' } as never }), 'grant'],
  ]
  for (const [sent, where] of places) {
    const { used, found } = seekerOf(sent)
    const refusal = inHead(sent, found)
    expect(used).toMatchObject([{ canary: look, where }])
    expect(refusal?.code).toBe('foreign_credential')
    expect(refusal?.detail).not.toMatch(/canar/i)
    expect(refusal?.detail).not.toContain(token)
  }
})

it.each(looks)('%s: in a body that comes in pieces, or packed', (look) => {
  const body = Buffer.from(`{"note":"${tokens[look]}"}`)
  const at = body.length - 10
  for (const [pieces, coding] of [
    [[body.subarray(0, at), body.subarray(at)], 'identity'],
    [[gzipSync(body)], 'gzip'],
  ] as const) {
    const sent = inbound({ rawHeaders: ['Content-Encoding', coding] })
    const { used, found } = seekerOf(sent)
    const looked = inspect(sent, { service: { slots: [] } } as unknown as Endpoint, {} as never, { found })
    const refusals = pieces.map((piece) => looked?.look(piece)?.code)
    expect(refusals.at(-1)).toBe('foreign_credential')
    expect(used).toMatchObject([{ canary: look, where: 'body' }])
  }
})

it('nothing else is taken for bait', () => {
  const sent = inbound({ rawHeaders: ['X', looks.map((look) => LOOKS[look].make()).join(' ')] })
  const { used, found } = seekerOf(sent)
  expect(inHead(sent, found)).toBeUndefined()
  expect(used).toEqual([])
})

it('it looks like what scanners of others look for', async () => {
  const rules = await loadSecretRules()
  expect(rules(tokens.github)).toEqual(['github'])
  expect(rules(tokens.openai)).toEqual(['openai'])
})
