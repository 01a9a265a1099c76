/**
 * What command-line tools read from files in the user's home, made anew for one run: where to go is the user's own, the
 * credentials are placeholders, which the gateway replaces. A tool is prepared only when a service that names it can be used.
 */
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { ServiceView } from '../../protocol/control-status.ts'
import { isHostPattern } from '../../protocol/host-pattern.ts'
import type { Tool } from '../../protocol/service.ts'

/** Of no use to anybody; ASCII, because some clients check. */
const PLACEHOLDER = 'keyless-placeholder'
/** Far beyond any run: clients that know an expiry then never try to refresh. */
const NEVER = '2099-01-01T00:00:00.000000Z'

type Variables = Record<string, string>

export interface ToolsOptions {
  /** Of this run, mode 0700. */
  readonly dir: string
  readonly services: readonly Pick<ServiceView, 'name' | 'hosts' | 'ports' | 'tools' | 'credential_configured'>[]
  readonly inherited: Readonly<Record<string, string | undefined>>
  /** The forwarder, for docker's containers. */
  readonly proxyUrl: string
  /** PEM of the interception CA. */
  readonly ca: string
}

/** @returns the variables that lead the tools to the files. */
export async function writeToolFiles(options: ToolsOptions): Promise<Variables> {
  const made = await Promise.all(
    Object.entries(WRITERS).map(([tool, write]) => {
      const places = placesOf(options, tool as Tool)
      return places.length === 0 ? {} : write(places, options)
    }),
  )
  return Object.assign({}, ...made) as Variables
}

interface Place {
  readonly service: string
  /** With the port where it is not 443. */
  readonly authority: string
}

const WRITERS: Readonly<
  Record<Tool, (places: readonly Place[], options: ToolsOptions) => Variables | Promise<Variables>>
> = {
  git: gitVariables,
  kubectl: writeKubeconfig,
  gcloud: writeGcloud,
  docker: writeDocker,
  npm: writeNpmrc,
  pip: () => ({ PIP_NO_INPUT: '1', PIP_KEYRING_PROVIDER: 'disabled' }),
}

function placesOf({ services }: ToolsOptions, tool: Tool): Place[] {
  return services
    .filter((service) => service.credential_configured && service.tools.includes(tool))
    .flatMap(({ name, hosts, ports }) =>
      hosts
        .filter((host) => !isHostPattern(host))
        .flatMap((host) =>
          ports.map((port) => ({ service: name, authority: port === 443 ? host : `${host}:${port}` })),
        ),
    )
}

/** SSH passes no HTTP proxy, so its URLs become https; and a helper that has the user's own password is not asked. */
function gitVariables(places: readonly Place[], { inherited }: ToolsOptions): Variables {
  const entries = places.flatMap(({ authority }) => {
    const url = `https://${authority}/`
    const host = authority.replace(/:\d+$/, '')
    return [
      [`url.${url}.insteadOf`, `git@${host}:`],
      [`url.${url}.insteadOf`, `ssh://git@${host}/`],
      [`credential.${url}.helper`, ''],
    ] as const
  })
  const before = Number.parseInt(inherited.GIT_CONFIG_COUNT ?? '0', 10) || 0
  const variables: Variables = { GIT_CONFIG_COUNT: String(before + entries.length) }
  for (const [index, [key, value]] of entries.entries()) {
    variables[`GIT_CONFIG_KEY_${before + index}`] = key
    variables[`GIT_CONFIG_VALUE_${before + index}`] = value
  }
  return variables
}

/** JSON is YAML. The CA has to stand in it: with one in the file kubectl trusts no other, and without it none of ours on macOS. */
async function writeKubeconfig(places: readonly Place[], { dir, ca }: ToolsOptions): Promise<Variables> {
  const names = places.map(({ service, authority }, index) =>
    places.findIndex((place) => place.service === service) === index ? service : authority,
  )
  const clusters = places.map(({ authority }, index) => ({
    name: names[index],
    cluster: { server: `https://${authority}`, 'certificate-authority-data': Buffer.from(ca).toString('base64') },
  }))
  const path = join(dir, 'kubeconfig')
  await writeJson(path, {
    apiVersion: 'v1',
    kind: 'Config',
    clusters,
    users: [{ name: 'keyless', user: { token: PLACEHOLDER } }],
    contexts: names.map((name) => ({ name, context: { cluster: name, user: 'keyless' } })),
    'current-context': names[0],
  })
  return { KUBECONFIG: path }
}

