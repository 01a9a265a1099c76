import { mkdtemp, rm } from 'node:fs/promises'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { loadAuthority } from '../../gateway/ingress/certificate.ts'
import { createInterceptor } from '../../gateway/ingress/intercept.ts'
import { systemClock } from '../../gateway/protocol/clock.ts'

test('whoever names thousands of hosts takes the leaf of no service from anybody, and what is kept stays bounded', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-leaves-'))
  const authority = await loadAuthority(dir, systemClock, { hosts: ['api.github.test'], days: 90 })
  const { key, cert, renewAtMs } = authority.issueLeaf('any.test')
  const issued: string[] = []
  const counting = {
    ...authority,
    generation: authority.generation,
    issueLeaf(host: string) {
      issued.push(host)
      return { key, cert, renewAtMs }
    },
  }
  const parts = { authority: counting, nowMs: () => Date.now(), onSecure: () => {}, onTlsError: () => {} }
  const interceptor = createInterceptor(parts)
  const visit = async (host: string) => {
    const gone = new Socket().destroy() // the leaf is there before the client is looked at
    await interceptor.accept(gone, {
      scheme: 'https',
      host,
      port: 443,
      presented: null,
      address: '127.0.0.1',
      userAgent: undefined,
      foreignName: undefined,
    })
  }
  await visit('api.github.test')
  for (let i = 0; i < 560; i++) await visit(`h${i}.test`)
  await visit('api.github.test')
  await visit('h559.test')
  expect(issued.filter((host) => host === 'api.github.test')).toHaveLength(1)
  expect(issued).toHaveLength(561)
  await visit('h0.test') // forgotten: the most recent 512 are kept
  expect(issued).toHaveLength(562)
  await rm(dir, { recursive: true })
})
