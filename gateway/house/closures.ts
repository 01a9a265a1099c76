/** The part of the composition root that says which places nobody may call at present. */
import type { Grants } from '../grant/grants.ts'
import type { Closures } from '../ingress/closures.ts'
import type { Catalogue } from '../policy/catalogue/catalogue.ts'
import type { Service } from '../protocol/service.ts'

interface Rooms {
  readonly grants: Pick<Grants, 'blocks' | 'closureOf' | 'onOrders'>
  readonly catalogue: Pick<Catalogue, 'locate'>
}

export function closuresOf({ grants, catalogue }: Rooms): Closures {
  return {
    onChange: (tell) => grants.onOrders(tell),
    isClosed(place) {
      if (grants.blocks().some(({ target }) => 'everything' in target)) return true
      const service = serviceAt(place, catalogue)
      return service !== undefined && grants.closureOf(service) !== undefined
    },
  }
}

/** Undefined where nothing is that could be blocked. */
function serviceAt(
  { scheme, host, port }: Parameters<Closures['isClosed']>[0],
  catalogue: Rooms['catalogue'],
): Service | undefined {
  const asked = { mode: 'intercept', method: 'GET', rawPath: '/', rawHeaders: [], hostHeader: undefined } as const
  try {
    return catalogue.locate({ ...asked, scheme, host, port }).service
  } catch {
    return undefined
  }
}
