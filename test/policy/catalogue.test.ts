import { describe, expect, it } from 'vitest'
import { loadCatalogue, type ServiceFile } from '../../gateway/policy/catalogue/catalogue.ts'
import type { Fault } from '../../gateway/policy/fault.ts'
import type { Inbound } from '../../gateway/protocol/message.ts'
import { allServices, catalogueOf, inbound, notesFile, policyDir, shippedDir } from './policy.fixture.ts'

const notes = await catalogueOf(notesFile())
const shipped = await catalogueOf(...allServices)

function refusal(request: Partial<Inbound>, catalogue = notes) {
  return expect(() => catalogue.locate(inbound(request)))
}

function operationAt(host: string, method: string, rawPath: string, port = 443): string {
  return shipped.locate(inbound({ host, method, rawPath, port })).operation.name
}

describe('locate', () => {
  it('names service, operation, canonical path and what the path holds', () => {
    const found = notes.locate(inbound({ rawPath: '/notes/%37?fields=all' }))
    expect(found).toMatchObject({
      operation: { name: 'notes:notes.read' },
      host: 'notes.test',
      port: 443,
      path: '/notes/7',
      rawPath: '/notes/%37?fields=all',
      params: { id: '7' },
    })
    expect(found.service).toBe(notes.service('notes'))
  })

  it.each(['TRACE', 'TRACK', 'CONNECT'])('refuses %s before anything else', (method) => {
    refusal({ method, host: 'elsewhere.test' }).toThrow(expect.objectContaining({ code: 'method_refused' }))
  })

  it.each([
    '_method=DELETE',
    'a=1&_METHOD=delete',
    '%5Fmethod=PUT',
    'a=1;_method=PUT',
    '_HttpMethod=PATCH',
    '$httpMethod=PATCH',
    'x-http-method-override=DELETE',
  ])('refuses a query that asks for another method: %s', (query) => {
    refusal({ method: 'POST', rawPath: `/notes?${query}` }).toThrow(
      expect.objectContaining({ code: 'request_malformed', detail: expect.stringContaining('another method') }),
    )
  })

  it('leaves alone what only sounds like it', () => {
    for (const query of ['payment_method=card', 'method=x', 'a=%5Fmethod', 'methods=_method'])
      expect(notes.locate(inbound({ method: 'POST', rawPath: `/notes?${query}` })).rawPath).toContain(query)
  })

  it('refuses a query by which two operations of one path differ, and which servers read differently', async () => {
    const items = await catalogueOf({
      name: 'items',
      title: 'Items',
      hosts: ['notes.test'],
      operations: {
        'items.read': { match: ['GET /items'], access: 'read' },
        'items.export': { match: ['GET /items?secrets=yes'], access: 'admin' },
      },
    })
    const at = (query: string) => items.locate(inbound({ rawPath: `/items${query}` })).operation.name
    expect(at('?secrets=yes')).toBe('items:items.export')
    expect(at('?secret%73=yes')).toBe('items:items.export')
    for (const query of ['', '?secrets=no', '?page=2']) expect(at(query)).toBe('items:items.read')
    for (const query of [
      '?secrets=yes&secrets=yes',
      '?secrets=no&secrets=yes',
      '?Secrets=yes',
      '?secrets[]=yes',
      '?page=2;secrets=yes',
      '?secrets=%ff',
      '?%=1&secrets=yes',
    ])
      expect(() => at(query), query).toThrow(expect.objectContaining({ code: 'request_malformed' }))
  })

  it('takes a HEAD for the GET it stands for', () => {
    expect(notes.locate(inbound({ method: 'HEAD' })).operation.name).toBe('notes:notes.list')
  })

  it('takes what the service does not list for unlisted, with access by method', () => {
    for (const method of ['GET', 'HEAD', 'OPTIONS']) {
      expect(notes.locate(inbound({ method, rawPath: '/zzz' })).operation).toMatchObject({
        name: 'notes:unlisted',
        access: 'read',
        sensitivity: 'restricted',
      })
    }
    for (const method of ['POST', 'PATCH', 'PURGE', 'get']) {
      expect(notes.locate(inbound({ method, rawPath: '/zzz' })).operation).toMatchObject({
        name: 'notes:unlisted',
        access: 'write',
      })
    }
    expect(notes.locate(inbound({ method: 'DELETE', rawPath: '/notes' })).operation.name).toBe('notes:unlisted')
  })

  it('takes a host of no service for unmanaged, without slots or credential', () => {
    const found = notes.locate(inbound({ host: 'example.org', method: 'POST', port: 8080, scheme: 'http' }))
    expect(found).toMatchObject({
      operation: { name: 'unmanaged:write' },
      scheme: 'http',
      host: 'example.org',
      port: 8080,
      service: { slots: [], credential: undefined },
    })
    expect(notes.locate(inbound({ host: 'example.org' })).operation.name).toBe('unmanaged:read')
  })

  it('keeps an encoded slash of an unmanaged host, as npm sends it', () => {
    expect(notes.locate(inbound({ host: 'packages.example.org', rawPath: '/@scope%2fname' })).path).toBe(
      '/@scope%2Fname',
    )
  })

  it.each(['/notes/a%2Fb', '/notes//7', '//notes', '/notes/7//', '/notes/../x'])(
    'refuses %s on a managed host',
    (rawPath) => {
      refusal({ rawPath }).toThrow(expect.objectContaining({ code: 'path_ambiguous' }))
    },
  )

  it('finds the same operation with and without a trailing slash', () => {
    expect(notes.locate(inbound({ rawPath: '/notes/7/' })).operation.name).toBe('notes:notes.read')
  })

  it.each([
    [undefined, 443],
    ['notes.test', 443],
    ['NOTES.test.', 443],
    ['notes.test:443', 443],
    ['notes.test:8443', 8443],
  ])('takes Host %s for port %s', (hostHeader, port) => {
    expect(notes.locate(inbound({ hostHeader, port })).port).toBe(port)
  })

  it.each([
    ['other.test', 443],
    ['notes.test:8443', 443],
    ['notes.test', 8443],
    ['files.notes.test', 443], // another host of the same service is still another place
  ])('refuses Host %s for port %s', (hostHeader, port) => {
    refusal({ hostHeader, port }).toThrow(expect.objectContaining({ code: 'target_mismatch' }))
  })

  it('refuses a Host that is no authority', () => {
    refusal({ hostHeader: 'a@notes.test' }).toThrow(expect.objectContaining({ code: 'request_malformed' }))
  })

  it('refuses a port that the service does not have', () => {
    refusal({ port: 9000 }).toThrow(
      expect.objectContaining({ code: 'host_unmanaged', message: expect.stringContaining('443, 8443') }),
    )
  })

  it('refuses cleartext to a service that is reached over https, so that no credential travels there', () => {
    refusal({ scheme: 'http', port: 80 }).toThrow(
      expect.objectContaining({ code: 'target_mismatch', message: expect.stringContaining('https://notes.test') }),
    )
    refusal({ scheme: 'http', port: 443 }).toThrow(expect.objectContaining({ code: 'target_mismatch' }))
  })

  it('names the port to use when it is not the usual one', async () => {
    refusal({ scheme: 'http', port: 9543 }, await catalogueOf(notesFile({ ports: [9543] }))).toThrow(
      expect.objectContaining({ message: expect.stringContaining('Use https://notes.test:9543.') }),
    )
  })

  it('serves cleartext only where the file says unsafe_cleartext', async () => {
    const clear = await catalogueOf(notesFile({ unsafe_cleartext: true, ports: [80] }))
    expect(clear.locate(inbound({ scheme: 'http', port: 80 })).operation.name).toBe('notes:notes.list')
    refusal({ scheme: 'https', port: 80 }, clear).toThrow(expect.objectContaining({ code: 'target_mismatch' }))
  })

  it('leads a reverse route to the first host of its service, whatever the Host field says', () => {
    const found = notes.locate(
      inbound({
        mode: 'reverse',
        route: 'notes',
        host: '127.0.0.1',
        port: 8080,
        scheme: 'http',
        hostHeader: '127.0.0.1:8080',
      }),
    )
    expect(found).toMatchObject({
      scheme: 'https',
      host: 'notes.test',
      port: 443,
      operation: { name: 'notes:notes.list' },
    })
  })

  it('refuses a reverse route of no service', () => {
    refusal({ mode: 'reverse', route: 'nope' }).toThrow(
      expect.objectContaining({ code: 'route_unknown', message: expect.stringContaining('/notes/') }),
    )
    refusal({ mode: 'reverse', route: 'unmanaged' }).toThrow(expect.objectContaining({ code: 'route_unknown' }))
  })
})

