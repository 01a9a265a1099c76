/** An identity provider that says what happens to its people: keys in a file, tokens signed as a test wants them, pushed or polled. */
import { generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { hostname, tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { CompactSign } from 'jose'

export const ISSUER = 'https://id.acme.test'
export const CAEP = 'https://schemas.openid.net/secevent/caep/event-type'
export const RISC = 'https://schemas.openid.net/secevent/risc/event-type'
/** Whoever opens tasks on the socket of a gateway in this process. */
export const HERE = { iss: `local:${hostname()}`, sub: userInfo().username }

type Members = Readonly<Record<string, unknown>>

export interface Transmitter {
  /** Settings of `signals.receive` about it. @param more members of the row. */
  row(more?: string): string
  readonly publicKey: KeyObject
  /** A token about the human of this machine; members that are undefined are left out. */
  token(claims?: Members, header?: Members, key?: KeyObject | Uint8Array): Promise<string>
  stop(): Promise<void>
}

export async function makeTransmitter(): Promise<Transmitter> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-transmitter-'))
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'ES256', use: 'sig' }
  await writeFile(join(dir, 'keys.json'), JSON.stringify({ keys: [jwk] }))
  return {
    publicKey,
    row: (more = '') =>
      `{ issuer: "${ISSUER}", jwks: { file: ${dir}/keys.json }, audience: keyless, humans: ["${HERE.iss}"]${more === '' ? '' : `, ${more}`} }`,
    token(claims = {}, header = {}, key = privateKey) {
      const whole = {
        iss: ISSUER,
        aud: 'keyless',
        jti: randomUUID(),
        iat: Math.floor(Date.now() / 1000),
        sub_id: { format: 'iss_sub', ...HERE },
        events: { [`${CAEP}/session-revoked`]: {} },
        ...claims,
      }
      const fields = JSON.parse(JSON.stringify({ alg: 'ES256', kid: 'one', typ: 'secevent+jwt', ...header }))
      return new CompactSign(Buffer.from(JSON.stringify(whole))).setProtectedHeader(fields).sign(key)
    },
    stop: () => rm(dir, { recursive: true, force: true }),
  }
}

/** Push a token (RFC 8935). */
export async function push(control: string, token: string, headers: Readonly<Record<string, string>> = {}) {
  const answer = await fetch(`${control}/signals/events`, {
    method: 'POST',
    headers: { 'content-type': 'application/secevent+jwt', accept: 'application/json', ...headers },
    body: token,
  })
  const text = await answer.text()
  return { status: answer.status, err: text === '' ? undefined : (JSON.parse(text) as { err?: string }).err }
}

interface Question {
  readonly ack: readonly string[]
  readonly setErrs: Readonly<Record<string, { readonly err: string }>>
}

/** Keeps tokens until they are acknowledged (RFC 8936). */
export async function startPolled() {
  const hold = new Map<string, string>()
  const questions: Question[] = []
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const asked = JSON.parse(Buffer.concat(chunks).toString('utf8')) as Question
    questions.push(asked)
    for (const jti of [...asked.ack, ...Object.keys(asked.setErrs)]) hold.delete(jti)
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ sets: Object.fromEntries(hold), moreAvailable: false }))
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/poll`,
    /** `jti` → token. */
    hold,
    questions,
    async stop() {
      server.closeAllConnections()
      await new Promise<void>((done) => server.close(() => done()))
    },
  }
}