/** gcloud takes the token as it is; Google's libraries take the file, Python's with a token that never has to be refreshed. */
async function writeGcloud(_: readonly Place[], { dir, inherited }: ToolsOptions): Promise<Variables> {
  const adc = join(dir, 'adc.json')
  await writeJson(adc, {
    type: 'authorized_user',
    client_id: PLACEHOLDER,
    client_secret: PLACEHOLDER,
    refresh_token: PLACEHOLDER,
    token: PLACEHOLDER,
    expiry: NEVER,
  })
  const own = inherited.CLOUDSDK_CONFIG ?? join(homedir(), '.config', 'gcloud')
  const config = join(dir, 'gcloud')
  await mkdir(join(config, 'configurations'), { recursive: true, mode: 0o700 })
  const names = await readdir(join(own, 'configurations')).catch(() => [])
  for (const name of names) {
    const text = await readIfThere(join(own, 'configurations', name))
    await writeFile(join(config, 'configurations', name), withoutSections(text), { mode: 0o600 })
  }
  const active = await readIfThere(join(own, 'active_config'))
  if (active !== '') await writeFile(join(config, 'active_config'), active, { mode: 0o600 })
  return { GOOGLE_APPLICATION_CREDENTIALS: adc, CLOUDSDK_AUTH_ACCESS_TOKEN: PLACEHOLDER, CLOUDSDK_CONFIG: config }
}

/** A gcloud configuration without the sections that name credentials or another proxy. */
function withoutSections(ini: string): string {
  return ini
    .split(/^(?=[ \t]*\[)/m)
    .filter((section) => !/^[ \t]*\[(?:auth|proxy)\]/.test(section))
    .join('')
}

/** Everything of the user's but what is a credential, or leads to one. Docker reads names in any case. */
const NOT_COPIED = ['auths', 'credsstore', 'credhelpers', 'httpheaders', 'proxies']
/** Which daemon, and which plugins: beside the configuration, and no credentials of a registry. */
const BESIDE = ['contexts', 'cli-plugins', 'buildx']

async function writeDocker(places: readonly Place[], { dir, inherited, proxyUrl }: ToolsOptions): Promise<Variables> {
  const own = inherited.DOCKER_CONFIG ?? join(homedir(), '.docker')
  const config = join(dir, 'docker')
  await mkdir(config, { mode: 0o700 })
  const kept = Object.entries(parsed(await readIfThere(join(own, 'config.json')))).filter(
    ([name]) => !NOT_COPIED.includes(name.toLowerCase()),
  )
  const auth = Buffer.from(`keyless:${PLACEHOLDER}`).toString('base64')
  await writeJson(join(config, 'config.json'), {
    ...Object.fromEntries(kept),
    auths: Object.fromEntries(places.map(({ authority }) => [authority, { auth }])),
    proxies: { default: { httpProxy: proxyUrl, httpsProxy: proxyUrl, noProxy: 'localhost,127.0.0.1,::1' } },
  })
  for (const name of BESIDE) await symlink(join(own, name), join(config, name))
  return { DOCKER_CONFIG: config }
}

/** In an npmrc: credentials of any registry, and what would lead past the proxy or to another one. Names may stand in quotes, or in a list. */
const NOT_IN_NPMRC =
  /^\s*["']?(?:.*:)?(?:_authToken|_auth|_password|tokenHelper|username|otp|certfile|keyfile|cert|key|ca|cafile|proxy|https?-proxy|noproxy|strict-ssl)(?:\[\])?["']?(?:\[\])?\s*=/i

async function writeNpmrc(places: readonly Place[], { dir, inherited }: ToolsOptions): Promise<Variables> {
  const own = inherited.npm_config_userconfig ?? inherited.NPM_CONFIG_USERCONFIG ?? join(homedir(), '.npmrc')
  const kept = (await readIfThere(own)).split('\n').filter((line) => !NOT_IN_NPMRC.test(line))
  const tokens = places.map(({ authority }) => `//${authority}/:_authToken=${PLACEHOLDER}`)
  const path = join(dir, 'npmrc')
  await writeFile(path, `${[...kept, ...tokens].join('\n')}\n`, { mode: 0o600 })
  return { npm_config_userconfig: path, YARN_NPM_AUTH_TOKEN: PLACEHOLDER }
}

function writeJson(path: string, value: unknown): Promise<void> {
  return writeFile(path, JSON.stringify(value, null, 2), { mode: 0o600 })
}

function parsed(json: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

async function readIfThere(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}
