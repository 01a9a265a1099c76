/** A gRPC service without .proto: messages are JSON. Its server says what it received; its client goes through a gateway. */
import * as grpc from '@grpc/grpc-js'
import { makeAuthority } from '../upstream/certificate.fixture.ts'

const HOST = 'notes.keyless.test'

export interface Note {
  readonly text: string
}

const pack = (value: Note): Buffer => Buffer.from(JSON.stringify(value))
const unpack = (bytes: Buffer): Note => JSON.parse(bytes.toString()) as Note

const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/notes.Notes/${name}`,
  requestStream,
  responseStream,
  requestSerialize: pack,
  requestDeserialize: unpack,
  responseSerialize: pack,
  responseDeserialize: unpack,
})

const definition = {
  Get: method('Get', false, false),
  Collect: method('Collect', true, false),
  List: method('List', false, true),
  Chat: method('Chat', true, true),
  /** Never answers. */
  Wait: method('Wait', false, false),
  /** One note, and then the connection breaks. */
  Break: method('Break', false, true),
  /** INVALID_ARGUMENT, with metadata in the trailers. */
  Fail: method('Fail', false, false),
  /** No policy allows it. */
  Delete: method('Delete', false, false),
  DeleteAll: method('DeleteAll', true, true),
}

export interface GrpcUpstream {
  readonly port: number
  readonly caPem: string
  /** Metadata of every call. */
  readonly seen: Record<string, unknown>[]
  /** Names of methods whose caller left. */
  readonly cancelled: string[]
  stop(): Promise<void>
}

export async function startGrpc(): Promise<GrpcUpstream> {
  const authority = await makeAuthority()
  const { cert, key } = await authority.issue([HOST])
  const seen: Record<string, unknown>[] = []
  const cancelled: string[] = []
  const server = new grpc.Server()
  server.addService(definition, implementation(seen, cancelled))
  const credentials = grpc.ServerCredentials.createSsl(null, [
    { private_key: Buffer.from(key), cert_chain: Buffer.from(cert) },
  ])
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
  )
  return {
    port,
    caPem: authority.pem,
    seen,
    cancelled,
    async stop() {
      server.forceShutdown()
    },
  }
}

interface Received {
  readonly metadata: grpc.Metadata
  on(event: 'cancelled', listener: () => void): unknown
}

type Unary = grpc.ServerUnaryCall<Note, Note>
type Answer = grpc.sendUnaryData<Note>

function implementation(seen: Record<string, unknown>[], cancelled: string[]): grpc.UntypedServiceImplementation {
  const received = (name: string, call: Received) => {
    seen.push(call.metadata.getMap())
    call.on('cancelled', () => cancelled.push(name))
  }
  const initial = () => {
    const metadata = new grpc.Metadata()
    metadata.set('x-region', 'eu')
    return metadata
  }
  const trailing = () => {
    const metadata = new grpc.Metadata()
    metadata.set('x-cost', '7')
    metadata.set('x-raw-bin', Buffer.from([0, 255, 10]))
    return metadata
  }
  return {
    Get(call: Unary, answer: Answer) {
      received('Get', call)
      call.sendMetadata(initial())
      // What an upstream might do with a credential: say it again.
      answer(null, { text: `${call.request.text} ${String(call.metadata.get('authorization')[0])}` }, trailing())
    },
    Collect(call: grpc.ServerReadableStream<Note, Note>, answer: Answer) {
      received('Collect', call)
      let count = 0
      call.on('data', () => {
        count += 1
      })
      call.on('end', () => answer(null, { text: String(count) }))
    },
    List(call: grpc.ServerWritableStream<Note, Note>) {
      received('List', call)
      for (let i = 0; i < Number(call.request.text); i++) call.write({ text: `${i}${'x'.repeat(1_000)}` })
      call.end(trailing())
    },
    Chat(call: grpc.ServerDuplexStream<Note, Note>) {
      received('Chat', call)
      call.on('data', (note: Note) => call.write({ text: `re: ${note.text}` }))
      call.on('end', () => call.end())
    },
    Wait(call: Unary) {
      received('Wait', call)
    },
    Break(call: grpc.ServerWritableStream<Note, Note>) {
      received('Break', call)
      call.write({ text: 'first' }, () => setImmediate(() => severed(call)))
    },
    Fail(call: Unary, answer: Answer) {
      received('Fail', call)
      answer({ code: grpc.status.INVALID_ARGUMENT, details: 'no note – «leer»', metadata: trailing() })
    },
    Delete(call: Unary, answer: Answer) {
      received('Delete', call)
      answer(null, { text: 'deleted' })
    },
    DeleteAll(call: grpc.ServerDuplexStream<Note, Note>) {
      received('DeleteAll', call)
      call.end()
    },
  }
}

/** Reset the stream under a call, which grpc-js gives no way to do. */
function severed(call: object): void {
  const { stream } = (call as { readonly call: { readonly stream: { close(code: number): void } } }).call
  stream.close(8)
}

const NotesClient = grpc.makeGenericClientConstructor(definition, 'notes.Notes')

type Done = (error: grpc.ServiceError | null, note: Note) => void
type Asks = (note: Note, metadata: grpc.Metadata, options: grpc.CallOptions, done: Done) => grpc.ClientUnaryCall
type Lists = (note: Note) => grpc.ClientReadableStream<Note>
export type Client = grpc.Client & {
  readonly Get: Asks
  readonly Wait: Asks
  readonly Fail: Asks
  readonly Delete: Asks
  readonly List: Lists
  readonly Break: Lists
  readonly Collect: (done: Done) => grpc.ClientWritableStream<Note>
  readonly Chat: () => grpc.ClientDuplexStream<Note, Note>
  readonly DeleteAll: () => grpc.ClientDuplexStream<Note, Note>
}

/** As an agent has it: the proxy from its environment, and the gateway's CA. */
export function openClient(
  port: number,
  ca: string,
  proxy: { readonly port: number; readonly handle: string },
  options: grpc.ChannelOptions = {},
): Client {
  const before = process.env.grpc_proxy
  process.env.grpc_proxy = `http://task:${proxy.handle}@127.0.0.1:${proxy.port}`
  try {
    const client = new NotesClient(`${HOST}:${port}`, grpc.credentials.createSsl(Buffer.from(ca)), {
      'grpc.use_local_subchannel_pool': 1,
      ...options,
    }) as unknown as Client
    client.getChannel().getConnectivityState(true) // reads the environment
    return client
  } finally {
    if (before === undefined) delete process.env.grpc_proxy
    else process.env.grpc_proxy = before
  }
}

