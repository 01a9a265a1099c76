/** The house rules that a reviewer would otherwise have to see (DESIGN §4): arrows, cycles, purity, who may touch what. */
import { readdirSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { readSource, type Source } from './rig/source.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const MAX_LINES = 300

/**
 * Place in the house → height. An import may only lead to a lower place, or stay in its own. Files that stand directly in
 * `gateway/` are places of their own; `settings.ts` belongs to its room.
 */
const HEIGHTS: Readonly<Record<string, number>> = {
  'keyless.ts': 9,
  'main.ts': 8,
  'house.ts': 7.5,
  house: 7,
  ingress: 6,
  control: 6,
  cli: 6,
  'request.ts': 5.2,
  'request-deciding.ts': 5.1,
  'request-rooms.ts': 5,
  'instruction.ts': 5,
  'warm.ts': 5,
  settings: 4,
  lease: 3,
  records: 3,
  approval: 2,
  grant: 2,
  identity: 2,
  policy: 2,
  provider: 2,
  upstream: 2,
  audit: 2,
  protocol: 1,
  'door-tls.ts': 0,
  'private-file.ts': 0,
  'redis-answer.ts': 0,
  'sqlite-file.ts': 0,
  'thread-env.ts': 0,
  'version.ts': 0,
}
const FORBIDDEN_NAMES = /^(?:utils?|helpers?|commons?|types?|shared|lib|misc|managers?|handlers?)(?:\.ts)?$/
const PURE = /^gateway\/(?!cli\/)(?:.*\/)?(?:lease\/key|attenuate|lineage|address|merkle|decision|target)\.ts$/
const IO = /^node:(?:fs|net|tls|https?|http2|dns|dgram|child_process|worker_threads|timers|sqlite|process|os)(?:\/|$)/

type Rule = (source: Source, sources: ReadonlyMap<string, Source>) => string[]

const rules: Readonly<Record<string, Rule>> = {
  'imports only lead down the house': (source) =>
    gatewayImports(source).flatMap((to) => {
      const [here, there] = [placeOf(source.path), placeOf(to)]
      if (here === there) return []
      const [from, onto] = [HEIGHTS[here], HEIGHTS[there]]
      if (from === undefined) return [`${here} has no place in HEIGHTS`]
      return onto !== undefined && onto < from ? [] : [`${here} must not import ${to}`]
    }),

  'relative imports name an existing file with its ending': (source, sources) =>
    source.imports
      .map((entry) => entry.from)
      .filter((from) => from.startsWith('.'))
      .filter((from) => !sources.has(resolveImport(source.path, from)) && from !== '../package.json')
      .map((from) => `no file ${from}`),

  'the gateway imports nothing of tests, bench or deployment': (source) =>
    source.imports
      .map((entry) => resolveImport(source.path, entry.from))
      .filter((to) => to.startsWith('.') || (to !== 'package.json' && !to.startsWith('gateway/') && !isPackage(to)))
      .map((to) => `imports ${to}`),

  'packages are declared dependencies and builtins carry node:': (source) =>
    source.imports
      .map((entry) => entry.from)
      .filter((from) => !from.startsWith('.') && !from.startsWith('node:'))
      .filter((from) => builtinModules.includes(from) || !dependencies().has(packageOf(from)))
      .map((from) => (builtinModules.includes(from) ? `write node:${from}` : `${from} is not in dependencies`)),

  'there are no barrels': (source) => [
    ...(path.basename(source.path) === 'index.ts' ? ['is called index.ts'] : []),
    ...(/\bexport\s*\*/.test(source.code) ? ['re-exports a whole module'] : []),
  ],

  'names come from the field': (source) =>
    source.path
      .split('/')
      .slice(1)
      .filter((part) => FORBIDDEN_NAMES.test(part))
      .map((part) => `${part} says nothing`),

  'there are no default exports': (source) =>
    /\bexport\s+default\b/.test(source.code) ? ['has a default export'] : [],

  'nothing is any': (source) =>
    [...source.code.matchAll(/(?:[:<,|&(=]|\bas)\s*any\b(?!\s*[(:])/g)].map(() => 'uses any'),

  [`files have at most ${MAX_LINES} lines`]: (source) => {
    const lines = source.text.trimEnd().split('\n').length
    return lines > MAX_LINES ? [`has ${lines} lines`] : []
  },

  'pure files do no input or output and know no clock': (source, sources) =>
    PURE.test(source.path)
      ? reachable(source, sources).flatMap((reached) => [
          ...reached.imports
            .filter((entry) => IO.test(entry.from))
            .map((entry) => `reaches ${entry.from} in ${reached.path}`),
          ...(reached.path === 'gateway/protocol/clock.ts' ? ['reaches the clock'] : []),
          ...(reached === source && /\bDate\.now\b|\bnew Date\(\s*\)|\bperformance\.now\b/.test(source.code)
            ? ['reads the time']
            : []),
        ])
      : [],

  'secrets are revealed only in provider/ and lease/seal.ts': (source) =>
    /^gateway\/(?:provider\/|lease\/seal\.ts$|protocol\/secret\.ts$)/.test(source.path) ||
    !/\breveal\b/.test(source.code)
      ? []
      : ['reveals a secret'],

  'needles are taken only in upstream/searcher.ts': (source) =>
    /^gateway\/(?:upstream\/searcher\.ts|protocol\/secret\.ts)$/.test(source.path) || !/\.needles\b/.test(source.code)
      ? []
      : ['takes the needles of a secret'],

  'only upstream/dial.ts opens outgoing sockets': (source) =>
    // control/socket.ts asks its own unix socket whether a gateway is running there.
    /^gateway\/(?:upstream\/dial\.ts$|control\/socket\.ts$|cli\/)/.test(source.path) ? [] : dialling(source),
}

describe('architecture', () => {
  const sources = readTree('gateway')

  for (const [name, rule] of Object.entries(rules)) {
    it(name, () => {
      expect(
        [...sources.values()].flatMap((source) => rule(source, sources).map((fault) => `${source.path}: ${fault}`)),
      ).toEqual([])
    })
  }

  it('imports have no cycle, types included', () => {
    expect(findCycle(sources)).toEqual([])
  })

  it('every rule finds the fault it is there for', () => {
    for (const [name, rule] of Object.entries(rules)) {
      const sample = badSamples[name]
      const [file, text] = sample ?? ['', '']
      const source = readSource(file, text)
      expect(rule(source, new Map([...sources, [file, source]])), `${name}: ${file}`).not.toEqual([])
    }
  })

  it('finds a cycle through a type import', () => {
    const pair = ['a', 'b'].map((name) =>
      readSource(`gateway/grant/${name}.ts`, `import type { X } from './${name === 'a' ? 'b' : 'a'}.ts'\n`),
    )
    expect(findCycle(new Map(pair.map((source) => [source.path, source])))).toHaveLength(3)
  })

  it('is not fooled by comments, strings and regular expressions', () => {
    const text = [
      "// import { a } from '../policy/a.ts'",
      'const hint = \'import { b } from "../policy/b.ts"; secret.reveal()\'',
      'const quote = /[\'"`]/ // an odd quote must not swallow the rest',
      "export type { C } from '../protocol/c.ts'",
      `const shown = \`\${secret.reveal()} \${\`}\`}\``,
      "const later = await import('./d.ts')",
    ].join('\n')
    const source = readSource('gateway/audit/a.ts', text)
    expect(source.imports.map((entry) => [entry.from, entry.typeOnly])).toEqual([
      ['../protocol/c.ts', true],
      ['./d.ts', false],
    ])
    expect(source.code.match(/reveal/g)).toHaveLength(1)
  })
})

/** Rule → file and text that break it. */
const badSamples: Readonly<Record<string, readonly [string, string]>> = {
  'imports only lead down the house': ['gateway/grant/x.ts', "import type { Decision } from '../policy/decision.ts'"],
  'relative imports name an existing file with its ending': ['gateway/grant/x.ts', "import { a } from './gone.ts'"],
  'the gateway imports nothing of tests, bench or deployment': ['gateway/x.ts', "import { a } from '../test/rig/a.ts'"],
  'packages are declared dependencies and builtins carry node:': ['gateway/x.ts', "import { it } from 'vitest'"],
  'there are no barrels': ['gateway/x.ts', "export * from './a.ts'"],
  'names come from the field': ['gateway/utils/x.ts', ''],
  'there are no default exports': ['gateway/x.ts', 'export default 1'],
  'nothing is any': ['gateway/x.ts', 'const a = (b: any) => b'],
  [`files have at most ${MAX_LINES} lines`]: ['gateway/x.ts', 'a\n'.repeat(MAX_LINES + 1)],
  'pure files do no input or output and know no clock': ['gateway/audit/tree/merkle.ts', "import fs from 'node:fs'"],
  'secrets are revealed only in provider/ and lease/seal.ts': ['gateway/audit/x.ts', 'log(secret.reveal())'],
  'needles are taken only in upstream/searcher.ts': ['gateway/audit/x.ts', 'secret.needles()'],
  'only upstream/dial.ts opens outgoing sockets': ['gateway/provider/x.ts', "import { connect } from 'node:tls'"],
}

const SOCKET_NAMES = /\b(?:connect|createConnection|request|get|WebSocket|ClientRequest)\b/
const SOCKET_CALLS: readonly (readonly [RegExp, string])[] = [
  [/(?<!typeof )\bglobalThis\.fetch\b/, 'takes the global fetch'],
  [/\b(?:net|tls|https?|http2)\.(?:connect|createConnection|request|get)\s*\(/, 'dials by itself'],
  [/\bnew\s+(?:net\.)?(?:Socket|WebSocket|EventSource)\b/, 'dials by itself'],
]
/** Own sockets by import or by call. An undici client is one too, unless its connector is handed to it. */
function dialling(source: Source): string[] {
  const faults = SOCKET_CALLS.filter(([call]) => call.test(source.code)).map(([, fault]) => fault)
  const isGiven = /\bfetch\??: GuardedFetch\b/.test(source.code)
  if (!isGiven && /(?<![.\w])(?<!\basync )fetch\s*\(/.test(source.code)) faults.push('calls the global fetch')
  // An HTTP/2 session dials, unless its socket is handed to it.
  const isHanded = /\bcreateConnection: \(\) => socket\b/.test(source.code)
  const taken = source.imports.filter((one) => !one.typeOnly && !(isHanded && one.from === 'node:http2'))
  for (const entry of taken) {
    const values = entry.names.replaceAll(/\btype\s+\w+/g, '')
    if (/^node:(?:net|tls|https?|http2)$/.test(entry.from) && SOCKET_NAMES.test(values))
      faults.push(`imports ${values} of ${entry.from}`)
    if (entry.from !== 'undici') continue
    if (!source.path.startsWith('gateway/upstream/')) faults.push('imports undici')
    else if (/\bnew\s+(?:Client|Pool|Agent)\b/.test(source.code) && !/\bconnect\b/.test(source.code))
      faults.push('dials through undici by itself')
    else if (
      /\b(?:request|stream|pipeline|fetch|connect|getGlobalDispatcher)\b/.test(values) &&
      !/\bdispatcher\b/.test(source.code)
    )
      faults.push('uses the global dispatcher')
  }
  return faults
}

function placeOf(file: string): string {
  const [, room = '', ...inside] = file.split('/')
  if (inside.length > 0) return room
  return room === 'settings.ts' ? 'settings' : room
}

function gatewayImports(source: Source): string[] {
  return source.imports
    .filter((entry) => entry.from.startsWith('.'))
    .map((entry) => resolveImport(source.path, entry.from))
    .filter((to) => to.startsWith('gateway/'))
}

function resolveImport(file: string, from: string): string {
  return from.startsWith('.') ? path.posix.join(path.posix.dirname(file), from) : from
}

function isPackage(to: string): boolean {
  return to.startsWith('node:') || dependencies().has(packageOf(to)) || builtinModules.includes(to)
}

function packageOf(from: string): string {
  return from
    .split('/')
    .slice(0, from.startsWith('@') ? 2 : 1)
    .join('/')
}

let declared: ReadonlySet<string> | undefined
function dependencies(): ReadonlySet<string> {
  declared ??= new Set(Object.keys(JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')).dependencies))
  return declared
}

/** The source and everything it loads: type imports load nothing. */
function reachable(source: Source, sources: ReadonlyMap<string, Source>): Source[] {
  const found = new Set([source])
  for (const one of found) {
    for (const entry of one.imports.filter((each) => !each.typeOnly || one === source)) {
      const next = sources.get(resolveImport(one.path, entry.from))
      if (next && (!entry.typeOnly || next.path === 'gateway/protocol/clock.ts')) found.add(next)
    }
  }
  return [...found]
}

/** One cycle as a path whose first and last file are the same, or nothing. */
function findCycle(sources: ReadonlyMap<string, Source>): string[] {
  const done = new Set<string>()
  const walk = (file: string, trail: readonly string[]): string[] => {
    if (trail.includes(file)) return [...trail.slice(trail.indexOf(file)), file]
    if (done.has(file)) return []
    const source = sources.get(file)
    for (const to of source ? gatewayImports(source) : []) {
      const cycle = walk(to, [...trail, file])
      if (cycle.length > 0) return cycle
    }
    done.add(file)
    return []
  }
  for (const file of sources.keys()) {
    const cycle = walk(file, [])
    if (cycle.length > 0) return cycle
  }
  return []
}

function readTree(dir: string): Map<string, Source> {
  const files = readdirSync(path.join(ROOT, dir), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `${dir}/${file.split(path.sep).join('/')}`)
    .sort()
  return new Map(files.map((file) => [file, readSource(file, readFileSync(path.join(ROOT, file), 'utf8'))]))
}
