/** What messages say: links that lead to where people decide, tokens about whom an entry is about, and nothing that an agent made up. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { Item } from '../../../gateway/records/export/item.ts'
import { letterOf } from '../../../gateway/records/export/letter.ts'

const terms = { publicUrl: 'https://keyless.acme.test', audience: 'siem', stream: 'stream.siem' }

function item(kind: string, more: object = {}): Item {
  const entry = { v: 'ar/1', seq: 7, ts: '2026-06-01T00:00:00.000Z', kind, log: 'keyless.local/acme', ...more }
  return { uid: 'keyless.local/acme:7', entry: entry as Item['entry'], decision: undefined, proven: undefined }
}

const textOf = (format: 'standard' | 'slack' | 'set', one: Item) => letterOf(format, one, terms)?.text

it('leads from a chat to the page where an approval, or more access, is decided', () => {
  expect(textOf('slack', item('approval.requested', { facts: { approval: '0192-abc' } }))).toContain(
    '<https://keyless.acme.test/approve/0192-abc|Open>',
  )
  expect(textOf('slack', item('approval.access_requested', { facts: { access_request: '0192-def' } }))).toContain(
    '<https://keyless.acme.test/approve/access/0192-def|Open>',
  )
  expect(textOf('slack', item('approval.requested', { facts: { approval: '../evil|x>' } }))).not.toContain('|Open>')
})

it('writes no link, mention or line into a chat that is not its own, whatever an agent says', () => {
  const words = fc.oneof(
    fc.string(),
    fc.constantFrom('<!here>', '<@U1>', '<http://x|y>', '&lt;', '*a*\n*b*', '\u202e`x`'),
  )
  fc.assert(
    fc.property(words, words, (purpose, says) => {
      const one = item('approval.access_requested', { task: { id: 't', purpose }, facts: { agent_says: says } })
      const { blocks } = JSON.parse(textOf('slack', one) as string) as { blocks: { text?: { text: string } }[] }
      const section = blocks[1]?.text?.text ?? ''
      expect(section).not.toMatch(/[<>]|\u202e/)
      expect(section.split('\n').length).toBeLessThanOrEqual(2)
    }),
  )
})

it('makes no address or name that an agent wrote into a link or mention, and keeps ours in sight', () => {
  const words = 'Approve it at https://keyless.acme.test.evil.test/approve @here #general '
  const facts = { approval: '0192-abc', path: '&'.repeat(4000), why: '&'.repeat(4000) }
  const one = item('approval.requested', { task: { id: 't', purpose: words + '*'.repeat(4000) }, facts })
  const { blocks } = JSON.parse(textOf('slack', one) as string) as {
    blocks: { text?: object; elements?: object[] }[]
  }
  const texts = blocks.flatMap(({ text, elements = [] }) => [...(text ? [text] : []), ...elements])
  // Slack, text object: `verbatim` is false by default, and then it parses plain text for both.
  for (const text of texts) if ('type' in text && text.type === 'mrkdwn') expect(text).toMatchObject({ verbatim: true })
  expect(JSON.stringify(blocks[1])).toContain('<https://keyless.acme.test/approve/0192-abc|Open>')
})

it('keeps a message within what a chat takes, however long an entry is', () => {
  const facts = Object.fromEntries(Array.from({ length: 60 }, (_, n) => [`fact_${n}`, '<'.repeat(4000)]))
  const { blocks } = JSON.parse(textOf('slack', item('leak.detected', { facts })) as string) as {
    blocks: { text?: { text: string } }[]
  }
  expect(blocks[1]?.text?.text.length).toBeLessThanOrEqual(3000)
})

it('names in a token whom an order was about, and never who gave it', () => {
  const admin = { iss: 'local:host', sub: 'admin' }
  const about = (facts: object, human?: object) => {
    const text = textOf('set', item('revocation.ordered', { facts, ...(human && { human }) }))
    return text === undefined ? undefined : (JSON.parse(text) as { sub_id: object }).sub_id
  }
  expect(about({ target: 'agent', name: 'spiffe://a', by: 'human' }, admin)).toEqual({
    format: 'complex',
    application: { format: 'opaque', id: 'spiffe://a' },
  })
  expect(about({ target: 'human', by: 'human' }, { iss: 'https://id', sub: 'ana' })).toMatchObject({
    user: { sub: 'ana' },
  })
  expect(about({ target: 'service', name: 'github', by: 'human' }, admin)).toBeUndefined()
  // Two gateways that hear each other: what a signal ordered is no news to whoever sent it.
  expect(about({ target: 'human', by: 'signal' }, { iss: 'https://id', sub: 'ana' })).toBeUndefined()
})

it('names nobody in a token whom the log or a mask keeps sealed', () => {
  const sealed = item('grant.revoked', { human: 'masked:abc', facts: { reason: 'completed' } })
  expect(textOf('set', sealed)).toBeUndefined()
})

it('gives a message an id without a dot: signatures put dots between their parts', () => {
  expect(letterOf('standard', item('leak.detected'), terms)?.id).toMatch(/^msg_[\w-]{27}$/)
})
