/** What an agent says in WebSocket messages, held against what may not leave: each on its own, whatever was said before. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Inbound } from '../../gateway/protocol/message.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import { FrameFlow } from '../../gateway/upstream/frame-flow.ts'
import { type Inspection, inspect } from '../../gateway/upstream/inspection.ts'
import { loadSecretRules } from '../../gateway/upstream/secret-rules.ts'
import { type Frame, frameBytes, inPieces } from './frames.fixture.ts'

const LIMITS = { maxFrameBytes: 10_000, maxMessageBytes: 20_000 }
const HANDLE = `kh_${'aZ9_-'.repeat(9).slice(0, 43)}`

/** Of a handshake, which has no body: what is looked at are the frames that follow. */
function inspection(): Inspection {
  const inbound = { rawHeaders: [], body: null, upgrade: {} } as unknown as Inbound
  return inspect(
    inbound,
    { service: { slots: [] } } as unknown as Endpoint,
    { ttlS: 300, singleUse: false },
    {},
  ) as Inspection
}

/** The code of the refusal; undefined if all frames go on. */
function refusalOf(frames: readonly Frame[], cuts: readonly number[] = []): string | undefined {
  const parts = { sender: 'agent', limits: LIMITS, searcher: null, censor: inspection(), write: () => {} } as const
  const flow = new FrameFlow(parts)
  try {
    for (const piece of inPieces(Buffer.concat(frames.map((frame) => frameBytes(frame, 'agent'))), cuts))
      flow.push(piece)
  } catch (cause) {
    if (cause instanceof GatewayError) return cause.code
    throw cause
  }
  return undefined
}

function text(payload: string, isFinal = true, opcode = 0x1): Frame {
  return { opcode, isFinal, payload: Buffer.from(payload) }
}

describe('a handle that an agent says to a WebSocket', () => {
  it('does not leave, whatever the messages before it were and wherever the bytes are cut', () => {
    const words = fc.array(fc.stringMatching(/^[\w -]{0,60}$/), { maxLength: 4 })
    fc.assert(
      fc.property(words, fc.array(fc.nat(400), { maxLength: 5 }), (before, cuts) => {
        const frames = [...before, HANDLE].map((word) => text(word))
        expect(refusalOf(frames, cuts)).toBe('foreign_credential')
      }),
      { examples: [[['hi'], []]] },
    )
  })

  it('does not leave in the fragments of one message', () => {
    const frames = [text(`take ${HANDLE.slice(0, 9)}`, false), text(HANDLE.slice(9), true, 0x0)]
    expect(refusalOf(frames)).toBe('foreign_credential')
  })

  it.each([
    ['a ping', { ...text(HANDLE), opcode: 0x9 }],
    ['a pong', { ...text(HANDLE), opcode: 0xa }],
    [
      'the reason of a close',
      { ...text(''), opcode: 0x8, payload: Buffer.concat([Buffer.of(0x10, 0x61), Buffer.from(HANDLE)]) },
    ],
  ])('does not leave in %s, not even within a message', (_, frame) => {
    expect(refusalOf([text('half a word', false), frame])).toBe('foreign_credential')
  })

  it('is looked for around the control frames of its message', () => {
    const frames = [text(HANDLE.slice(0, 9), false), { ...text('x'), opcode: 0x9 }, text(HANDLE.slice(9), true, 0x0)]
    expect(refusalOf(frames)).toBe('foreign_credential')
  })

  it('is not seen where two messages only look like one side by side', () => {
    expect(refusalOf([text(HANDLE.slice(0, 9)), text(HANDLE.slice(9))])).toBeUndefined()
  })
})

describe('a request that an AWS client signed', () => {
  const seen = async (accessKeyId: string, coding: string) => {
    const scope = `${accessKeyId}/20261122/eu-west-1/s3/aws4_request`
    const authorization = `AWS4-HMAC-SHA256 Credential=${scope}, SignedHeaders=host, Signature=${'0'.repeat(64)}`
    const rawPath = `/k?X-Amz-Credential=${encodeURIComponent(scope)}&X-Amz-Signature=0`
    const inbound = { rawPath, rawHeaders: ['Authorization', authorization, 'Content-Encoding', coding], body: {} }
    const placeholders = { AWS_ACCESS_KEY_ID: 'AKIAKEYLESSPLACEHOLD' }
    const service = { slots: [{ in: 'signature', scheme: 'aws4' }], placeholders }
    const rules = await loadSecretRules()
    const obligations = { ttlS: 300, singleUse: false, foreignCredentials: 'log' as const }
    const looked = inspect(inbound as unknown as Inbound, { service } as unknown as Endpoint, obligations, { rules })
    looked?.look(Buffer.from(`5;chunk-signature=${'0'.repeat(64)}\r\nhello\r\n`))
    return looked?.sightings.map(({ rule, where }) => `${rule} in ${where}`)
  }

  it('carries nobody’s key where its client signed with the placeholder, framed body or not', async () => {
    expect(await seen('AKIAKEYLESSPLACEHOLD', 'aws-chunked')).toEqual([])
    expect(await seen('AKIAKEYLESSPLACEHOLD', 'gzip,aws-chunked')).toEqual(['unreadable in body'])
  })

  it('carries a key of its own where it signed with another', async () => {
    expect(await seen('AKIAZ7XKWQ3LMN5PR2TV', 'aws-chunked')).toEqual(['slot in authorization'])
  })
})
