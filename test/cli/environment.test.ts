import { describe, expect, it } from 'vitest'
import { childEnvironment, ownVariables, preloadVariables } from '../../gateway/cli/run/environment.ts'

const PROXY = 'http://agent:00ff@127.0.0.1:4711'
const files = { ca: '/run/x/ca.pem', wgetrc: '/run/x/wgetrc', phpDir: '/run/x/php' }

function environment(
  inherited: Record<string, string | undefined> = {},
  placeholders: Record<string, string> = {},
  secretEnv: string[] = [],
  layers: Record<string, string> = {},
) {
  const options = { inherited, proxyUrl: PROXY, files, layers, placeholders, secretEnv }
  return childEnvironment(options, ownVariables(options), '/run/x/bin')
}

/** clients.md §9: variable → what it must hold. */
const PROXIES = [
  ...['HTTP_PROXY', 'HTTPS_PROXY', 'http_proxy', 'https_proxy', 'ALL_PROXY', 'all_proxy'],
  ...['WS_PROXY', 'WSS_PROXY', 'ws_proxy', 'wss_proxy', 'grpc_proxy'],
  ...['GLOBAL_AGENT_HTTP_PROXY', 'GLOBAL_AGENT_HTTPS_PROXY', 'npm_config_proxy', 'npm_config_https_proxy'],
  ...['YARN_HTTP_PROXY', 'YARN_HTTPS_PROXY', 'PIP_PROXY', 'CGI_HTTP_PROXY'],
]
const ROOTS = [
  ...['SSL_CERT_FILE', 'NIX_SSL_CERT_FILE', 'NODE_EXTRA_CA_CERTS', 'DENO_CERT', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'],
  ...['HTTPLIB2_CA_CERTS', 'PIP_CERT', 'AWS_CA_BUNDLE', 'GIT_SSL_CAINFO', 'GIT_PROXY_SSL_CAINFO', 'CARGO_HTTP_CAINFO'],
  ...['npm_config_cafile', 'YARN_HTTPS_CA_FILE_PATH', 'GRPC_DEFAULT_SSL_ROOTS_FILE_PATH', 'PERL_LWP_SSL_CA_FILE'],
  ...['CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE', 'BUNDLE_SSL_CA_CERT', 'CODEX_CA_CERTIFICATE'],
]

describe('the environment of a command', () => {
  it.each(PROXIES)('leads %s to the forwarder, over a corporate proxy if need be', (name) => {
    expect(environment({ [name]: 'http://proxy.corp.test:3128' })[name]).toBe(PROXY)
  })

  it.each(ROOTS)('lets %s trust the combined roots', (name) => {
    expect(environment({ [name]: '/etc/corp.pem' })[name]).toBe(files.ca)
  })

  it.each([
    ['NODE_USE_ENV_PROXY', '1'],
    ['AIOHTTP_TRUST_ENV', 'True'],
    ['GIT_HTTP_PROXY_AUTHMETHOD', 'basic'],
    ['GIT_TERMINAL_PROMPT', '0'],
    ['PERL_LWP_ENV_PROXY', '1'],
    ['DENO_TLS_CA_STORE', 'system,mozilla'],
    ['NO_PROXY', 'localhost,127.0.0.1,::1'],
    ['no_proxy', 'localhost,127.0.0.1,::1'],
    ['WGETRC', files.wgetrc],
    ['CLOUDSDK_PROXY_TYPE', 'http'],
    ['CLOUDSDK_PROXY_ADDRESS', '127.0.0.1'],
    ['CLOUDSDK_PROXY_PORT', '4711'],
    ['CLOUDSDK_PROXY_USERNAME', 'agent'],
    ['CLOUDSDK_PROXY_PASSWORD', '00ff'],
  ])('sets %s to %s', (name, value) => {
    expect(environment({ [name]: 'inherited' })[name]).toBe(value)
  })

  it('replaces a variable in whatever case it is inherited', () => {
    const env = environment({
      NPM_CONFIG_PROXY: 'http://corp',
      Npm_Config_Https_Proxy: 'http://corp',
      GRPC_PROXY: 'http://corp',
    })
    expect(Object.values(env)).not.toContain('http://corp')
  })

  it.each([
    'NPM_CONFIG_NOPROXY',
    'npm_config_noproxy',
    'ftp_proxy',
    'SOCKS_PROXY',
    'NODE_TLS_REJECT_UNAUTHORIZED',
    'GIT_SSL_NO_VERIFY',
  ])('removes %s, a way around', (name) => expect(environment({ [name]: '*' })).not.toHaveProperty(name))

  it('leaves PHP its own configuration directory, and a user’s', () => {
    expect(environment().PHP_INI_SCAN_DIR).toBe(':/run/x/php')
    expect(environment({ PHP_INI_SCAN_DIR: '/etc/mine' }).PHP_INI_SCAN_DIR).toBe('/etc/mine:/run/x/php')
  })

  it('puts the preloads before a user’s own, so that both are loaded', () => {
    const alone = preloadVariables({})
    expect(alone.NODE_OPTIONS).toMatch(/^--require "\/.*\/preload\/node\.cjs"$/)
    expect(alone.PYTHONPATH).toMatch(/^\/.*\/preload$/) // an empty part would be the current directory
    const both = preloadVariables({ NODE_OPTIONS: '--max-old-space-size=99', PYTHONPATH: '/mine' })
    expect(both.NODE_OPTIONS).toBe(`${alone.NODE_OPTIONS} --max-old-space-size=99`)
    expect(both.PYTHONPATH).toBe(`${alone.PYTHONPATH}:/mine`)
  })

  it('puts the shims first on PATH', () => {
    expect(environment({ PATH: '/usr/bin' }).PATH).toBe('/run/x/bin:/usr/bin')
    expect(environment().PATH).toBe('/run/x/bin')
  })

  it('takes what a layer says in the place of what was inherited', () => {
    const env = environment({ KUBECONFIG: '/home/u/.kube/config' }, {}, [], { KUBECONFIG: '/run/x/kubeconfig' })
    expect(env.KUBECONFIG).toBe('/run/x/kubeconfig')
  })

  it('removes the real secrets and sets placeholders, which win over both', () => {
    const env = environment(
      { OPENAI_API_KEY: 'sk-real', VAULT_TOKEN: 'real', GITHUB_TOKEN: 'ghp_real', HOME: '/home/u' },
      { OPENAI_API_KEY: 'sk-placeholder', GITHUB_TOKEN: 'ghp_placeholder' },
      ['VAULT_TOKEN', 'GITHUB_TOKEN'],
    )
    expect(env).toMatchObject({ OPENAI_API_KEY: 'sk-placeholder', GITHUB_TOKEN: 'ghp_placeholder', HOME: '/home/u' })
    expect(env).not.toHaveProperty('VAULT_TOKEN')
    expect(JSON.stringify(env)).not.toContain('real')
  })

  it('keeps everything else as it was, and drops what is undefined', () => {
    const env = environment({ PATH: '/bin', LANG: 'de_DE.UTF-8', EMPTY: '', GONE: undefined })
    expect(env).toMatchObject({ PATH: '/run/x/bin:/bin', LANG: 'de_DE.UTF-8', EMPTY: '' })
    expect(env).not.toHaveProperty('GONE')
  })

  it('sets no base URL: interception serves the SDKs’ own', () => {
    expect(Object.keys(environment()).filter((name) => /BASE_URL|ENDPOINT/.test(name))).toEqual([])
  })
})
