/** Addresses of names. The system's resolver blocks a thread for each question, so a name is asked for once at a time. */
import { promises as dns } from 'node:dns'

/** All addresses of a name, in the order to try. */
export type Resolve = (host: string) => Promise<readonly string[]>

export async function resolveBySystem(host: string): Promise<readonly string[]> {
  const found = await dns.lookup(host, { all: true, order: 'verbatim' })
  return found.map(({ address }) => address)
}

/**
 * Callers that ask for a name while it is being looked up share the answer, which each still judges for itself; nothing is kept
 * afterwards. A name whose server is silent could otherwise take every thread that others' lookups need.
 * @param patienceMs after this long a question is asked anew: its server may be back
 */
export function together(resolve: Resolve, patienceMs: number): Resolve {
  const underWay = new Map<string, Promise<readonly string[]>>()
  return (host) => {
    const known = underWay.get(host)
    if (known !== undefined) return known
    const asked = resolve(host)
    underWay.set(host, asked)
    const forget = () => {
      clearTimeout(late)
      if (underWay.get(host) === asked) underWay.delete(host)
    }
    const late = setTimeout(forget, patienceMs)
    late.unref()
    asked.then(forget, forget)
    return asked
  }
}