describe('the most specific operation', () => {
  const service: ServiceFile = notesFile({
    operations: {
      literal: { match: ['GET /a/b'], access: 'read' },
      suffixed: { match: ['GET /a/{x}.git'], access: 'read' },
      one: { match: ['GET /a/{x}', 'DELETE /a/{x}'], access: 'read' },
      deep: { match: ['GET /a/{x}/c'], access: 'read' },
      rest: { match: ['GET /a/{tail**}'], access: 'read' },
      slashed: { match: ['GET /p/{id+}/i'], access: 'read' },
      loose: { match: ['GET /keys/{key**+}'], access: 'read' },
      fetch: { match: ['GET /refs?service=fetch'], access: 'read' },
      push: { match: ['GET /refs?service=push'], access: 'write' },
      root: { match: ['GET /'], access: 'read' },
      elsewhere: { match: ['GET files.notes.test/notes', 'POST */both'], access: 'read' },
    },
  })

  it.each([
    ['GET', '/', 'root'],
    ['GET', '/a/b', 'literal'],
    ['GET', '/a/x.git', 'suffixed'],
    ['GET', '/a/.git', 'one'], // a suffix alone is a name
    ['GET', '/a/x', 'one'],
    ['DELETE', '/a/b', 'one'], // the literal has no DELETE
    ['GET', '/a/b/c', 'deep'], // back from the literal that leads nowhere
    ['GET', '/a/b/d', 'rest'],
    ['GET', '/a', 'unlisted'],
    ['GET', '/p/acme%2Fsite/i', 'slashed'],
    ['GET', '/p/42/i', 'slashed'],
    ['GET', '/keys/a//b%2Fc', 'loose'],
    ['GET', '/refs?service=fetch', 'fetch'],
    ['GET', '/refs?x=1&service=push', 'push'],
    ['GET', '/refs', 'unlisted'],
    ['GET', '/notes', 'unlisted'], // it is an operation of the other host
    ['POST', '/both', 'elsewhere'],
  ])('%s %s is %s', async (method, rawPath, id) => {
    const catalogue = await catalogueOf(service)
    expect(catalogue.locate(inbound({ method, rawPath })).operation.id).toBe(id)
  })

  it('binds operations to the host that their pattern names', async () => {
    const catalogue = await catalogueOf(service)
    expect(catalogue.locate(inbound({ host: 'files.notes.test' })).operation.id).toBe('elsewhere')
    expect(catalogue.locate(inbound({ host: 'files.notes.test', rawPath: '/a/b' })).operation.id).toBe('unlisted')
  })

  it('captures what the names in the path stand for', async () => {
    const catalogue = await catalogueOf(service)
    expect(catalogue.locate(inbound({ rawPath: '/a/x.git' })).params).toEqual({ x: 'x' })
    expect(catalogue.locate(inbound({ rawPath: '/a/b/d/e' })).params).toEqual({ tail: 'b/d/e' })
  })
})

