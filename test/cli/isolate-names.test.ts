/** The name server of an isolated command, byte for byte. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { answerQuestion, StandIns } from '../../gateway/cli/run/isolate-names.ts'

const A = 1
const AAAA = 28

function question(name: string, type = A): Buffer {
  const labels = name.split('.').flatMap((label) => [Buffer.from([label.length]), Buffer.from(label, 'latin1')])
  const head = Buffer.from([0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0])
  return Buffer.concat([head, ...labels, Buffer.from([0, 0, type, 0, 1])])
}

/** The code of the answer, and its address if it has one. */
function answered(query: Buffer, standIns = new StandIns()) {
  const answer = answerQuestion(query, standIns)
  if (answer === undefined) return undefined
  expect(answer.readUInt16BE(0)).toBe(query.readUInt16BE(0))
  expect((answer[2] ?? 0) & 0x80).toBe(0x80)
  const code = (answer[3] ?? 0) & 0x0f
  const address = answer.readUInt16BE(6) === 1 ? [...answer.subarray(-4)].join('.') : undefined
  return { code, address }
}

describe('the name server of an isolated command', () => {
  it('gives each name an address of its own, the same each time, in whatever case', () => {
    const standIns = new StandIns()
    expect(answered(question('api.demo.test'), standIns)).toEqual({ code: 0, address: '198.18.0.1' })
    expect(answered(question('api.other.test'), standIns)).toEqual({ code: 0, address: '198.18.0.2' })
    expect(answered(question('API.Demo.test'), standIns)).toEqual({ code: 0, address: '198.18.0.1' })
    expect(standIns.nameOf('198.18.0.1')).toBe('api.demo.test')
    expect(standIns.nameOf('198.18.0.3')).toBeUndefined()
    expect(standIns.nameOf('1.2.3.4')).toBeUndefined()
    expect(standIns.nameOf('::1')).toBeUndefined()
  })

  it('has no IPv6 address for any name, and says so, so that clients take the other', () => {
    expect(answered(question('api.demo.test', AAAA))).toEqual({ code: 0, address: undefined })
  })

  it('leads localhost to loopback', () => {
    expect(answered(question('localhost'))?.address).toBe('127.0.0.1')
    expect(answered(question('app.localhost'))?.address).toBe('127.0.0.1')
    expect(answered(question('notlocalhost'))?.address).toBe('198.18.0.1')
  })

  it.each(['a b', 'a\r\nb', 'a:443', 'a/b', 'ä', 'a\0', ''])('knows no name that is none: %j', (name) => {
    const standIns = new StandIns()
    expect(answered(question(`${name}.test`), standIns)?.address).toBeUndefined()
    expect(standIns.nameOf('198.18.0.1')).toBeUndefined()
  })

  it('goes round when all addresses are given out, and never gives one to two names', () => {
    const standIns = new StandIns()
    for (let index = 0; index < 131_070; index += 1) standIns.addressOf(`n${index}`)
    expect(standIns.nameOf('198.19.255.254')).toBe('n131069')
    expect([...standIns.addressOf('one-more')].join('.')).toBe('198.18.0.1')
    expect(standIns.nameOf('198.18.0.1')).toBe('one-more')
    expect([...standIns.addressOf('n0')].join('.')).toBe('198.18.0.2')
  })

  it('answers any bytes, or not, and is never thrown off', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), fc.boolean(), (bytes, isAfterHead) => {
        const query = isAfterHead ? Buffer.concat([question('a.test').subarray(0, 12), bytes]) : Buffer.from(bytes)
        const answer = answerQuestion(query, new StandIns())
        expect(answer === undefined || answer.length <= query.length + 16).toBe(true)
      }),
    )
  })
})
