/**
 * GitHub, as far as apps get tokens there and use them: JWTs are verified with the app's public key, a token is for the repositories and
 * permissions it was asked for and no more than the installation has, and the API demands them. After docs.github.com, "REST API
 * endpoints for GitHub Apps" and "Permissions required for GitHub Apps".
 */
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { errors, jwtVerify } from 'jose'
import { type Answered, type Asked, type JsonServer, startJsonServer } from './json-server.fixture.ts'

export const APP_ID = 12345
export const CLIENT_ID = 'Iv23liKeylessTest000'

const LEVELS = ['read', 'write', 'admin']

export interface FakeInstallation {
  readonly id: number
  /** As GitHub spells it. */
  readonly login: string
  readonly repositories: string[]
  permissions: Record<string, string>
  suspended?: boolean
}

export interface FakeToken {
  readonly installation: number
  readonly permissions: Record<string, string>
  /** `owner/name`; undefined: all of the installation. */
  readonly repositories: readonly string[] | undefined
  isRevoked: boolean
}

export interface FakeGithub extends Pick<JsonServer, 'url' | 'asked' | 'stop'> {
  readonly privateKey: KeyObject
  readonly installations: FakeInstallation[]
  /** Every token ever given, by value. */
  readonly tokens: Map<string, FakeToken>
  interrupt: JsonServer['interrupt']
  /** Changes what is answered to a token request: an issuer that does not do what it should. */
  tamper: ((answer: Record<string, unknown>) => Record<string, unknown>) | undefined
  /** What the token may do at `owner/name`, in any spelling. */
  allows(token: string, repository: string, permission: string, level: string): boolean
}

export async function startGithub(base = ''): Promise<FakeGithub> {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const installations: FakeInstallation[] = [
    {
      id: 678,
      login: 'Acme',
      repositories: ['Site', 'tools'],
      permissions: { metadata: 'read', contents: 'write', issues: 'write', pull_requests: 'read' },
    },
    {
      id: 679,
      login: 'globex',
      repositories: ['Site'],
      permissions: { metadata: 'read', contents: 'read', members: 'read' },
    },
  ]
  const tokens = new Map<string, FakeToken>()
  const server = await startJsonServer((asked) => answer(asked))

  async function answer(asked: Asked): Promise<Answered> {
    const path = asked.path.replace(base, '')
    if (asked.method === 'DELETE' && path === '/installation/token') return end(asked)
    const fault = await appFault(asked, publicKey)
    if (fault !== undefined) return fault
    return route(path.split('/'), asked.body)
  }

  function route([, kind, first = '', second, third]: readonly string[], body: unknown): Answered {
    if (kind === 'repos' && third === 'installation') return named(installationOf(first, second))
    if (kind === 'orgs' && second === 'installation') return named(installationOf(first))
    if (kind !== 'app' || first !== 'installations') return { status: 404, json: { message: 'Not Found' } }
    const installation = installations.find(({ id }) => String(id) === second)
    return third === 'access_tokens' && installation !== undefined ? give(installation, body) : named(installation)
  }

  function installationOf(owner: string, repository?: string): FakeInstallation | undefined {
    return installations.find(
      ({ login, repositories }) =>
        same(login, owner) && (repository === undefined || repositories.some((one) => same(one, repository))),
    )
  }

  function give(installation: FakeInstallation, body: unknown): Answered {
    const { repositories, permissions = installation.permissions } = (body ?? {}) as {
      repositories?: string[]
      permissions?: Record<string, string>
    }
    if (installation.suspended) return { status: 403, json: { message: 'This installation has been suspended' } }
    const found = repositories?.map((name) => installation.repositories.find((one) => same(one, name)))
    const isWithin = Object.entries(permissions).every(([name, level]) => covers(installation.permissions[name], level))
    if (found?.includes(undefined) || !isWithin)
      return { status: 422, json: { message: 'The permissions requested are not granted to this installation.' } }
    const granted = { ...permissions, metadata: 'read' }
    const names = found?.map((name) => `${installation.login}/${name}`)
    // The form of April 2026: not 40 characters.
    const token = `ghs_${APP_ID}_${randomBytes(120).toString('base64url')}.${randomBytes(120).toString('base64url')}`
    tokens.set(token, { installation: installation.id, permissions: granted, repositories: names, isRevoked: false })
    const json = {
      token,
      expires_at: new Date(Math.floor(Date.now() / 1000) * 1000 + 3_600_000).toISOString().replace('.000Z', 'Z'),
      permissions: granted,
      repository_selection: names === undefined ? 'all' : 'selected',
      ...(names && { repositories: names.map((full_name) => ({ id: 1, name: full_name.split('/')[1], full_name })) }),
    }
    return { status: 201, json: self.tamper?.(json) ?? json }
  }

  function end(asked: Asked): Answered {
    const token = tokens.get(bearer(asked))
    if (token === undefined || token.isRevoked) return { status: 401, json: { message: 'Bad credentials' } }
    token.isRevoked = true
    return { status: 204 }
  }

  const self: FakeGithub = {
    url: `${server.url}${base}`,
    asked: server.asked,
    privateKey,
    installations,
    tokens,
    interrupt: undefined,
    tamper: undefined,
    allows(value, repository, permission, level) {
      const token = tokens.get(value)
      if (token === undefined || token.isRevoked) return false
      const installation = installations.find(({ id }) => id === token.installation)
      const all = installation?.repositories.map((name) => `${installation.login}/${name}`) ?? []
      return (
        (token.repositories ?? all).some((one) => same(one, repository)) && covers(token.permissions[permission], level)
      )
    },
    stop: () => server.stop(),
  }
  server.interrupt = (asked) => self.interrupt?.(asked)
  return self
}

/** "iss", RS256, and at most ten minutes. */
async function appFault(asked: Asked, key: KeyObject): Promise<Answered | undefined> {
  const refused = (message: string): Answered => ({ status: 401, json: { message } })
  if (asked.headers['user-agent'] === undefined) return { status: 403, json: { message: 'no user agent' } }
  try {
    const { payload } = await jwtVerify(bearer(asked), key, {
      algorithms: ['RS256'],
      issuer: [CLIENT_ID, String(APP_ID)],
    })
    const { iat = Number.POSITIVE_INFINITY, exp = Number.POSITIVE_INFINITY } = payload
    const nowS = Date.now() / 1000
    if (iat > nowS)
      return refused("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
    return exp > nowS + 600 ? refused("'Expiration time' claim ('exp') is too far in the future") : undefined
  } catch (cause) {
    if (cause instanceof errors.JOSEError) return refused('A JSON web token could not be decoded')
    throw cause
  }
}

function named(installation: FakeInstallation | undefined): Answered {
  if (installation === undefined) return { status: 404, json: { message: 'Not Found' } }
  const { id, login, permissions, suspended } = installation
  const suspended_at = suspended ? '2026-01-01T00:00:00Z' : null
  return { status: 200, json: { id, account: { login }, permissions, suspended_at, repository_selection: 'selected' } }
}

function bearer({ headers }: Asked): string {
  return headers.authorization?.replace(/^Bearer /, '') ?? ''
}

function covers(granted: string | undefined, level: string): boolean {
  return granted !== undefined && LEVELS.indexOf(level) !== -1 && LEVELS.indexOf(level) <= LEVELS.indexOf(granted)
}

/** Its names have no case. */
function same(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase()
}
