/**
 * The client matrix: every client that is driven through a real gateway, how it finds the proxy and the CA, and what works.
 * `docs/clients.md` is made of this; `matrix.test.ts` drives every row with exactly the variables that it names.
 */

export const CASES = ['get', 'post', 'upload', 'download', 'sse', 'ws'] as const
export type Case = (typeof CASES)[number]

export type Toolchain = 'curl' | 'wget' | 'npm' | 'pip' | 'python' | 'node' | 'node-20' | 'go' | 'java' | 'cargo'

export interface MatrixClient {
  /** First segment of the paths it asks for. */
  readonly id: string
  /** As users call it. */
  readonly title: string
  readonly needs: Toolchain
  /** What the program of its language calls it. Default: `id`. */
  readonly program?: string
  /** Variables without which it does not find the proxy; empty: no variable leads it there, and `keyless run` has to. */
  readonly proxy: readonly string[]
  /** Variables without which it does not trust the CA. */
  readonly ca: readonly string[]
  /** Further variables, with their values. */
  readonly also?: Readonly<Record<string, string>>
  readonly works: readonly Case[]
  /** Service of the test; it decides the dialect of refusals. Default `api`. */
  readonly service?: 'api' | 'openai' | 'anthropic' | 'aws' | 'npm' | 'pypi'
  /** What its user sees of a call that policy refuses, in words for the documentation. */
  readonly shows: string
  /** The same, to be found in what it says. */
  readonly shown: RegExp
  /** What its user sees when the gateway does not know the grant: a CONNECT answered with 407. Absent: as another row. */
  readonly unknown?: RegExp
  /** What `keyless run` adds where variables do not suffice, or what can be done without a proxy. */
  readonly fallback?: string
  readonly notes?: string
}

const EVERYTHING = ['get', 'post', 'upload', 'download', 'sse', 'ws'] as const
const NO_WS = ['get', 'post', 'upload', 'download', 'sse'] as const
const SENTENCE = /Policy does not allow this call/
/** A socket that policy refuses. */
const REFUSED_WS = /403/
const BODY = 'the body of the refusal'

/** Node's own HTTP, and fetch, take the proxy from the environment only when told to. */
const NODE = { proxy: ['HTTPS_PROXY'], ca: ['NODE_EXTRA_CA_CERTS'], also: { NODE_USE_ENV_PROXY: '1' } } as const