describe('knows', () => {
  it.each([
    ['notes:*', true],
    ['notes:notes.*', true],
    ['notes:notes.read', true],
    ['notes:unlisted', true],
    ['unmanaged:read', true],
    ['notes:nothing', false],
    ['notes:note.*', false],
    ['github:*', false], // shipped, but not selected
    ['*', false],
  ])('%s: %s', (pattern, expected) => {
    expect(notes.knows(pattern)).toBe(expected)
  })
})

describe('the shipped services', () => {
  it('load together', () => {
    expect(shipped.services.map((service) => service.name)).toEqual(allServices)
    for (const service of shipped.services) {
      expect(service.slots.length).toBeGreaterThan(0)
      expect(Object.keys(service.placeholders).length).toBeGreaterThan(0)
    }
  })

  it.each([
    ['api.github.com', 'GET', '/repos/acme/site/issues?state=open', 'github:issues.list'],
    ['api.github.com', 'POST', '/repos/acme/site/issues/7/comments', 'github:issues.comments.write'],
    ['api.github.com', 'GET', '/repos/acme/site/contents/a/b/c.ts', 'github:contents.read'],
    ['api.github.com', 'GET', '/repos/acme/site/branches/feature%2Fx', 'github:branches.read'],
    ['api.github.com', 'GET', '/repos/acme/site/zipball/main', 'github:contents.archive'],
    ['api.github.com', 'POST', '/app/installations/1/access_tokens', 'github:apps.mint_token'],
    ['api.github.com', 'POST', '/graphql', 'github:graphql.call'],
    ['api.github.com', 'DELETE', '/repos/acme/site', 'github:repos.delete'],
    ['api.github.com', 'GET', '/acme/site.git/info/refs?service=git-upload-pack', 'github:unlisted'],
    ['github.com', 'GET', '/acme/site.git/info/refs?service=git-upload-pack', 'github:git.fetch'],
    ['github.com', 'GET', '/acme/site/info/refs?service=git-receive-pack', 'github:git.push'],
    ['github.com', 'POST', '/acme/site.git/git-receive-pack', 'github:git.push'],
    ['github.com', 'GET', '/repos/acme/site', 'github:unlisted'], // the API is on the other host
    ['github.com', 'POST', '/login/oauth/access_token', 'github:oauth.exchange'],
    ['gitlab.com', 'GET', '/api/v4/projects/acme%2Fsite/issues', 'gitlab:issues.list'],
    ['gitlab.com', 'GET', '/api/v4/projects/acme%2Fsite/repository/files/src%2Fa.ts/raw', 'gitlab:files.read'],
    ['gitlab.com', 'POST', '/acme/web/site.git/git-upload-pack', 'gitlab:git.fetch'],
    ['api.openai.com', 'POST', '/v1/responses', 'openai:responses.create'],
    ['api.openai.com', 'POST', '/v1/realtime/client_secrets', 'openai:realtime.mint'],
    ['api.anthropic.com', 'POST', '/v1/messages', 'anthropic:messages.create'],
    ['api.anthropic.com', 'POST', '/v1/oauth/token', 'anthropic:oauth.exchange'],
    ['slack.com', 'POST', '/api/chat.postMessage', 'slack:chat.post'],
    ['slack.com', 'POST', '/api/tooling.tokens.rotate', 'slack:tokens.mint'],
    ['api.stripe.com', 'POST', '/v1/refunds', 'stripe:refunds.create'],
    ['api.stripe.com', 'GET', '/v1/customers/search?query=x', 'stripe:customers.read'],
  ])('%s %s %s is %s', (host, method, rawPath, name) => {
    expect(operationAt(host, method, rawPath)).toBe(name)
  })

  it('attaches Basic for git and answers in plain text, and Bearer for the API of the same service', () => {
    const git = shipped.locate(inbound({ host: 'github.com', rawPath: '/a/b.git/info/refs?service=git-upload-pack' }))
    expect(git.service).toMatchObject({ name: 'github', credential: 'github', dialect: 'git' })
    expect(git.service.slots[0]).toEqual({ in: 'basic', username: 'x-access-token' })
    expect(git.params).toEqual({ owner: 'a', repo: 'b' })
    const api = shipped.locate(inbound({ host: 'api.github.com', rawPath: '/user' }))
    expect(api.service.slots[0]).toEqual({ in: 'header', name: 'authorization', prefix: 'Bearer ' })
    // Both remove an agent's own values from the same places.
    expect(new Set(git.service.slots.map((slot) => JSON.stringify(slot)))).toEqual(
      new Set(api.service.slots.map((slot) => JSON.stringify(slot))),
    )
  })
})

