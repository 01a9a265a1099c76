/** Another slot of a service than its first: for credentials of a kind that the service takes elsewhere. */
import { GatewayError } from '../../protocol/problem.ts'
import type { Service } from '../../protocol/service.ts'

/**
 * @param header name of a header slot; undefined: the slots as they are.
 * @returns the service with that slot as its only one, the same object for the same service.
 * @throws {GatewayError} `credential_unconfigured` for a service that has no such slot: an agent's own value would stay in it.
 */
export function slotChooser(header: string | undefined): (service: Service) => Service {
  if (header === undefined) return (service) => service
  const name = header.toLowerCase()
  const chosen = new WeakMap<Service, Service>()
  return (service) => {
    const before = chosen.get(service)
    if (before !== undefined) return before
    const slot = service.slots.find((one) => one.in === 'header' && one.name.toLowerCase() === name)
    if (slot === undefined)
      throw new GatewayError(
        'credential_unconfigured',
        `${service.name} has no header slot ${header}. Name one of its slots as slot of credential "${service.credential}", or leave it away.`,
      )
    const made = { ...service, slots: [slot] }
    chosen.set(service, made)
    return made
  }
}
