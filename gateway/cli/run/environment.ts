/**
 * The environment of a command under `keyless run`, as a pure function: every variable by which some client finds its proxy
 * or its trusted certificates, placeholders where SDKs insist on a key, and none of the real secrets. There is no grant in it.
 */
import { delimiter } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Files made for this run (bundle.ts). */
export interface RunFiles {
  /** System roots, the user's own, and the gateway's CA, in one PEM file. */
  readonly ca: string
  /** The user's wgetrc plus the CA. */
  readonly wgetrc: string
  /** Directory with an ini file for PHP. */
  readonly phpDir: string
}

export interface EnvironmentOptions {
  /** What the layers of this run say besides: preloads, tools, Java. */
  readonly layers: Readonly<Record<string, string>>
  readonly inherited: Readonly<Record<string, string | undefined>>
  /** The forwarder: `http://agent:SECRET@127.0.0.1:PORT`. */
  readonly proxyUrl: string
  readonly files: RunFiles
  /** Of all services: environment variable → placeholder. */
  readonly placeholders: Readonly<Record<string, string>>
  /** Variables that the gateway reads its secrets from. */
  readonly secretEnv: readonly string[]
}

/** Loopback only: every further entry would be a way around the gateway. Bare hosts are all that every client understands. */
const NO_PROXY = 'localhost,127.0.0.1,::1'

/** The part that is of this run. What the user may have set in the same variables is in it where that can be added to. */
export function ownVariables({ inherited, files, ...options }: EnvironmentOptions): Record<string, string> {
  return {
    ...proxyVariables(options.proxyUrl),
    ...trustVariables(files),
    PHP_INI_SCAN_DIR: `${inherited.PHP_INI_SCAN_DIR ?? ''}:${files.phpDir}`, // an empty first part keeps PHP's own directory
    ...options.layers,
    ...options.placeholders,
  }
}

/** Before a user's own, which are loaded as well. */
export function preloadVariables({
  NODE_OPTIONS,
  PYTHONPATH,
}: EnvironmentOptions['inherited']): Record<string, string> {
  return {
    NODE_OPTIONS: joined(' ', `--require ${JSON.stringify(PRELOADS.node)}`, NODE_OPTIONS),
    PYTHONPATH: joined(delimiter, PRELOADS.python, PYTHONPATH),
  }
}

/** In the installation, not among the files of the run: what the command leaves running still starts when these are gone. */
const PRELOADS = {
  node: fileURLToPath(new URL('../preload/node.cjs', import.meta.url)),
  python: fileURLToPath(new URL('../preload', import.meta.url)),
}

/** An empty part would mean something: for Python, the current directory. */
function joined(separator: string, ...parts: (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined && part !== '').join(separator)
}

/**
 * Own variables in place of whatever was inherited under their names.
 * @param shims directory to put first in PATH; empty for none. @param own as `ownVariables` made it.
 */
export function childEnvironment(
  { inherited, secretEnv }: Pick<EnvironmentOptions, 'inherited' | 'secretEnv'>,
  own: Readonly<Record<string, string>>,
  shims: string,
): Record<string, string> {
  // npm and others read their variables in any case: a corporate NPM_CONFIG_PROXY must not survive beside ours.
  const replaced = new Set([...Object.keys(own), ...WAYS_AROUND, ...secretEnv].map((name) => name.toUpperCase()))
  const kept = Object.entries(inherited).filter(
    ([name, value]) => value !== undefined && !replaced.has(name.toUpperCase()),
  )
  const environment = { ...(Object.fromEntries(kept) as Record<string, string>), ...own }
  return shims === '' ? environment : { ...environment, PATH: joined(delimiter, shims, environment.PATH) }
}

/** Not set, only removed: each would lead some client past the proxy, or to another one. */
const WAYS_AROUND = [
  'NPM_CONFIG_NOPROXY',
  'NPM_CONFIG_CA',
  'FTP_PROXY',
  'SOCKS_PROXY',
  'RSYNC_PROXY',
  'GIT_SSL_NO_VERIFY',
  'NODE_TLS_REJECT_UNAUTHORIZED',
]

/** Both cases where clients differ: curl, wget and gRPC read `http_proxy` only in lower case, others only in upper. */
function proxyVariables(url: string): Record<string, string> {
  const { hostname, port, username, password } = new URL(url)
  return {
    HTTP_PROXY: url,
    HTTPS_PROXY: url,
    http_proxy: url, // Ruby takes it for https as well
    https_proxy: url,
    ALL_PROXY: url,
    all_proxy: url,
    WS_PROXY: url, // aiohttp: without these its WebSockets go past the proxy
    WSS_PROXY: url,
    ws_proxy: url,
    wss_proxy: url,
    grpc_proxy: url,
    NO_PROXY,
    no_proxy: NO_PROXY,
    NODE_USE_ENV_PROXY: '1', // Node 22.21 and 24.5 or newer
    AIOHTTP_TRUST_ENV: 'True',
    GIT_HTTP_PROXY_AUTHMETHOD: 'basic', // saves git the 407
    GIT_TERMINAL_PROMPT: '0', // fail with a message instead of waiting for a person
    GLOBAL_AGENT_HTTP_PROXY: url,
    GLOBAL_AGENT_HTTPS_PROXY: url,
    npm_config_proxy: url,
    npm_config_https_proxy: url,
    YARN_HTTP_PROXY: url,
    YARN_HTTPS_PROXY: url,
    PIP_PROXY: url,
    PERL_LWP_ENV_PROXY: '1',
    CGI_HTTP_PROXY: url,
    CLOUDSDK_PROXY_TYPE: 'http',
    CLOUDSDK_PROXY_ADDRESS: hostname,
    CLOUDSDK_PROXY_PORT: port,
    CLOUDSDK_PROXY_USERNAME: username,
    CLOUDSDK_PROXY_PASSWORD: password,
  }
}

function trustVariables({ ca, wgetrc }: RunFiles): Record<string, string> {
  return {
    SSL_CERT_FILE: ca, // OpenSSL, Go on Linux, httpx, urllib, Rust; replaces the system's roots, so these are in it
    NIX_SSL_CERT_FILE: ca,
    NODE_EXTRA_CA_CERTS: ca,
    DENO_CERT: ca,
    DENO_TLS_CA_STORE: 'system,mozilla',
    REQUESTS_CA_BUNDLE: ca,
    CURL_CA_BUNDLE: ca,
    HTTPLIB2_CA_CERTS: ca,
    PIP_CERT: ca,
    AWS_CA_BUNDLE: ca,
    GIT_SSL_CAINFO: ca, // git is often built without OpenSSL and ignores SSL_CERT_FILE
    GIT_PROXY_SSL_CAINFO: ca,
    CARGO_HTTP_CAINFO: ca,
    npm_config_cafile: ca,
    YARN_HTTPS_CA_FILE_PATH: ca,
    GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: ca,
    CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE: ca,
    PERL_LWP_SSL_CA_FILE: ca,
    BUNDLE_SSL_CA_CERT: ca,
    CODEX_CA_CERTIFICATE: ca,
    WGETRC: wgetrc, // wget has no variable for it
  }
}
