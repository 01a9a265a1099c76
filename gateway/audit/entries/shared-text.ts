/**
 * Canonical text that many calls share, written once: of what is the same object in them, of whoever calls over one connection,
 * of the place of one operation. Only of what is immutable, and only where nothing is sealed.
 */
import type { Inbound, Presented } from '../../protocol/message.ts'
import type { Endpoint, Operation } from '../../protocol/service.ts'
import { cut, roomy } from '../canonical.ts'
import { clientFields } from './authority.ts'

export class SharedText {
  readonly #texts = new WeakMap<object, string>()
  readonly #clients = new WeakMap<Presented, Client>()
  readonly #places = new WeakMap<Operation, Place>()

  /** What is said of `of`; the same whenever it is asked. */
  once(of: object, members: () => object): string {
    const known = this.#texts.get(of)
    if (known !== undefined) return known
    const text = JSON.stringify(members())
    this.#texts.set(of, text)
    return text
  }

  /** Who calls. A connection that presents the same all the time presents one object; what is in a slot comes anew with each request. */
  client(inbound: Inbound): string {
    const { presented, client, mode, promptHash } = inbound
    const isOwn = presented === null || presented.scheme === 'slot' || promptHash !== undefined
    const { address, userAgent } = client
    const known = isOwn ? undefined : this.#clients.get(presented)
    if (known?.address === address && known.userAgent === userAgent && known.mode === mode) return known.text
    const text = JSON.stringify(clientFields(inbound, undefined, roomy))
    if (!isOwn) this.#clients.set(presented, { address, userAgent, mode, text })
    return text
  }

  /** Where a call goes: everything but its path and its query. */
  place(inbound: Inbound, { operation, service }: Endpoint): Place {
    const { host, method, port, scheme } = inbound
    const known = this.#places.get(operation)
    const isSame = known?.host === host && known.method === method && known.port === port && known.scheme === scheme
    if (isSame && known.service === service.name) return known
    const before = {
      host: cut(host, roomy.name),
      method: cut(method, roomy.name),
      operation: cut(operation.name, roomy.name),
    }
    const after = { scheme, service: cut(service.name, roomy.name) }
    const place = {
      ...{ host, method, port, scheme, service: service.name },
      before: `${JSON.stringify(before).slice(0, -1)},"path":`,
      between: `,"port":${JSON.stringify(port)},`,
      after: JSON.stringify(after).slice(1),
    }
    this.#places.set(operation, place)
    return place
  }
}

interface Client extends Pick<Inbound['client'], 'address' | 'userAgent'> {
  readonly mode: Inbound['mode']
  readonly text: string
}

export interface Place extends Pick<Inbound, 'host' | 'method' | 'port' | 'scheme'> {
  readonly service: string
  /** Up to and including the name of `path`. */
  readonly before: string
  /** The port, between two commas. */
  readonly between: string
  /** From the name of `scheme` to the closing brace. */
  readonly after: string
}
