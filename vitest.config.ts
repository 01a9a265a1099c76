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
    // CI has two cores; while one file waits for its servers and programs, another may run.
    maxWorkers: 3,
    ...(results ? { reporters: ['default', 'json'], outputFile: { json: results } } : {}),
  },
})