describe('service files', () => {
  it('keep the credential away from an operation that says so, and from no other one', async () => {
    const objects = { match: ['GET /objects/{id}'], access: 'read' as const, attach: 'none' as const }
    const file = notesFile()
    const catalogue = await catalogueOf({ ...file, operations: { ...file.operations, objects } })
    const at = (rawPath: string) => catalogue.locate(inbound({ host: file.hosts[0] ?? '', rawPath })).service
    expect(at('/objects/1')).toMatchObject({ name: file.name, credential: undefined, passesOwn: true })
    expect(at('/notes').credential).toBe(file.name)
    expect(at('/notes').passesOwn).toBeUndefined()
    const mint = { match: ['POST /keys'], access: 'write' as const, returns_secret: true, captures: ['/key'] }
    await expect(catalogueOf({ ...file, operations: { objects, mint } })).rejects.toMatchObject({
      faults: [expect.objectContaining({ where: expect.stringContaining('operations.objects.attach') })],
    })
  })

  it('report every mistake at once, with path, got, allowed and fix', async () => {
    const wrong = {
      ...notesFile(),
      name: 'Notes',
      host: ['x'],
      ports: [0],
      operations: { a: { match: ['GET x'], access: 'raed', websocket: 'yes' } },
    } as unknown as ServiceFile
    const attempt = catalogueOf(wrong, 'githbu')
    await expect(attempt).rejects.toMatchObject({
      faults: expect.arrayContaining([
        expect.objectContaining({ where: expect.stringContaining('name'), got: '"Notes"' }),
        expect.objectContaining({ where: expect.stringContaining('ports.0'), allowed: 'at least 1' }),
        expect.objectContaining({
          where: expect.stringContaining('operations.a.access'),
          got: '"raed"',
          allowed: 'one of read, write, admin',
        }),
        expect.objectContaining({
          where: expect.stringContaining('operations.a.websocket'),
          got: '"yes"',
          fix: 'write true or false, without quotes',
        }),
        expect.objectContaining({
          where: expect.stringContaining('operations.a.match.0'),
          allowed: expect.stringContaining('METHOD'),
        }),
        expect.objectContaining({ got: 'the unknown key host' }),
        expect.objectContaining({ got: 'githbu', allowed: expect.stringContaining('github') }),
      ]),
    })
  })

  it.each([
    ['two services at one place', [notesFile(), notesFile({ name: 'other' })], /notes\.test:443/],
    ['two services of one name', [notesFile(), notesFile({ hosts: ['b.test'] })], /the name notes/],
    [
      'two operations of one pattern',
      [
        notesFile({
          operations: { a: { match: ['GET /x/{y}'], access: 'read' }, b: { match: ['GET /x/{z}'], access: 'read' } },
        }),
      ],
      /no other operation has/,
    ],
    [
      'a host that the service does not have',
      [notesFile({ operations: { a: { match: ['GET c.test/x'], access: 'read' } } })],
      /c\.test/,
    ],
    ['the reserved name', [notesFile({ name: 'unmanaged' })], /reserved/],
    [
      'the reserved operation',
      [notesFile({ operations: { unlisted: { match: ['GET /x'], access: 'read' } } })],
      /reserved/,
    ],
    ['a host that is not canonical', [notesFile({ hosts: ['127.1'] })], /exact host name/],
    ['a range that is none', [notesFile({ addresses: ['10.0.0.0/x'] })], /CIDR/],
    ['an address for a range', [notesFile({ addresses: ['10.0.0.7'] })], /fix: write 10\.0\.0\.7\/32/],
    ['a long address for a range', [notesFile({ addresses: ['fd00::7'] })], /fix: write fd00::7\/128/],
  ])('refuse %s', async (_, services, text) => {
    await expect(catalogueOf(...services)).rejects.toThrow(text)
  })

  it('may share a host on different ports', async () => {
    const both = await catalogueOf(notesFile({ ports: [443] }), notesFile({ name: 'other', ports: [9443] }))
    expect(both.locate(inbound({ port: 9443 })).service.name).toBe('other')
  })
})

