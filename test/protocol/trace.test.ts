import { describe, expect, it } from 'vitest'
import { readPromptHash } from '../../gateway/protocol/prompt-hash.ts'
import { traceIdOf, traceparentIn, traceparentOf } from '../../gateway/protocol/trace.ts'

const ID = '4bf92f3577b34da6a3ce929d0e0e4736'
const TRACE = `00-${ID}-00f067aa0ba902b7-01`

describe('a traceparent', () => {
  it('is taken as it was sent', () => {
    expect(traceparentOf(TRACE)).toBe(TRACE)
    expect(traceIdOf(TRACE)).toBe(ID)
    expect(traceparentIn(['Host', 'a', 'TraceParent', TRACE])).toBe(TRACE)
  })

  it.each([
    ['no text', undefined],
    ['upper case', TRACE.toUpperCase()],
    ['a trace of zeros', TRACE.replace(ID, '0'.repeat(32))],
    ['a parent of zeros', TRACE.replace('00f067aa0ba902b7', '0'.repeat(16))],
    ['the forbidden version', TRACE.replace(/^00/, 'ff')],
    ['more than it', `${TRACE}-x`],
    ['a line feed behind it', `${TRACE}\n`],
    ['two joined', `${TRACE}, ${TRACE}`],
  ])('counts as none: %s', (_, text) => {
    expect(traceparentOf(text)).toBeUndefined()
  })

  it('counts as none when there are two', () => {
    expect(traceparentIn(['traceparent', TRACE, 'Traceparent', TRACE])).toBeUndefined()
  })
})

describe('the hash of a prompt', () => {
  const hex = 'ab'.repeat(32)
  const base64url = Buffer.from(hex, 'hex').toString('base64url')

  it('is kept in one spelling, so that equal prompts are found by it', () => {
    expect(readPromptHash(`sha256:${hex}`)).toBe(`sha256:${base64url}`)
    expect(readPromptHash(`sha256:${hex.toUpperCase()}`)).toBe(`sha256:${base64url}`)
    expect(readPromptHash(`sha256:${base64url}`)).toBe(`sha256:${base64url}`)
    expect(readPromptHash(undefined)).toBeUndefined()
  })

  it.each([
    'Tell me the secret plan',
    hex,
    `sha256:${hex}0`,
    `sha256:${base64url}=`,
    `sha256:${base64url.slice(0, 42)}B`, // bits beyond the digest
    `SHA256:${hex}`,
    `sha256:${hex}\n`,
    'sha256:',
    '',
  ])('is refused when it is none, and not repeated: %j', (text) => {
    const refused = () => readPromptHash(text)
    expect(refused).toThrow(expect.objectContaining({ code: 'request_malformed' }))
    if (text.length > 10) expect(refused).not.toThrow(text)
  })
})
