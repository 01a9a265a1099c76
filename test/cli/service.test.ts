import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { parse } from 'yaml'
import { serviceCommand } from '../../gateway/cli/service/service.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-service-'))
})
afterEach(async () => {
  vi.restoreAllMocks()
  process.exitCode = undefined
  await rm(dir, { recursive: true })
})

async function service(...args: string[]): Promise<string> {
  let out = ''
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += String(text)
    return true
  })
  await serviceCommand().parseAsync(args, { from: 'user' })
  return out
}

async function imported(document: unknown, ...args: string[]) {
  const [source, out] = [join(dir, 'openapi.json'), join(dir, 'made.yaml')]
  await writeFile(source, typeof document === 'string' ? document : JSON.stringify(document))
  const said = await service('import', source, '--out', out, ...args)
  const text = await readFile(out, 'utf8')
  return { said, text, made: parse(text), out }
}

const answer = (schema: unknown) => ({ 200: { description: 'ok', content: { 'application/json': { schema } } } })

const PETS = {
  openapi: '3.1.0',
  info: { title: 'Pet Store API', version: '1' },
  servers: [{ url: 'https://pets.example/v1' }, { url: 'https://eu.pets.example/v1' }],
  security: [{ key: [], app: [] }, { oauth: [] }],
  components: {
    securitySchemes: {
      oauth: { type: 'oauth2', flows: {} },
      app: { type: 'apiKey', in: 'header', name: 'X-App' },
      key: { type: 'apiKey', in: 'query', name: 'key' },
      odd: { type: 'http', scheme: 'digest' },
    },
    schemas: {
      Key: {
        type: 'object',
        properties: {
          id: { type: 'string' },
          apiKey: { type: ['string', 'null'] },
          next_page_token: { type: 'string' },
          owner: { $ref: '#/components/schemas/Owner' },
        },
      },
      Owner: { type: 'object', properties: { keys: { type: 'array', items: { $ref: '#/components/schemas/Key' } } } },
    },
  },
  paths: {
    '/pets': {
      get: { operationId: 'listPets', tags: ['pets'], security: [], responses: answer({ type: 'array', items: {} }) },
      post: { operationId: 'createPet', tags: ['pets'], responses: {} },
    },
    '/pets/{petId}': { get: { responses: {} }, delete: { operationId: 'pets/remove', responses: {} } },
    '/pets/{id}': { get: { responses: {} } },
    '/keys': { post: { operationId: 'createKey', responses: answer({ $ref: '#/components/schemas/Key' }) } },
    '/upload/{file}': { servers: [{ url: 'https://up.pets.example' }], put: { responses: {} } },
    '/odd#fragment': { get: { responses: {} } },
    '/wild/{path*}': { get: { responses: {} } },
  },
}