const S3 = '{bucket}.s3.{region}.amazonaws.com'

describe('patterns of hosts', () => {
  const bucketFile = (change: Partial<ServiceFile> = {}) =>
    notesFile({
      name: 'store',
      hosts: [S3, 's3.amazonaws.com'],
      operations: {
        'objects.read': { match: [`GET ${S3}/{key**}`], access: 'read' },
        'buckets.list': { match: ['GET s3.amazonaws.com/'], access: 'read' },
      },
      ...change,
    })

  it('put what the host holds beside what the path holds', async () => {
    const store = await catalogueOf(bucketFile())
    expect(store.locate(inbound({ host: 'photos.s3.eu-west-1.amazonaws.com', rawPath: '/2026/a.jpg' }))).toMatchObject({
      operation: { name: 'store:objects.read' },
      host: 'photos.s3.eu-west-1.amazonaws.com',
      params: { bucket: 'photos', region: 'eu-west-1', key: '2026/a.jpg' },
    })
    expect(store.locate(inbound({ host: 's3.amazonaws.com', rawPath: '/' })).operation.name).toBe('store:buckets.list')
    expect(store.locate(inbound({ host: 'photos.s3.eu-west-1.amazonaws.com', method: 'PUT' }))).toMatchObject({
      operation: { name: 'store:unlisted' },
      params: { bucket: 'photos' },
    })
  })

  it.each(['photos.s3.eu-west-1.amazonaws.com.attacker.test', 'photos.s3.s3.amazonaws.com', 'amazonaws.com'])(
    'leave %s to nobody',
    async (host) => {
      const store = await catalogueOf(bucketFile())
      expect(store.locate(inbound({ host })).service.name).toBe('unmanaged')
    },
  )

  it('give way to an exact host, also of another service and on a port that it does not have', async () => {
    const both = await catalogueOf(
      bucketFile(),
      notesFile({ name: 'own', hosts: ['own.s3.eu-west-1.amazonaws.com'], operations: {} }),
    )
    expect(both.locate(inbound({ host: 'own.s3.eu-west-1.amazonaws.com' })).service.name).toBe('own')
    expect(() => both.locate(inbound({ host: 'own.s3.eu-west-1.amazonaws.com', port: 9 }))).toThrow(
      expect.objectContaining({ code: 'host_unmanaged' }),
    )
  })

  it('may not overlap', async () => {
    const other = notesFile({ name: 'other', hosts: ['{name}.s3.{area}.amazonaws.com'], operations: {} })
    await expect(catalogueOf(bucketFile(), other)).rejects.toThrow(
      /service other: hosts\n.*which a host of \{bucket\}\.s3\.\{region\}\.amazonaws\.com \(service store\) can match too/,
    )
    await expect(catalogueOf(bucketFile({ hosts: [S3, '{b+}.s3.{region}.amazonaws.com'] }))).rejects.toThrow(
      /can match too/,
    )
  })

  it('hold other names than the paths there', async () => {
    const operations = { 'objects.read': { match: [`GET ${S3}/{bucket}`], access: 'read' as const } }
    await expect(catalogueOf(bucketFile({ operations }))).rejects.toThrow(/allowed: names that the host does not have/)
  })

  it('have no reverse route unless an exact host stands beside them', async () => {
    const only = await catalogueOf(bucketFile({ hosts: [S3], operations: {} }))
    const request = inbound({ mode: 'reverse', route: 'store' })
    expect(() => only.locate(request)).toThrow(expect.objectContaining({ code: 'route_unknown' }))
    expect((await catalogueOf(bucketFile())).locate(request).host).toBe('s3.amazonaws.com')
  })
})

