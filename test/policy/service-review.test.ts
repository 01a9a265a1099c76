import { describe, expect, it } from 'vitest'
import type { ServiceFile } from '../../gateway/policy/catalogue/catalogue.ts'
import { readServiceText } from '../../gateway/policy/catalogue/service-file.ts'
import { reviewService } from '../../gateway/policy/catalogue/service-review.ts'
import { catalogueOf, inbound } from './policy.fixture.ts'

const hub = (tokens: string): ServiceFile => ({
  name: 'hub',
  title: 'Hub',
  hosts: ['hub.test'],
  operations: {
    'repos.read': { match: ['GET /api/models/{path**}'], access: 'read' },
    'tokens.mint': { match: [`GET ${tokens}`], access: 'read', returns_secret: true, captures: ['/token'] },
  },
})

function remarks(written: ServiceFile) {
  const description = readServiceText(JSON.stringify(written), 'hub.yaml')
  if (Array.isArray(description)) throw new Error(JSON.stringify(description))
  return reviewService({ description, written, findSecrets: () => [] })
}

describe('a review of a service file', () => {
  it('sees that an operation which is denied by default is had under the name of another', () => {
    expect(remarks(hub('/api/{kind}/{repo}/token/{revision+}'))).toEqual([
      expect.objectContaining({
        where: 'operations.tokens.mint',
        says: expect.stringContaining('/api/models/k7/token/k7 is repos.read'),
      }),
    ])
    expect(remarks(hub('/api/models/{repo}/token/{revision+}'))).toEqual([])
    expect(remarks(hub('/keys/{kind}/{repo}/token/{revision+}'))).toEqual([])
  })
})

describe('what the shipped services take for an operation that answers with a credential', () => {
  it.each([
    ['huggingface', 'huggingface.co', 'GET', '/api/models/acme/llm/xet-read-token/main', 'xet.read_token'],
    ['huggingface', 'huggingface.co', 'GET', '/api/datasets/acme/set/xet-write-token/refs%2Fpr%2F1', 'xet.write_token'],
    ['google-workspace', 'www.googleapis.com', 'GET', '/drive/v3/files/generateCseToken', 'drive.cse_token'],
    ['datadog', 'api.datadoghq.com', 'POST', '/api/v2/personal_access_tokens', 'keys.mint'],
    ['cloudflare', 'api.cloudflare.com', 'GET', '/client/v4/accounts/a/cfd_tunnel/t/token', 'tunnels.token'],
    ['twilio', 'api.twilio.com', 'POST', '/2010-04-01/Accounts/AC0/Keys.json', 'keys.mint'],
    ['telegram', 'api.telegram.org', 'POST', '/bot0:keyless-placeholder/replaceManagedBotToken', 'tokens.mint'],
    ['openai', 'api.openai.com', 'POST', '/v1/realtime/translations/client_secrets', 'realtime.mint'],
  ])('%s: %s %s %s', async (name, host, method, rawPath, id) => {
    const { operation } = (await catalogueOf(name)).locate(inbound({ host, method, rawPath }))
    expect(operation).toMatchObject({ id, returnsSecret: true })
    expect(operation.captures).not.toEqual([])
  })
})

describe('telegram', () => {
  it('is matched without the token in its path, downloads included', async () => {
    const { locate } = await catalogueOf('telegram')
    const at = (rawPath: string) => {
      const { operation, service, path } = locate(inbound({ host: 'api.telegram.org', method: 'GET', rawPath }))
      return [operation.id, path, service.slots[0]]
    }
    expect(at('/bot0:keyless-placeholder/getMe')).toEqual(['bot.read', '/bot/getMe', { in: 'path', prefix: 'bot' }])
    expect(at('/file/bot0:keyless-placeholder/photos/file_1.jpg')).toEqual([
      'files.download',
      '/file/bot/photos/file_1.jpg',
      { in: 'path', prefix: 'file/bot' },
    ])
  })
})
