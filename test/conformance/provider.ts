/** What every provider must do; each variant runs this suite (`test/provider/*.test.ts`). */
import { inspect } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Outbound } from '../../gateway/protocol/message.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Secret } from '../../gateway/protocol/secret.ts'
import type { Service, Slot } from '../../gateway/protocol/service.ts'
import type { Credential, IssueRequest, Provider } from '../../gateway/provider/provider.ts'
import { grant, plain, service } from '../lease/lease.fixture.ts'

export interface ProviderVariant {
  /** A provider whose issuer is up and says yes. */
  working(): Provider
  readonly isEphemeral: boolean
  /** Seconds a credential lives, if it ends. */
  readonly lifeS?: number
  /** Providers that differ from `working` in one setting that changes what their credentials can do: what, and which. */
  wider(): readonly (readonly [string, Provider])[]
  /** Providers whose issuer fails, and the code they must refuse with. */
  failing(): readonly (readonly [string, GatewayError['code'], Provider])[]
  /** A provider whose issuer never answers. */
  hanging(): Provider
  /** Values that settings or issuer hold and that nothing may print: client secrets, keys. */
  secrets(): readonly string[]
}

type ValueSlot = Exclude<Slot, { in: 'signature' | 'certificate' | 'subprotocol' }>

const valueSlots: readonly ValueSlot[] = [
  { in: 'header', name: 'Authorization', prefix: 'Bearer ' },
  { in: 'header', name: 'x-api-key' },
  { in: 'basic', username: 'x-access-token' },
  { in: 'query', name: 'key' },
  { in: 'cookie', name: 'session' },
  { in: 'body', pointer: '/auth/key' },
  { in: 'form', name: 'token' },
  { in: 'path', prefix: 'bot' },
]

/** A request that can carry a credential there, as it comes out of the cleansing. */
function requestFor(slot: ValueSlot): Outbound {
  const to = service({ slots: [slot] })
  const fields = ['Cookie', 'a=b', 'X-Odd', ' c']
  if (slot.in === 'path') return plain({ service: to, path: '/bot/v1?a=1', headers: fields })
  const type = { body: 'application/json', form: 'application/x-www-form-urlencoded' }
  if (slot.in !== 'body' && slot.in !== 'form') return plain({ service: to, path: '/v1/%2F?a=1', headers: fields })
  const body = Buffer.from(slot.in === 'body' ? '{"n":1.00,"auth":{"a":"b"}}' : 'a=%2F&b')
  const headers = [...fields, 'Content-Type', type[slot.in], 'Content-Length', String(body.length)]
  return plain({ service: to, method: 'POST', headers, body })
}

const ask = (to: Service = service(), on: Grant = grant()): IssueRequest => ({
  service: to,
  grant: on,
  ttlS: 300,
  role: undefined,
})
const patient = (): AbortSignal => new AbortController().signal

/** Everything that printing a value could reveal. */
function printed(value: unknown): string {
  const shown = [
    inspect(value, { depth: 20, showHidden: true, getters: true }),
    String(value),
    `${JSON.stringify(value)}`,
  ]
  for (let error = value; error instanceof Error; error = error.cause) shown.push(error.message, error.stack ?? '')
  return shown.join('\n')
}

/**
 * @param slots where its credentials can be attached; none for those that sign or are shown in TLS.
 * @param to a service that takes what it issues. Default: one that takes a header.
 */
