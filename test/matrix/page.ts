/** Makes docs/clients.md of the matrix. `npm run docs:clients` writes it; `page.test.ts` compares. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { ROOT } from '../rig/process.ts'
import { CASES, type Case, clients, type MatrixClient } from './clients.ts'
import { tools } from './tools.ts'

export const PAGE = join(ROOT, 'docs', 'clients.md')

const WORDS: Readonly<Record<Case, string>> = {
  get: 'GET',
  post: 'POST',
  upload: 'upload',
  download: 'download',
  sse: 'SSE',
  ws: 'WebSocket',
}

export function clientsPage(): string {
  return `${[
    START,
    table(
      ['Client', 'Finds the proxy by', 'Trusts the CA by', ...CASES.map((one) => WORDS[one]), 'Otherwise'],
      clients.map(clientRow),
    ),
    REFUSALS,
    table(
      ['Client', 'Shows of a call that policy refuses', 'What to know'],
      clients.map(({ title, shows, notes }) => [title, shows, notes ?? '']),
    ),
    TOOLS,
    table(
      ['Tool', 'What works', 'What to know', 'Held by'],
      tools.map(({ title, works, notes, heldBy }) => [title, works, notes, `\`${heldBy}\``]),
    ),
    REST,
  ].join('\n\n')}\n`
}

function clientRow({ title, proxy, ca, also, works, fallback }: MatrixClient): string[] {
  const further = Object.entries(also ?? {}).map(([name, value]) => `\`${name}=${value}\``)
  const found = proxy.length === 0 ? ['no variable'] : [...proxy.map(code), ...further]
  return [
    title,
    found.join(', '),
    ca.length === 0 ? 'no variable' : ca.map(code).join(', '),
    ...CASES.map((one) => (works.includes(one) ? '✓' : '')),
    otherwise(proxy, fallback),
  ]
}

function otherwise(proxy: readonly string[], fallback: string | undefined): string {
  if (fallback === undefined) return ''
  return proxy.length === 0 ? `\`keyless run\`: ${fallback}` : fallback
}

function code(name: string): string {
  return `\`${name}\``
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

const START = `# Clients

Made of \`test/matrix/clients.ts\` by \`npm run docs:clients\`: what is claimed here is what the tests drive, as real programs, through a
real gateway to a real server. Change that file, not this one.

Under [\`keyless run\`](run.md) every client below works, told nothing. Without it, point the variables of its row at the gateway
(\`http://TASK:HANDLE@127.0.0.1:8080\`) and at a PEM file with the gateway's CA; they are all it needs. Both parts of the proxy's user
information have to be there: many clients send nothing of \`http://HANDLE@…\`.

A ✓ is a case that is tested: a plain GET, a POST of JSON, an upload of 3 MB (streamed unless noted), a download of 3 MB, server-sent
events that only go on once the client has seen the first one, a WebSocket. An empty cell is a case the client is not made for, or that its
row does not claim. In each the server sees the real credential and nothing that the client sent as its own, and the client sees none.`

const REFUSALS = `## What its user sees of a refusal

A refusal is answered inside the tunnel, in the [dialect](errors.md) of the service or of the client, because most clients show nothing of a refused
CONNECT but its status. A CONNECT is refused only when the grant itself is missing or unknown; its reason phrase then says why.`

const TOOLS = `## Tools

Tested in files of their own.`

const REST = `## Without a proxy

Every SDK that takes a base URL works on a [reverse route](run.md#without-a-proxy-base-urls), without proxy and CA: \`OPENAI_BASE_URL\`,
\`ANTHROPIC_BASE_URL\`, \`AWS_ENDPOINT_URL\`, \`npm_config_registry\`, \`PIP_INDEX_URL\` and others. Codex takes its base URL from its
configuration only.

## Frameworks

LangChain is a row above; it stands for what is built on the SDKs of OpenAI and Anthropic, whose variables are then the framework's. CrewAI and
others that go through LiteLLM use aiohttp: \`AIOHTTP_TRUST_ENV=True\`, which \`keyless run\` sets. AutoGPT is a service that runs in containers: give
these the variables of Python httpx and requests, and the CA as a mounted file. Neither is driven by these tests.

## Known to be different

Observed elsewhere, not driven by these tests:

- **NO_PROXY**: only bare host names are understood by every client; each entry is a way around the gateway. \`keyless run\` sets
  loopback, nothing else.
- **Loopback**: Go and Ruby never proxy \`localhost\` and 127.0.0.1.
- **Deno** sends its proxy credentials to the server as well; the gateway removes them inside tunnels that it opens.
- **Chromium** takes no credentials from a proxy variable, and no CA from any; Playwright takes both as options.
- **Bun**'s WebSocket ignores every proxy variable.
- **Ruby** uses \`http_proxy\` for https too. **Perl**'s LWP wants \`PERL_LWP_ENV_PROXY=1\`. **PHP** reads its CA from an ini file.
- **yarn** (berry) reads \`YARN_HTTPS_PROXY\` and \`YARN_HTTPS_CA_FILE_PATH\` only.
- **gcloud** reads \`CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE\`; **gRPC** (C core, Python) reads \`https_proxy\` in lower case and
  \`GRPC_DEFAULT_SSL_ROOTS_FILE_PATH\`.
- **curl_cffi**, and Rust programs with \`webpki-roots\`, trust no CA that a variable names: use a base URL.`

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await writeFile(PAGE, clientsPage())