export const clients: readonly MatrixClient[] = [
  {
    id: 'curl',
    title: 'curl',
    needs: 'curl',
    proxy: ['https_proxy'],
    ca: ['CURL_CA_BUNDLE'],
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    unknown: /response 407/,
    notes: 'For `http://` it reads `http_proxy` in lower case only. With `-f` it hides the body of a refusal.',
  },
  {
    id: 'wget',
    title: 'wget',
    needs: 'wget',
    proxy: ['https_proxy'],
    ca: ['WGETRC'],
    works: NO_WS,
    shows: 'the status; the body with `--content-on-error`',
    shown: SENTENCE,
    unknown: /407|error/,
    notes:
      'Reads lower-case variables only. No variable names a CA; `WGETRC` names a file with `ca_certificate=`. Uploads are sent with their length.',
  },
  {
    id: 'npm',
    title: 'npm',
    needs: 'npm',
    proxy: ['HTTPS_PROXY'],
    ca: ['NODE_EXTRA_CA_CERTS'],
    works: ['get', 'download'],
    service: 'npm',
    shows: '`E403` and the sentence',
    shown: SENTENCE,
    unknown: /407|code E|error/,
    notes:
      'The token of the registry in `.npmrc` is a placeholder. `npm_config_cafile` works in place of `NODE_EXTRA_CA_CERTS`.',
  },
  {
    id: 'pip',
    title: 'pip',
    needs: 'pip',
    proxy: ['https_proxy'],
    ca: ['PIP_CERT'],
    works: ['download'],
    service: 'pypi',
    shows: '“No matching distribution found”; `keyless log tail` has the reason',
    shown: /No matching distribution found for refused-package/,
    unknown: /407|No matching distribution/,
    notes: 'Hides every error of an index behind one sentence; `pip -v` shows the status.',
  },
  {
    id: 'node-fetch',
    title: 'Node `fetch` and `WebSocket`',
    needs: 'node',
    program: 'fetch',
    ...NODE,
    works: EVERYTHING,
    shows: BODY,
    shown: SENTENCE,
    unknown: /407/,
    fallback: 'before Node 22.21 and 24.5: the preload',
  },
  {
    id: 'node-undici',
    title: 'undici with `EnvHttpProxyAgent`',
    needs: 'node',
    program: 'undici',
    proxy: ['HTTPS_PROXY'],
    ca: ['NODE_EXTRA_CA_CERTS'],
    works: EVERYTHING,
    shows: BODY,
    shown: SENTENCE,
    unknown: /407/,
  },
  {
    id: 'node-axios',
    title: 'axios',
    needs: 'node',
    program: 'axios',
    proxy: ['HTTPS_PROXY'],
    ca: ['NODE_EXTRA_CA_CERTS'],
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    unknown: /407/,
    notes:
      'Up to 1.15 it sends `GET https://…` in the clear to the proxy instead of a CONNECT; the gateway takes both.',
  },
  {
    id: 'node-got',
    title: 'got',
    needs: 'node',
    program: 'got',
    ...NODE,
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    unknown: /407/,
    fallback: 'before Node 22.21 and 24.5: the preload',
  },
  {
    id: 'node-ws',
    title: 'ws (npm)',
    needs: 'node',
    program: 'ws',
    proxy: [],
    ca: ['NODE_EXTRA_CA_CERTS'],
    works: ['ws'],
    shows: 'the status',
    shown: REFUSED_WS,
    fallback: 'the preload',
    notes: 'So with every Node client that brings an agent of its own: stripe, the AWS SDK, superagent.',
  },
  {
    id: 'node-20',
    title: 'Node 20 `fetch`',
    needs: 'node-20',
    program: 'fetch',
    proxy: [],
    ca: ['NODE_EXTRA_CA_CERTS'],
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    fallback: 'the preload, with an agent of its own',
    notes: 'It knows neither proxy variables nor `NODE_USE_ENV_PROXY`.',
  },
  {
    id: 'node-openai',
    title: 'openai (npm)',
    needs: 'node',
    program: 'openai',
    ...NODE,
    works: ['post', 'sse'],
    service: 'openai',
    shows: '`403` and the sentence, one attempt',
    shown: /403 Policy does not allow this call/,
    unknown: /Connection error/,
    fallback: '`OPENAI_BASE_URL`',
  },
  {
    id: 'node-anthropic',
    title: '@anthropic-ai/sdk',
    needs: 'node',
    program: 'anthropic',
    ...NODE,
    works: ['post', 'sse'],
    service: 'anthropic',
    shows: '`403` and the body, one attempt',
    shown: SENTENCE,
    fallback: '`ANTHROPIC_BASE_URL`',
  },
  {
    id: 'python-urllib',
    title: 'Python urllib',
    needs: 'python',
    program: 'urllib',
    proxy: ['https_proxy'],
    ca: ['SSL_CERT_FILE'],
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    unknown: /407/,
    notes: 'Sends CONNECT as HTTP/1.0, without Host.',
  },
  {
    id: 'python-requests',
    title: 'Python requests',
    needs: 'python',
    program: 'requests',
    proxy: ['HTTPS_PROXY'],
    ca: ['REQUESTS_CA_BUNDLE'],
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    unknown: /407/,
    notes: 'Ignores `SSL_CERT_FILE`.',
  },
  {
    id: 'python-httpx',
    title: 'Python httpx',
    needs: 'python',
    program: 'httpx',
    proxy: ['HTTPS_PROXY'],
    ca: ['SSL_CERT_FILE'],
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    unknown: /407/,
    notes: 'Gives up after 5 s without an answer unless told otherwise.',
  },
  {
    id: 'python-aiohttp-trust-env',
    title: 'Python aiohttp, `trust_env=True`',
    needs: 'python',
    program: 'aiohttp-trust-env',
    proxy: ['HTTPS_PROXY', 'WSS_PROXY'],
    ca: ['SSL_CERT_FILE'],
    works: EVERYTHING,
    shows: BODY,
    shown: SENTENCE,
    unknown: /407/,
    notes: 'Without `WSS_PROXY` its WebSockets go past the proxy.',
  },
  {
    id: 'python-aiohttp',
    title: 'Python aiohttp',
    needs: 'python',
    program: 'aiohttp',
    proxy: [],
    ca: ['SSL_CERT_FILE'],
    works: EVERYTHING,
    shows: BODY,
    shown: SENTENCE,
    fallback: 'the `sitecustomize`',
  },
  {
    id: 'python-urllib3',
    title: 'Python urllib3',
    needs: 'python',
    program: 'urllib3',
    proxy: [],
    ca: [],
    works: ['get', 'post', 'upload', 'download'],
    shows: BODY,
    shown: SENTENCE,
    fallback: 'the `sitecustomize`',
    notes: 'A bare `PoolManager` reads no variable, not even for the CA.',
  },
  {
    id: 'python-websockets',
    title: 'Python websockets',
    needs: 'python',
    program: 'websockets',
    proxy: ['https_proxy'],
    ca: ['SSL_CERT_FILE'],
    works: ['ws'],
    shows: 'the status',
    shown: REFUSED_WS,
    unknown: /407/,
  },
  {
    id: 'python-openai',
    title: 'openai (Python)',
    needs: 'python',
    program: 'openai',
    proxy: ['HTTPS_PROXY'],
    ca: ['SSL_CERT_FILE'],
    works: ['post', 'sse'],
    service: 'openai',
    shows: '`PermissionDeniedError` and the body, one attempt',
    shown: SENTENCE,
    unknown: /Connection error/,
    fallback: '`OPENAI_BASE_URL`',
  },
  {
    id: 'python-anthropic',
    title: 'anthropic (Python)',
    needs: 'python',
    program: 'anthropic',
    proxy: ['HTTPS_PROXY'],
    ca: ['SSL_CERT_FILE'],
    works: ['post', 'sse'],
    service: 'anthropic',
    shows: '`PermissionDeniedError` and the body, one attempt',
    shown: SENTENCE,
    fallback: '`ANTHROPIC_BASE_URL`',
  },
  {
    id: 'python-langchain',
    title: 'LangChain (Python, `langchain-openai`)',
    needs: 'python',
    program: 'langchain',
    proxy: ['HTTPS_PROXY'],
    ca: ['SSL_CERT_FILE'],
    works: ['post', 'sse'],
    service: 'openai',
    shows: '`PermissionDeniedError` and the body, one attempt',
    shown: SENTENCE,
    notes: 'An agent framework led by the proxy alone: no line of its code knows of the gateway.',
  },
  {
    id: 'python-boto3',
    title: 'boto3 (S3, STS, DynamoDB)',
    needs: 'python',
    program: 'boto3',
    proxy: ['HTTPS_PROXY'],
    ca: ['AWS_CA_BUNDLE'],
    also: { AWS_EC2_METADATA_DISABLED: 'true' },
    works: ['upload', 'download'],
    service: 'aws',
    shows: '`AccessDenied` and the sentence, in each of its protocols',
    shown:
      /AccessDenied: .*\(AccessDenied\).*Policy does not allow.*\n?.*\(AccessDenied\).*Policy does not allow.*\n?.*\(AccessDeniedException\).*Policy does not allow/s,
    unknown: /Failed to connect to proxy URL/,
    notes:
      'CONNECT is HTTP/1.0 without Host; uploads wait for `100 Continue`. The signature that it makes with placeholder keys is removed.',
  },
  {
    id: 'go',
    title: 'Go `net/http`',
    needs: 'go',
    proxy: ['HTTPS_PROXY'],
    ca: ['SSL_CERT_FILE'],
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    unknown: /Proxy Authentication Required|grant is not valid/,
    notes:
      'Also rclone, terraform, kubectl, skopeo, gh. Never proxies loopback. On macOS it reads the keychain, not `SSL_CERT_FILE`.',
  },
  {
    id: 'java',
    title: 'Java `HttpClient`',
    needs: 'java',
    proxy: [],
    ca: [],
    works: EVERYTHING,
    shows: BODY,
    shown: SENTENCE,
    fallback: '`JAVA_TOOL_OPTIONS`: proxy properties and a trust store',
    notes:
      'Its proxy properties have no place for credentials, so `keyless run` opens it a port that takes none, for processes of the same user only.',
  },
  {
    id: 'reqwest',
    title: 'Rust reqwest (`rustls-tls-native-roots`)',
    needs: 'cargo',
    proxy: ['HTTPS_PROXY'],
    ca: ['SSL_CERT_FILE'],
    works: NO_WS,
    shows: BODY,
    shown: SENTENCE,
    unknown: /ProxyAuthRequired/,
    notes: 'Built with `webpki-roots` it trusts no CA that a variable names.',
  },
]