export interface Asked {
  readonly error: grpc.ServiceError | null
  readonly text: string | undefined
  readonly head: Record<string, unknown> | undefined
  readonly status: grpc.StatusObject
}

type UnaryMethod = 'Get' | 'Wait' | 'Fail' | 'Delete'

export function ask(
  client: Client,
  name: UnaryMethod,
  { metadata = new grpc.Metadata(), ...options }: grpc.CallOptions & { metadata?: grpc.Metadata } = {},
  onCall: (call: grpc.ClientUnaryCall) => void = () => {},
): Promise<Asked> {
  return new Promise((resolve) => {
    let head: Record<string, unknown> | undefined
    let outcome: { error: grpc.ServiceError | null; text: string | undefined } | undefined
    let status: grpc.StatusObject | undefined
    const settle = (): void => {
      if (outcome !== undefined && status !== undefined) resolve({ ...outcome, head, status })
    }
    const call = client[name]({ text: 'hello' }, metadata, options, (error, note) => {
      outcome = { error, text: note?.text }
      settle()
    })
    call.on('metadata', (given) => {
      head = given.getMap()
    })
    call.on('status', (given) => {
      status = given
      settle()
    })
    onCall(call)
  })
}

export interface Listed {
  readonly notes: readonly string[]
  readonly status: grpc.StatusObject
}

export function listed(call: grpc.ClientReadableStream<Note> | grpc.ClientDuplexStream<Note, Note>): Promise<Listed> {
  const notes: string[] = []
  call.on('data', (note: Note) => notes.push(note.text))
  call.on('error', () => {})
  return new Promise((resolve) => call.on('status', (status) => resolve({ notes, status })))
}
