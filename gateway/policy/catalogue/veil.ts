/** Requests as they may be recorded: what an agent puts into a path in place of a credential is in no log, even of a call that is refused unseen. */
import type { Inbound } from '../../protocol/message.ts'
import { credentialInMergedPath } from '../../protocol/path-slot.ts'
import { type Service, servesHost } from '../../protocol/service.ts'

/** @returns what gives the request back without such a text, or as it is. Never throws. */
export function createVeil(services: readonly Service[]): (inbound: Inbound) => Inbound {
  const open = services.filter(({ slots }) => slots.some((slot) => slot.in === 'path'))
  if (open.length === 0) return (inbound) => inbound
  return (inbound) => {
    const { route, host, rawPath } = inbound
    const service = open.find((one) => (route === undefined ? servesHost(one, host) : one.name === route))
    const found = service && credentialInMergedPath(rawPath, service.slots)
    return found === undefined || found.text === '' ? inbound : { ...inbound, rawPath: found.rest }
  }
}