describe('a service that each customer has at another host', () => {
  const tracker = notesFile({ name: 'tracker', title: 'Tracker', hosts: [], instance: 'acme.tracker.test' })

  it('is refused without hosts, with what to write', async () => {
    await expect(catalogueOf(tracker)).rejects.toThrow(
      /got: tracker without hosts\n.*\n.*write \{ use: tracker, hosts: \[acme\.tracker\.test\] \}/,
    )
  })

  it('is at the hosts of the settings, under their name and with their credential', async () => {
    const dir = await policyDir({ 'tracker.yaml': JSON.stringify(tracker) })
    const two = await loadCatalogue({
      services: [
        { use: './tracker.yaml', hosts: ['eu.tracker.test', 'us.tracker.test'], addresses: ['10.0.0.0/8'] },
        { use: './tracker.yaml', as: 'tracker-lab', hosts: ['lab.tracker.test'] },
        { use: './tracker.yaml', as: 'tracker-old', hosts: ['old.tracker.test'], credential: 'shared' },
      ],
      shippedDir,
      baseDir: dir,
    })
    expect(two.services).toMatchObject([
      {
        name: 'tracker',
        hosts: ['eu.tracker.test', 'us.tracker.test'],
        credential: 'tracker',
        addresses: ['10.0.0.0/8'],
      },
      { name: 'tracker-lab', credential: 'tracker-lab', addresses: [] },
      { name: 'tracker-old', credential: 'shared' },
    ])
    for (const host of ['eu.tracker.test', 'us.tracker.test'])
      expect(two.locate(inbound({ host })).operation.name).toBe('tracker:notes.list')
    expect(two.locate(inbound({ host: 'lab.tracker.test' })).operation.name).toBe('tracker-lab:notes.list')
    expect(two.locate(inbound({ host: 'acme.tracker.test' })).service.name).toBe('unmanaged')
  })

  it('lets the public offering go where the settings name hosts', async () => {
    const dir = await policyDir({
      'forge.yaml': JSON.stringify({
        ...notesFile({ name: 'forge', hosts: ['forge.test', 'registry.forge.test'], instance: 'forge.acme.test' }),
        operations: {
          'a.read': { match: ['GET /a', 'GET registry.forge.test/a'], access: 'read' },
        },
      }),
    })
    const at = (hosts: string[]) =>
      loadCatalogue({ services: [{ use: './forge.yaml', hosts }], shippedDir, baseDir: dir })
    const own = await at(['git.acme.test'])
    expect(own.locate(inbound({ host: 'git.acme.test', rawPath: '/a' })).operation.name).toBe('forge:a.read')
    expect(own.locate(inbound({ host: 'registry.forge.test', rawPath: '/a' })).service.name).toBe('unmanaged')
  })

  it('takes no hosts where the API is at one place for everybody', async () => {
    await expect(catalogueOf({ use: 'openai', hosts: ['attacker.test'] } as never)).rejects.toThrow(
      /got: hosts for openai/,
    )
  })

  it('can be named by policies while it is not selected', async () => {
    const faults: Fault[] = []
    const spoken = await notes.spokenOf('Action::"github:issues.read"', faults)
    expect(spoken.map(({ name }) => name)).toEqual(['notes', 'github', 'unmanaged'])
    expect(faults).toEqual([])
  })
})
