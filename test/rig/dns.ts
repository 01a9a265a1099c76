/** A name server on loopback, UDP and TCP (RFC 1035), whose answers a test decides question by question. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'

export interface Question {
  readonly name: string
  readonly type: 'A' | 'AAAA'
  readonly transport: 'udp' | 'tcp'
  /** How often this name and type were asked for before. */
  readonly asked: number
}

export type Answer =
  | { readonly type: 'A' | 'AAAA'; readonly address: string; readonly name?: string; readonly ttl?: number }
  | { readonly type: 'CNAME'; readonly to: string; readonly name?: string; readonly ttl?: number }

/** Records; or no word at all; or "ask again over TCP"; or that there is no such name. */
export type Reaction = readonly Answer[] | 'silence' | 'truncated' | 'unknown'

export interface NameServer {
  /** As `Resolver.setServers` takes it. */
  readonly address: string
  readonly questions: Question[]
  close(): Promise<void>
}

const TYPES = { A: 1, CNAME: 5, AAAA: 28 } as const

export async function startNameServer(react: (question: Question) => Reaction): Promise<NameServer> {
  const questions: Question[] = []
  const answerTo = (packet: Buffer, transport: Question['transport']): Buffer | undefined => {
    const { name, type, end } = readQuestion(packet)
    if (type !== TYPES.A && type !== TYPES.AAAA) return reply(packet.subarray(0, end), [], 4)
    const asked = { name, type: type === TYPES.A ? 'A' : 'AAAA', transport } as const
    const before = questions.filter((one) => one.name === name && one.type === asked.type).length
    const question = { ...asked, asked: before }
    questions.push(question)
    const reaction = react(question)
    if (reaction === 'silence') return undefined
    const head = packet.subarray(0, end)
    if (reaction === 'unknown') return reply(head, [], 3)
    return reaction === 'truncated' ? reply(head, [], 0, true) : reply(head, reaction, 0)
  }
  const tcp = createServer((socket) => serveTcp(socket, (packet) => answerTo(packet, 'tcp')))
  tcp.listen(0, '127.0.0.1')
  await once(tcp, 'listening')
  const { port } = tcp.address() as { port: number }
  const udp = createSocket('udp4')
  udp.on('message', (packet, from) => {
    const answer = answerTo(packet, 'udp')
    if (answer !== undefined) udp.send(answer, from.port, from.address)
  })
  udp.bind(port, '127.0.0.1')
  await once(udp, 'listening')
  return {
    address: `127.0.0.1:${port}`,
    questions,
    async close() {
      udp.close()
      tcp.close()
      await once(tcp, 'close')
    },
  }
}

/** RFC 1035 §4.2.2: each message behind its length. */
function serveTcp(socket: Socket, answerTo: (packet: Buffer) => Buffer | undefined): void {
  let pending = Buffer.alloc(0)
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk])
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const length = pending.readUInt16BE(0)
      const answer = answerTo(pending.subarray(2, 2 + length))
      pending = pending.subarray(2 + length)
      if (answer !== undefined) socket.write(Buffer.concat([u16(answer.length), answer]))
    }
  })
}

function readQuestion(packet: Buffer): { name: string; type: number; end: number } {
  const labels: string[] = []
  let at = 12
  while (packet[at] !== 0) {
    const length = packet[at] as number
    labels.push(packet.toString('latin1', at + 1, at + 1 + length))
    at += 1 + length
  }
  return { name: labels.join('.').toLowerCase(), type: packet.readUInt16BE(at + 1), end: at + 5 }
}

function reply(question: Buffer, answers: readonly Answer[], code: number, truncated = false): Buffer {
  const head = Buffer.from(question)
  head[2] = 0x84 | ((head[2] as number) & 1) | (truncated ? 2 : 0) // an answer, authoritative
  head[3] = 0x80 | code
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(answers.length, 6)
  head.writeUInt32BE(0, 8) // no further sections
  const { name } = readQuestion(question)
  return Buffer.concat([head, ...answers.map((answer) => record(answer, name))])
}

function record(answer: Answer, asked: string): Buffer {
  const content = answer.type === 'CNAME' ? nameOf(answer.to) : bytesOf(answer.address)
  const ttl = Buffer.alloc(4)
  ttl.writeUInt32BE(answer.ttl ?? 0)
  return Buffer.concat([
    nameOf(answer.name ?? asked),
    u16(TYPES[answer.type]),
    u16(1),
    ttl,
    u16(content.length),
    content,
  ])
}

function nameOf(name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label, 'latin1')]))
  return Buffer.concat([...labels, Buffer.of(0)])
}

function bytesOf(address: string): Buffer {
  if (!address.includes(':')) return Buffer.from(address.split('.').map(Number))
  const [left = '', right = ''] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const [head, tail] = [left, right].map((part) => part.split(':').filter((word) => word !== ''))
  const gap = Array<string>(8 - (head?.length ?? 0) - (tail?.length ?? 0)).fill('0')
  return Buffer.concat([...(head ?? []), ...gap, ...(tail ?? [])].map((word) => u16(Number.parseInt(word, 16))))
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}
