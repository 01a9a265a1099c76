/** What providers under test are built with: the real clock, secrets from a directory, and a network that is not there. */
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { Provider } from '../../gateway/provider/provider.ts'
import { readSecret } from '../../gateway/provider/reference.ts'
import type { ProviderTools } from '../../gateway/provider/registry.ts'

/** @param dir where relative references start. */
export function providerTools(dir: string, o: Partial<ProviderTools> = {}): ProviderTools {
  return {
    fetchFor: () => async () => {
      throw new Error('this provider needs no network')
    },
    clock: systemClock,
    readSecret: (reference, signal) => readSecret(reference, { baseDir: dir }, signal),
    assertions: {
      issuer: 'https://keyless.test/assertions',
      sign: () => Promise.reject(new Error('no assertions here')),
    },
    connections: {
      refreshes: { run: () => Promise.reject(new Error('no connections here')) },
      url: (credential) => `https://keyless.test/connect/${credential}`,
    },
    certifyClient: () => Promise.reject(new Error('no certificates here')),
    ...o,
  }
}

/** A provider that is asked for one role, whoever asks. */
export function issuingAs(role: string, provider: Provider): Provider {
  return { ...provider, issue: (request, signal) => provider.issue({ ...request, role }, signal) }
}
