/** Settings that lead to an upstream of a test: services of its own on one port of this machine, and their credentials. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { stringify } from 'yaml'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { type ControlClient, controlClient } from '../../gateway/cli/control-client.ts'
import { openGateway } from '../../gateway/main.ts'
import type { ServiceFile } from '../../gateway/policy/catalogue/catalogue.ts'
import type { Clock } from '../../gateway/protocol/clock.ts'
import { loadSettings } from '../../gateway/settings.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { stopwatch } from '../rig/stopwatch.ts'

export interface Place {
  readonly port: number
  readonly caPem: string
}

export type Operations = ServiceFile['operations']

export interface Wanted {
  readonly services: readonly (Pick<ServiceFile, 'name' | 'operations'> & Partial<ServiceFile>)[]
  /** Name → value of a standing key, written to a file; or a credential as in settings. */
  readonly credentials?: Readonly<Record<string, string | object>>
  /** Further settings. */
  readonly settings?: Readonly<Record<string, unknown>>
  /** Cedar files besides the shipped ones; `only` leaves those out. */
  readonly policies?: { readonly text: string; readonly only?: boolean }
}

export interface Site {
  readonly dir: string
  readonly yaml: string
  remove(): Promise<void>
}

export const BEARER = { in: 'header', name: 'authorization', prefix: 'Bearer ' } as const

const SHIPPED = new URL('../../policies/', import.meta.url).pathname

/** Every service answers on `<name>.keyless.test`, which leads to 127.0.0.1. */
export async function writeSite(place: Place, wanted: Wanted): Promise<Site> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-site-'))
  const write = async (name: string, text: string) => {
    await writeFile(join(dir, name), text, { mode: 0o600 })
    return join(dir, name)
  }
  const services = await Promise.all(
    wanted.services.map((service) =>
      write(
        `${service.name}.yaml`,
        stringify({
          title: service.name,
          hosts: [`${service.name}.keyless.test`],
          ports: [place.port],
          addresses: ['127.0.0.1/32'],
          slots: [BEARER],
          ...service,
        }),
      ),
    ),
  )
  const credentials: Record<string, object> = {}
  for (const [name, value] of Object.entries(wanted.credentials ?? {})) {
    credentials[name] =
      typeof value === 'string' ? { provider: 'static', value: { file: await write(`${name}.secret`, value) } } : value
  }
  const hosts = Object.fromEntries(
    wanted.services
      .flatMap((service) => service.hosts ?? [`${service.name}.keyless.test`])
      .map((host) => [host, '127.0.0.1']),
  )
  const { upstream, ...settings } = (wanted.settings ?? {}) as { upstream?: { hosts?: object } }
  const policies = wanted.policies && [
    ...(wanted.policies.only ? [] : [SHIPPED]),
    await write('test.cedar', wanted.policies.text),
  ]
  const yaml = stringify({
    services,
    credentials,
    ...(policies && { policies }),
    upstream: { ca: [await write('ca.pem', place.caPem)], ...upstream, hosts: { ...hosts, ...upstream?.hosts } },
    ...settings,
  })
  return { dir, yaml, remove: () => rm(dir, { recursive: true, force: true }) }
}

export interface OpenSite {
  readonly gateway: TestGateway
  stop(): Promise<void>
}

/** A gateway before these services. */
export async function openSite(place: Place, wanted: Wanted): Promise<OpenSite> {
  const site = await writeSite(place, wanted)
  const gateway = await startGateway(site.yaml)
  return {
    gateway,
    async stop() {
      await gateway.stop()
      await site.remove()
    },
  }
}

export interface TimedSite {
  readonly proxyPort: number
  readonly control: ControlClient
  readonly dataDir: string
  stop(): Promise<void>
}

/** The same by a clock that a test moves. */
export async function openTimedSite(place: Place, wanted: Wanted, clock: Clock): Promise<TimedSite> {
  const site = await writeSite(place, wanted)
  const file = join(site.dir, 'keyless.yaml')
  const listen = 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }'
  await writeFile(file, `data_dir: ${site.dir}/data\n${listen}\n${site.yaml}`)
  const settings = await loadSettings(file)
  const gateway = await openGateway(settings, clock)
  return {
    proxyPort: Number(new URL(gateway.proxy).port),
    control: controlClient(settings.listen.controlSocket),
    dataDir: settings.dataDir,
    async stop() {
      await gateway.stop()
      await site.remove()
    },
  }
}

/**
 * Every entry of the log. An outcome is written some milliseconds after its call, so this waits until each allowed call has
 * one, or nothing more is written for half a second in which this process could run: a call that was cut short by a crash never gets it.
 */
export async function entriesOf(dataDir: string): Promise<Entry[]> {
  let watch = stopwatch()
  try {
    for (let known = 0; ; ) {
      const entries = await readEntries(dataDir)
      if (watch.ms > 500 || openCalls(entries) === 0) return entries
      if (entries.length > known) {
        watch[Symbol.dispose]()
        watch = stopwatch()
      }
      known = entries.length
      await pause(5)
    }
  } finally {
    watch[Symbol.dispose]()
  }
}

function openCalls(entries: readonly Entry[]): number {
  const allowed = entries.filter(({ kind, decision }) => kind === 'call.decision' && decision?.effect === 'allow')
  return allowed.length - entries.filter(({ kind }) => kind === 'call.outcome').length
}

async function readEntries(dataDir: string): Promise<Entry[]> {
  const text = await readFile(join(dataDir, 'audit', 'entries.jsonl'), 'utf8')
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Entry)
}
