/** Results of tests as JUnit XML, in the elements and attributes that CI systems agree on. Pure. */
import type { CaseResult } from './testing.ts'

export interface Suite {
  /** The test file. */
  readonly name: string
  readonly results: readonly CaseResult[]
}

export function junitXml(suites: readonly Suite[]): string {
  const all = suites.flatMap(({ results }) => results)
  const inner = suites.map(suiteXml).join('')
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="keyless policy test" ${totals(all)}>\n${inner}</testsuites>\n`
}

function suiteXml({ name, results }: Suite): string {
  const cases = results.map((result) => caseXml(name, result)).join('')
  return `  <testsuite name="${escaped(name)}" ${totals(results)}>\n${cases}  </testsuite>\n`
}

function caseXml(suite: string, { name, faults, ms }: CaseResult): string {
  const head = `    <testcase name="${escaped(name)}" classname="${escaped(suite)}" file="${escaped(suite)}" time="${ms / 1000}"`
  if (faults.length === 0) return `${head}/>\n`
  const [first = ''] = faults
  return `${head}>\n      <failure message="${escaped(first)}" type="expectation">${escaped(faults.join('\n'))}</failure>\n    </testcase>\n`
}

function totals(results: readonly CaseResult[]): string {
  const failures = results.filter(({ faults }) => faults.length > 0).length
  const seconds = results.reduce((sum, { ms }) => sum + ms, 0) / 1000
  return `tests="${results.length}" failures="${failures}" errors="0" skipped="0" time="${seconds.toFixed(4)}"`
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  '\n': '&#10;',
}

/** XML 1.0 has no way to write most control characters and lone surrogates at all. */
function escaped(text: string): string {
  const plain = text
    .toWellFormed()
    .replaceAll(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, '\ufffd')
  return plain.replaceAll(/[&<>"\n]/g, (character) => ENTITIES[character] ?? character)
}