export function providerConformance(
  name: string,
  variant: () => ProviderVariant,
  slots: readonly ValueSlot[] = valueSlots,
  to: Service = service(),
): void {
  describe(`provider: ${name}`, () => {
    test('issues a credential with a secret and an expiry, and says whether it is ephemeral', async () => {
      const beforeS = Math.floor(Date.now() / 1000)
      const credential = await variant().working().issue(ask(), patient())
      expect(credential.secret.reveal().length).toBeGreaterThan(0)
      expect(credential.ephemeral).toBe(variant().isEphemeral)
      const { lifeS } = variant()
      if (lifeS === undefined) expect(credential.expiresAt).toBe(Number.POSITIVE_INFINITY)
      else {
        expect(credential.expiresAt).toBeGreaterThanOrEqual(beforeS + lifeS - 1)
        expect(credential.expiresAt).toBeLessThanOrEqual(Math.floor(Date.now() / 1000) + lifeS)
      }
    })

    test('prints the credential as [secret] wherever it is printed', async () => {
      const credential = await variant().working().issue(ask(), patient())
      const text = printed(credential)
      expect(text).toContain('[secret]')
      for (const secret of [credential.secret.reveal(), ...variant().secrets()]) expect(text).not.toContain(secret)
      for (const secret of variant().secrets()) expect(printed(variant().working())).not.toContain(secret)
    })

    test.each(slots)('attaches it exactly once as %j, and changes nothing else', async (slot) => {
      const provider = variant().working()
      const credential = await provider.issue(ask(service({ slots: [slot] })), patient())
      const before = requestFor(slot)
      const untouched = structuredClone({ ...before, body: String(before.body), secrets: [] })
      const after = await provider.attach(credential, before)
      expect(occurrences(after, carried(credential, slot))).toBe(1)
      expect({ ...before, body: String(before.body), secrets: [] }).toEqual(untouched)
      expect(withoutCredential(after, credential, slot)).toEqual(shown(before))
      if (Buffer.isBuffer(after.body)) expect(after.headers).toContain(String(after.body.length))
      const { headers: _headers, path: _path, body: _body, ...rest } = after
      const { headers: _before, path: _beforePath, body: _beforeBody, ...restBefore } = before
      expect(rest).toEqual(restBefore)
    })

    test.each(slots)('names every value that travels as %j', async (slot) => {
      const provider = variant().working()
      const before = requestFor(slot)
      const credential = await provider.issue(ask(before.service), patient())
      const after = await provider.attach(credential, before)
      const named: Secret[] = [credential.secret, ...(provider.derived?.(credential, before.service) ?? [])]
      const values = named.map((secret) => secret.reveal()).sort((a, b) => b.length - a.length)
      const text = values.reduce((left, value) => left.replaceAll(value, ''), textOf(after))
      expect(text.length - textOf(before).length).toBe(framing(slot) + digits(after) - digits(before))
    })

    test('refuses to attach to another host or in the clear', async () => {
      const provider = variant().working()
      const credential = await provider.issue(ask(), patient())
      for (const wrong of [{ host: 'api.evil.test' }, { scheme: 'http' as const }]) {
        expect(() => provider.attach(credential, plain({ service: to, ...wrong }))).toThrow(GatewayError)
      }
    })

    test('stops when its signal is aborted, before and during an issue', async () => {
      const provider = variant().hanging()
      await expect(provider.issue(ask(), AbortSignal.abort())).rejects.toBeInstanceOf(GatewayError)
      const controller = new AbortController()
      const issue = provider.issue(ask(), controller.signal)
      setImmediate(() => controller.abort())
      await expect(issue).rejects.toMatchObject({ code: 'credential_unavailable' })
    })

    test('has an identity that is stable, holds no secret, and changes with whatever widens', () => {
      const { identity } = variant().working()
      expect(variant().working().identity).toBe(identity)
      for (const secret of variant().secrets()) expect(identity).not.toContain(secret)
      const identities = [
        identity,
        ...variant()
          .wider()
          .map(([, provider]) => provider.identity),
      ]
      expect(new Set(identities).size).toBe(identities.length)
    })

    test('refuses with a code and without any secret when its issuer fails', async () => {
      expect(variant().failing().length).toBeGreaterThan(0)
      for (const [what, code, provider] of variant().failing()) {
        const error = await provider.issue(ask(), patient()).then(
          () => undefined,
          (cause: unknown) => cause,
        )
        expect(error, what).toBeInstanceOf(GatewayError)
        expect({ what, code: (error as GatewayError).code }).toEqual({ what, code })
        for (const secret of variant().secrets()) expect(printed(error)).not.toContain(secret)
      }
    })

    test('can be attached any number of times at once without mixing', async () => {
      const provider = variant().working()
      const credential = await provider.issue(ask(), patient())
      await fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.nat().map((n) => `/v1/${n}`),
            { minLength: 1, maxLength: 8 },
          ),
          async (paths) => {
            const all = await Promise.all(
              paths.map(async (path) => provider.attach(credential, plain({ service: to, path }))),
            )
            expect(all.map((outbound) => outbound.path)).toEqual(paths)
          },
        ),
        { numRuns: 20 },
      )
    })
  })
}

