/** docs/errors.md, Dialects: what command-line tools print of a refusal is the sentence, because it comes in their own shape. */
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { onPath } from '../rig/cache.ts'
import { run } from '../rig/process.ts'

let site: OpenSite
let task: OpenedTask
let home: string

/** What a registry client asks first, and of whose refusal it shows no more than the status; everything else is refused. */
const operations = { ping: { match: ['GET /v2'], access: 'read' as const } }
const names = ['github', 'registry', 'cluster', 'plain']
let upstream: Server

beforeAll(async () => {
  const { caPem, key, cert } = await throwAwayTls(names.map((name) => `${name}.keyless.test`))
  upstream = createServer({ key, cert }, (_, response) => response.end())
  upstream.listen(0, '127.0.0.1')
  await once(upstream, 'listening')
  const { port } = upstream.address() as AddressInfo
  site = await openSite(
    { port, caPem },
    {
      services: [
        { name: 'github', ports: [443], dialect: 'github', operations },
        { name: 'registry', dialect: 'docker', operations },
        { name: 'cluster', ports: [443], dialect: 'kubernetes', operations },
        { name: 'plain', ports: [443, port], operations },
      ],
      credentials: Object.fromEntries(names.map((name) => [name, 'a-standing-key'])),
    },
  )
  task = await site.gateway.openTask(names.map((name) => `${name}:*`).join(' '))
  home = await mkdtemp(join(tmpdir(), 'keyless-dialects-'))
  await writeFile(join(home, 'ca.pem'), (await site.gateway.control.status()).ca_pem)
})

afterAll(async () => {
  await site.stop()
  upstream.close()
  await rm(home, { recursive: true, force: true })
})

/** Of a refused discovery kubectl says only `unknown`; this asks without. */
const PODS = ['get', '--raw', '/api/v1/namespaces/site/pods'] as const
const GH = { GH_HOST: 'github.keyless.test', GH_ENTERPRISE_TOKEN: 'placeholder', GH_NO_UPDATE_NOTIFIER: '1' }

/** Tools that .ci/run installs have to be there in CI; kubectl is driven where the machine has it. */
it.for([
  ['gh', ['api', 'repos/acme/site'], GH, true],
  ['skopeo', ['inspect', 'docker://registry.keyless.test:PORT/acme/site:latest'], {}, true],
  // The service has no dialect of its own: the registry client is known by its User-Agent.
  ['skopeo', ['inspect', 'docker://plain.keyless.test:PORT/acme/site:latest'], {}, true],
  ['kubectl', ['--server', 'https://cluster.keyless.test', '--token', 'placeholder', ...PODS], {}, false],
  ['kubectl', ['--server', 'https://plain.keyless.test', '--token', 'placeholder', ...PODS], {}, false],
] as const)('%s %j says why', async ([command, args, env, isPromised], { skip }) => {
  if (!onPath(command) && !(process.env.CI && isPromised)) return skip(`this machine has no ${command}`)
  const { code, stdout, stderr } = await run(
    command,
    args.map((one) => one.replace('PORT', String((upstream.address() as AddressInfo).port))),
    {
      env: {
        PATH: process.env.PATH,
        HOME: home,
        SSL_CERT_FILE: join(home, 'ca.pem'),
        HTTPS_PROXY: `http://${task.task}:${task.handle}@127.0.0.1:${site.gateway.proxyPort}`,
        ...env,
      },
    },
  )
  expect(code).not.toBe(0)
  expect(stdout + stderr).toMatch(/Policy does not allow this call: .*keyless policy_denied/s)
})
