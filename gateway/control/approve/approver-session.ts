/**
 * Who is signed in at the pages of approvals. The browser keeps it, encrypted under a key that replicas share, for no longer than the
 * sign-in is fresh; the gateway keeps nothing. A form carries a proof that only a page shown in that session has.
 */
import { createHmac, type KeyObject, randomBytes } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { EncryptJWT, jwtDecrypt } from 'jose'
import type { Clock } from '../../protocol/clock.ts'
import type { Human } from '../../protocol/grant.ts'
import { cookieNamed, isSame } from '../page.ts'

/** Seconds between leaving for the provider and coming back. */
const LEAVING_S = 600
/** Compact JWE. */
const SEALED = /^[\w-]+\.[\w-]*\.[\w-]+\.[\w-]+\.[\w-]+$/

export type SignedIn = Human & { readonly authTime: number }

export interface Session {
  readonly id: string
  readonly human: SignedIn
}

/** What the browser takes along to the provider: opaque here. */
export interface Left<L> {
  readonly leaving: L
  /** Path of ours to come back to. */
  readonly next: string
}

export interface Sessions<L> {
  of(request: FastifyRequest): Promise<Session | undefined>
  begin(reply: FastifyReply, human: SignedIn): Promise<void>
  end(reply: FastifyReply): void
  leave(reply: FastifyReply, left: Left<L>): Promise<void>
  /** Once: the browser forgets it. */
  back(request: FastifyRequest, reply: FastifyReply): Promise<Left<L> | undefined>
  /** For a form about `what`. */
  proof(session: Session, what: string): string
  isProof(shown: string, session: Session, what: string): boolean
}

interface SessionOptions {
  readonly publicUrl: string
  /** 32 bytes. */
  readonly key: KeyObject
  /** Seconds after signing in. */
  readonly maxAuthAgeS: number
  readonly clock: Clock
}

export function createSessions<L extends object>(o: SessionOptions): Sessions<L> {
  const own = cookieNamed('keyless-approver', o.publicUrl, SEALED)
  const away = cookieNamed('keyless-approver-leaving', o.publicUrl, SEALED)
  const seal = (use: string, content: object, untilS: number) =>
    new EncryptJWT({ ...content })
      .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
      .setAudience(`${o.publicUrl} ${use}`)
      .setExpirationTime(untilS)
      .encrypt(o.key)
  const open = async (use: string, sealed: string | undefined): Promise<Record<string, unknown> | undefined> => {
    if (sealed === undefined) return undefined
    const { payload } = await jwtDecrypt(sealed, o.key, {
      audience: `${o.publicUrl} ${use}`,
      requiredClaims: ['exp'],
      contentEncryptionAlgorithms: ['A256GCM'],
      keyManagementAlgorithms: ['dir'],
      currentDate: new Date(o.clock.nowMs()),
    }).catch(() => ({ payload: undefined })) // expired, of another gateway, or made up: nobody is signed in
    return payload
  }
  const nowS = () => Math.floor(o.clock.nowMs() / 1000)
  const proof = (session: Session, what: string) =>
    createHmac('sha256', o.key)
      .update(JSON.stringify(['form', session.id, what]))
      .digest('base64url')
  return {
    async of(request) {
      const found = await open('session', own.read(request))
      // Only what `begin` sealed comes here.
      return found && { id: found.id as string, human: found.human as SignedIn }
    },
    async begin(reply, human) {
      const untilS = human.authTime + o.maxAuthAgeS
      const session: Session = { id: randomBytes(16).toString('base64url'), human }
      void reply.header('set-cookie', own.write(await seal('session', session, untilS), Math.max(1, untilS - nowS())))
    },
    end: (reply) => void reply.header('set-cookie', own.write('', 0)),
    async leave(reply, left) {
      void reply.header('set-cookie', away.write(await seal('leaving', left, nowS() + LEAVING_S), LEAVING_S))
    },
    async back(request, reply) {
      const found = await open('leaving', away.read(request))
      void reply.header('set-cookie', away.write('', 0))
      return found && { leaving: found.leaving as L, next: found.next as string }
    },
    proof,
    isProof: (shown, session, what) => isSame(shown, proof(session, what)),
  }
}
