import { defineConfig } from 'vitest/config'

/** Where `.ci/run` wants the results as JSON. */
const results = process.env.KEYLESS_TEST_RESULTS

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // Modules are loaded once a worker, not once a file: a third of the CPU. A file puts back what it changes of the process.
    isolate: false,
    testTimeout: 20_000,
    hookTimeout: 30_000,
    // How long a test waits is no promise: on a busy machine the default second is short.
    expect: { poll: { timeout: 10_000, interval: 20 } },
    // CPU-bound suites and real servers share two cores in CI. A third file saves a tenth, and real servers run into their limits.
    maxWorkers: 2,
    ...(results ? { reporters: ['default', 'json'], outputFile: { json: results } } : {}),
  },
})
