/**
 * Counts what the test runner reported: `node .ci/results.mjs RESULTS.json EXIT-CODE` prints "PASSED FAILED". A file that
 * could not run, a test that did not run, and a runner that failed for a reason of its own are failures too.
 */
import { readFileSync } from 'node:fs'

const [file, exitCode] = process.argv.slice(2)
console.log(count().join(' '))

function count() {
  let report
  try {
    report = JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return [0, 1] // the runner did not get as far as a report
  }
  const tests = report.testResults.flatMap((suite) => suite.assertionResults)
  const passed = tests.filter((test) => test.status === 'passed').length
  const broken = report.testResults.filter(
    (suite) => suite.status === 'failed' && suite.assertionResults.every((test) => test.status !== 'failed'),
  ).length
  const failed = tests.length - passed + broken
  return [passed, exitCode === '0' ? failed : Math.max(failed, 1)]
}