/** Characters that carry a value in its slot, without the value: `&key=`, a name and the two lines of a field. */
function framing(slot: ValueSlot): number {
  const lines = 2
  switch (slot.in) {
    case 'header':
      return lines + slot.name.length + (slot.prefix ?? '').length
    case 'basic':
      return lines + 'Authorization'.length + 'Basic '.length
    case 'query':
      return '&='.length + slot.name.length
    case 'cookie':
      return '; ='.length + slot.name.length
    case 'body':
      return ',"":""'.length + slot.pointer.length - slot.pointer.lastIndexOf('/') - 1
    case 'form':
      return '&='.length + slot.name.length
    case 'path':
      return 0
    default:
      return slot satisfies never
  }
}

/** Of the length of its body. */
function digits({ body }: Outbound): number {
  return Buffer.isBuffer(body) ? String(body.length).length : 0
}

function carried(credential: Credential, slot: ValueSlot): string {
  const secret = (slot.part === undefined ? credential.secret : credential.parts?.[slot.part])?.reveal() ?? ''
  if (slot.in === 'basic')
    return Buffer.from(`${credential.parts?.username?.reveal() ?? slot.username}:${secret}`).toString('base64')
  if (slot.in === 'form') return new URLSearchParams([['', secret]]).toString().slice(1)
  if (slot.in === 'body') return JSON.stringify(secret).slice(1, -1)
  return slot.in === 'query' ? encodeURIComponent(secret) : secret
}

function textOf({ path, headers, body }: Outbound): string {
  return [path, ...headers, Buffer.isBuffer(body) ? body.toString() : ''].join('\n')
}

function occurrences(outbound: Outbound, value: string): number {
  return textOf(outbound).split(value).length - 1
}

/** Path, fields and body; lengths apart, which a test of their own looks at. */
function shown({ path, headers, body }: Outbound) {
  const fields = headers.filter((_, i) => headers[i - (i % 2)] !== 'Content-Length')
  return { path, headers: fields, body: Buffer.isBuffer(body) ? body.toString() : body }
}

/** The request as it must have been before, with the credential's own field, parameter, cookie or member taken out. */
function withoutCredential(outbound: Outbound, credential: Credential, slot: ValueSlot): ReturnType<typeof shown> {
  const { path, headers, body } = shown(outbound)
  const value = carried(credential, slot)
  const text = String(body)
  switch (slot.in) {
    case 'query':
      return { path: path.replace(/&key=[^&]*$/, ''), headers, body }
    case 'cookie':
      return { path, headers: headers.map((field) => field.replace(/; session=[^;]*$/, '')), body }
    case 'body':
      return { path, headers, body: text.replace(`,"key":"${value}"`, '') }
    case 'form':
      return { path, headers, body: text.replace(`&token=${value}`, '') }
    case 'path':
      return { path: path.replace(value, ''), headers, body }
    default: {
      const name = slot.in === 'basic' ? 'Authorization' : slot.name
      return { path, headers: headers.filter((_, i) => headers[i - (i % 2)] !== name), body }
    }
  }
}
