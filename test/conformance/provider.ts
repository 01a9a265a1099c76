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

type ValueSlot = Extract<Slot, { in: 'header' | 'basic' | 'query' | 'cookie' }>

const valueSlots: readonly ValueSlot[] = [
  { in: 'header', name: 'Authorization', prefix: 'Bearer ' },
  { in: 'header', name: 'x-api-key' },
  { in: 'basic', username: 'x-access-token' },
  { in: 'query', name: 'key' },
  { in: 'cookie', name: 'session' },
]

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

/** @param slots where its credentials can be attached; none for those that sign or are shown in TLS. */
export function providerConformance(
  name: string,
  variant: () => ProviderVariant,
  slots: readonly ValueSlot[] = valueSlots,
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
      const credential = await provider.issue(ask(), patient())
      const before = plain({
        service: service({ slots: [slot] }),
        path: '/v1/%2F?a=1',
        headers: ['Cookie', 'a=b', 'X-Odd', ' c'],
      })
      const untouched = structuredClone({ ...before, body: null, secrets: [] })
      const after = await provider.attach(credential, before)
      expect(occurrences(after, carried(credential, slot))).toBe(1)
      expect({ ...before, body: null, secrets: [] }).toEqual(untouched)
      expect(withoutCredential(after, slot)).toEqual({ path: before.path, headers: before.headers })
      const { headers: _headers, path: _path, ...rest } = after
      const { headers: _before, path: _beforePath, ...restBefore } = before
      expect(rest).toEqual(restBefore)
    })

    test.each(slots)('names every value that travels as %j', async (slot) => {
      const provider = variant().working()
      const to = service({ slots: [slot] })
      const credential = await provider.issue(ask(to), patient())
      const after = await provider.attach(credential, plain({ service: to, headers: [] }))
      const named: Secret[] = [credential.secret, ...(provider.derived?.(credential, to) ?? [])]
      let rest = `${after.path}\n${after.headers.join('\n')}`
      for (const secret of [...named].sort((a, b) => b.reveal().length - a.reveal().length))
        rest = rest.replaceAll(secret.reveal(), '')
      const fixed = {
        header: ['prefix' in slot ? (slot.prefix ?? '') : ''],
        basic: ['Basic '],
        query: ['?key='],
        cookie: ['session='],
      }
      for (const text of ['/v1', 'Authorization', 'x-api-key', 'Cookie', ...fixed[slot.in]])
        rest = rest.replace(text, '')
      expect(rest.trim()).toBe('')
    })

    test('refuses to attach to another host or in the clear', async () => {
      const provider = variant().working()
      const credential = await provider.issue(ask(), patient())
      for (const wrong of [{ host: 'api.evil.test' }, { scheme: 'http' as const }]) {
        expect(() => provider.attach(credential, plain(wrong))).toThrow(GatewayError)
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
            const all = await Promise.all(paths.map(async (path) => provider.attach(credential, plain({ path }))))
            expect(all.map((outbound) => outbound.path)).toEqual(paths)
          },
        ),
        { numRuns: 20 },
      )
    })
  })
}

function carried(credential: Credential, slot: Slot): string {
  const secret = credential.secret.reveal()
  const username = credential.parts?.username?.reveal()
  if (slot.in === 'basic') return Buffer.from(`${username ?? slot.username}:${secret}`).toString('base64')
  return slot.in === 'query' ? encodeURIComponent(secret) : secret
}

function occurrences(outbound: Outbound, value: string): number {
  return [outbound.path, ...outbound.headers].join('\n').split(value).length - 1
}

/** The request as it must have been before, with the credential's own field, parameter or cookie taken out. */
function withoutCredential(outbound: Outbound, slot: ValueSlot): { path: string; headers: readonly string[] } {
  const { path, headers } = outbound
  if (slot.in === 'query') return { path: path.replace(/&key=[^&]*$/, ''), headers }
  if (slot.in === 'cookie') return { path, headers: headers.map((text) => text.replace(/; session=[^;]*$/, '')) }
  const name = slot.in === 'basic' ? 'Authorization' : slot.name
  return { path, headers: headers.filter((_, i) => headers[i - (i % 2)] !== name) }
}
