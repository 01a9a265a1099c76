/** `keyless policy test`: run `*.test.yaml`, say which policies no case has seen deciding, write JUnit XML for CI. */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import type { Covered } from '../../policy/tools/coverage.ts'
import type { Suite } from '../../policy/tools/junit.ts'
import type { CaseResult } from '../../policy/tools/testing.ts'
import type { TestFile } from '../../policy/tools/testing-file.ts'
import { counted, type Loaded, load, onSources, type SourceOptions, type Sources, sourcesOf } from './sources.ts'

interface TestOptions extends SourceOptions {
  readonly junit?: string
  readonly coverage?: number
}

export function policyTestCommand(): Command {
  const command = new Command('test')
    .description('run *.test.yaml; exit code 1 if a case fails, 2 if something cannot be run')
    .argument('[path...]', 'test files, or directories of them (default: beside the policies)')
    .option('--junit <file>', 'write the results as JUnit XML too')
    .option('--coverage <percent>', 'fail if fewer of the policies have decided in some case', parsePercent)
  return onSources(command).action(async (paths: string[], options: TestOptions) => {
    process.exitCode = await runAll(paths, options).catch((cause: unknown) => {
      process.stderr.write(`${cause instanceof Error ? cause.message : String(cause)}\n`)
      return 2
    })
  })
}

function parsePercent(text: string): number {
  if (!/^(?:100|\d{1,2})$/.test(text)) throw new InvalidArgumentError('Write a number from 0 to 100.')
  return Number(text)
}

interface Ran extends Suite {
  readonly loaded: Loaded
}

async function runAll(paths: readonly string[], options: TestOptions): Promise<number> {
  const sources = await sourcesOf(options)
  const files = await findTests(paths.length > 0 ? paths : sources.policies)
  if (files.length === 0) {
    const where = (paths.length > 0 ? paths : sources.policies).join(', ')
    throw new Error(`there is no *.test.yaml in ${where}. docs/policy-tests.md shows how to write one.`)
  }
  const ran = await runFiles(files, sources)
  for (const { name, results } of ran) process.stdout.write(suiteText(name, results))
  if (options.junit !== undefined) {
    const { junitXml } = await import('../../policy/tools/junit.ts')
    await writeFile(options.junit, junitXml(ran))
  }
  const failed = ran.flatMap(({ results }) => results).filter(({ faults }) => faults.length > 0).length
  const isCovered = await reportCoverage(ran, options.coverage)
  const total = ran.reduce((sum, { results }) => sum + results.length, 0)
  process.stdout.write(`${counted(total, 'case')}, ${failed} failed\n`)
  return failed > 0 || !isCovered ? 1 : 0
}

/** @throws {Error} for a path that is not there. */
async function findTests(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    paths.map(async (path) => {
      if (!(await stat(path)).isDirectory()) return path.endsWith('.cedar') ? [] : [path]
      const names = await readdir(path, { recursive: true })
      return names.filter((name) => name.endsWith('.test.yaml')).map((name) => join(path, name))
    }),
  )
  return [...new Set(found.flat().map((path) => resolve(path)))].sort()
}

async function runFiles(files: readonly string[], sources: Sources): Promise<Ran[]> {
  const [{ readTestFile }, { runTests }] = await Promise.all([
    import('../../policy/tools/testing-file.ts'),
    import('../../policy/tools/testing.ts'),
  ])
  /** policies and services → what they are once loaded */
  const known = new Map<string, Promise<Loaded>>()
  const ran: Ran[] = []
  for (const path of files) {
    const name = relative(process.cwd(), path)
    const file = readTestFile(await readFile(path, 'utf8'), name)
    const own = ownSources(file, dirname(path), sources)
    const key = JSON.stringify([own.services, own.policies, own.baseDir])
    const loading = known.get(key) ?? load(own)
    known.set(key, loading)
    const loaded = await loading
    ran.push({ name, results: await runTests(file, loaded), loaded })
  }
  return ran
}

function ownSources({ services, policies }: TestFile, dir: string, sources: Sources): Sources {
  return {
    ...sources,
    ...(services && { services, baseDir: dir, atExamples: true }),
    ...(policies && { policies: policies.map((path) => resolve(dir, path)) }),
  }
}

function suiteText(name: string, results: readonly CaseResult[]): string {
  const failed = results.filter(({ faults }) => faults.length > 0)
  const lines = failed.map(
    (result) => `  FAILED ${result.name}\n${result.faults.map((fault) => `    ${fault}\n`).join('')}`,
  )
  return `${failed.length === 0 ? 'ok    ' : 'FAILED'} ${name} (${counted(results.length, 'case')})\n${lines.join('')}`
}

/** A policy counts once, however many files test it. @returns whether enough of them decided. */
async function reportCoverage(ran: readonly Ran[], least: number | undefined): Promise<boolean> {
  const { coverageOf, joined, percentOf } = await import('../../policy/tools/coverage.ts')
  const covered = joined(ran.flatMap(({ loaded, results }) => coverageOf(loaded.bundle.policies, results)))
  const percent = percentOf(covered)
  process.stdout.write(coverageText(covered, percent))
  if (least === undefined || percent >= least) return true
  process.stderr.write(`${percent} % of the policies have decided in some case; --coverage asks for ${least} %.\n`)
  return false
}

function coverageText(covered: readonly Covered[], percent: number): string {
  const never = covered.filter(({ cases }) => cases === 0).map(({ policy }) => policy.id)
  const decided = covered.length - never.length
  const lines = never.map((id) => `  never decided: ${id}\n`).join('')
  return `${decided} of ${counted(covered.length, 'policy', 'policies')} decided in some case (${percent} %)\n${lines}`
}