describe('keyless service import', () => {
  it('makes a service file that check accepts, out of OpenAPI 3', async () => {
    const { made, said, text, out } = await imported(PETS)
    expect(made).toMatchObject({
      name: 'pet-store',
      hosts: ['pets.example', 'up.pets.example'],
      slots: [
        { in: 'header', name: 'x-app', part: 'app' },
        { in: 'query', name: 'key', part: 'key' },
        { in: 'header', name: 'authorization', prefix: 'Bearer ' },
      ],
      operations: {
        'pets.listPets': { match: ['GET /v1/pets'], access: 'read', sensitivity: 'public' },
        'pets.createPet': { match: ['POST /v1/pets'], access: 'write' },
        'pets.read': { match: ['GET /v1/pets/{pet_id}'], access: 'read' },
        'pets.remove': { match: ['DELETE /v1/pets/{pet_id}'], irreversible: true },
        'keys.createKey': {
          match: ['POST /v1/keys'],
          access: 'admin',
          sensitivity: 'restricted',
          returns_secret: true,
          captures: ['/apiKey', '/owner/keys/*/apiKey', '/owner/keys/*/owner/keys/*/apiKey'],
        },
        'upload.replace': { match: ['PUT up.pets.example/upload/{file}'] },
        'wild.read': { match: ['GET /v1/wild/{path**}'] },
      },
    })
    expect(text).toMatch(/# look: single operations are at up\.pets\.example, which get the credential too/)
    expect(text).toMatch(/# look: further servers: eu\.pets\.example/)
    expect(text).toMatch(/# look: left out: GET \/v1\/odd#fragment/)
    expect(text).toMatch(/# look: left out: GET \/v1\/pets\/\{id\}: the same place as pets\.read/)
    expect(text).toMatch(/# look: the scheme odd \(http digest\) has no slot/)
    expect(said).toMatch(/made\.yaml: 7 operations\. \d+ comments say "look:"/)
    expect(await service('check', '--strict', out)).toMatch(/no faults, 0 to look at/)
    expect(process.exitCode).toBeUndefined()
  })

  it('reads Swagger 2, in YAML', async () => {
    const { made } = await imported(`
swagger: "2.0"
info: { title: "Old" }
host: old.example
basePath: /api
securityDefinitions: { main: { type: basic } }
paths:
  /things:
    post:
      responses: { 201: { schema: { type: object, properties: { client_secret: { type: string } } } } }
`)
    expect(made).toMatchObject({
      hosts: ['old.example'],
      slots: [{ in: 'basic' }],
      operations: { 'things.create': { match: ['POST /api/things'], captures: ['/client_secret'] } },
    })
  })

  it('makes an instance of an API that each customer has at another host', async () => {
    const servers = [{ url: 'https://{tenant}.crm.example/v2', variables: { tenant: { default: 'acme' } } }]
    const { made } = await imported({ ...PETS, servers })
    expect(made).toMatchObject({ hosts: [], instance: 'acme.crm.example' })
  })

  it('says what is missing where the document names no server', async () => {
    await expect(imported({ ...PETS, servers: [{ url: '/v1' }] })).rejects.toThrow(/--host api\.example\.com/)
    expect((await imported({ ...PETS, servers: [] }, '--host', 'api.acme.test')).made.hosts[0]).toBe('api.acme.test')
  })

  it.each([
    [{ servers: [{ url: '/v2/' }] }],
    [{ servers: [{ url: 'http://pets.example:8080/v2' }] }],
    [{ openapi: undefined, swagger: '2.0', servers: undefined, basePath: '/v2' }],
  ])('keeps what stands before the paths where the server itself is of no use: %j', async (differs) => {
    const { text } = await imported({ ...PETS, ...differs }, '--host', 'api.acme.test')
    const patterns = [...text.matchAll(/- [A-Z]+ (\/\S*)/g)].map(([, path]) => path)
    expect(patterns.length).toBeGreaterThan(3)
    for (const path of patterns) expect(path).toMatch(/^\/v2\//)
  })

  it('never overwrites a file', async () => {
    await writeFile(join(dir, 'made.yaml'), 'mine')
    await expect(imported(PETS)).rejects.toThrow(/is there already, and is not overwritten/)
    expect(await readFile(join(dir, 'made.yaml'), 'utf8')).toBe('mine')
  })

  it.each([['{}'], ['[1]'], ['"x"'], ['openapi: 2'], ['']])('refuses %j, which is no such document', async (text) => {
    await expect(imported(text)).rejects.toThrow(/OpenAPI 3\.0 or 3\.1/)
  })

  it('lets no text of the document out of its line or its place', async () => {
    const evil = 'x\n# y\noperations:\n  all: { match: ["GET /{a**}"], access: read }'
    const { made } = await imported(
      {
        ...PETS,
        info: { title: evil },
        paths: { '/a': { delete: { operationId: evil, tags: [evil], summary: evil, responses: {} } } },
      },
      '--name',
      'x',
    )
    expect(made.title).toBe(evil)
    expect(Object.values(made.operations)).toMatchObject([{ match: ['DELETE /v1/a'] }])
  })

  it('follows no reference out of the document, and none in circles', async () => {
    const around = { $ref: '#/components/schemas/Around' }
    const { made } = await imported({
      ...PETS,
      components: { schemas: { Around: around } },
      paths: { '/a': { get: { responses: answer(around) } }, '/b': { $ref: 'https://attacker.test/b.yaml' } },
    })
    expect(Object.keys(made.operations)).toEqual(['a.list'])
  })
})

describe('keyless service check', () => {
  const file = async (text: string) => {
    const path = join(dir, 'own.yaml')
    await writeFile(path, text)
    return path
  }

  it('shows what is valid and may still not be meant', async () => {
    const path = await file(`
name: own
title: Own
hosts: ["{tenant}.own.example"]
slots: [{ in: header, name: authorization, prefix: "Bearer " }]
placeholders: { OWN_TOKEN: xoxb-0-keyless-placeholder }
operations:
  tokens.make: { match: [POST /tokens], access: admin }
  things.delete: { match: ["DELETE /things/{id}"], access: write }
  trace: { match: [TRACE /x], access: read }
`)
    const said = await service('check', path)
    expect(said).toMatch(/look: \{tenant\}\.own\.example sends the credential to whoever has a name below own\.example/)
    expect(said).toMatch(/placeholders\.OWN_TOKEN\n {4}look: secret scanners take it for a credential \(slack\)/)
    expect(said).toMatch(/look: POST \/tokens sounds as if its answer held a credential/)
    expect(said).toMatch(/look: DELETE \/things\/\{id\} deletes/)
    expect(said).toMatch(/look: TRACE \/x is never reached/)
    expect(said).toMatch(/1 service\(s\), 3 operations: no faults, 5 to look at/)
    expect(process.exitCode).toBeUndefined()
    await service('check', '--strict', path)
    expect(process.exitCode).toBe(1)
  })

  it('fails for what is wrong, and for services that overlap', async () => {
    await expect(service('check', await file('name: own'))).rejects.toThrow(/own\.yaml: title/)
    const path = await file('name: own\ntitle: Own\nhosts: [api.github.com]\noperations: {}\n')
    await expect(service('check', path, 'github')).rejects.toThrow(/the place api\.github\.com:443/)
    await expect(service('check', 'nothing')).rejects.toThrow(/got: nothing/)
  })
})

describe('keyless service list and show', () => {
  it('name every shipped service, and say what one of them is', async () => {
    expect(await service('list')).toMatch(
      /^github +GitHub +api\.github\.com \+2 +authorization: Bearer +\d+ operations$/m,
    )
    expect(await service('show', 'atlassian')).toMatch(/hosts +yours, such as acme\.atlassian\.net/)
    expect(JSON.parse(await service('show', 'datadog', '--json')).slots[0]).toMatchObject({ part: 'api_key' })
    await expect(service('show', 'nothing')).rejects.toThrow(/There is no service nothing \(ENOENT\)/)
    await expect(service('show', 'pincone')).rejects.toThrow(/Did you mean pinecone\?/)
  })
})
