/** What the pages of connecting say. Everything that is not written here is escaped. */
import { escaped } from '../page.ts'

export interface ShownOffer {
  readonly connector: {
    readonly credential: string
    readonly human: { readonly iss: string; readonly sub: string } | undefined
  }
  readonly host: string
  readonly scope: string | undefined
  readonly state: string
}

export function offerWords({ connector, host, scope }: ShownOffer, proof: string): string {
  const { credential, human } = connector
  const whose = human === undefined ? 'every task of this gateway' : `tasks of <strong>${escaped(human.sub)}</strong>`
  const rows: readonly (readonly [string, string])[] = [
    ['Credential', credential],
    ['For', human === undefined ? 'everybody who uses this gateway' : `${human.sub} (${human.iss})`],
    ['Authorization server', host],
    ['Scope', scope ?? 'what the server gives this client'],
  ]
  const list = rows.map(([term, says]) => `<dt>${term}</dt><dd>${escaped(says)}</dd>`).join('')
  return `<h1>Connect ${escaped(credential)}</h1><p>Agents that work for ${whose} will be able to use the account that you sign in with at ${escaped(host)}. They never see its keys. If you are somebody else, or nobody told you to expect this, close this page.</p><dl>${list}</dl><form method="post"><input type="hidden" name="proof" value="${escaped(proof)}"><button>Go to ${escaped(host)}</button></form>`
}

export function doneWords({ credential, human }: ShownOffer['connector']): string {
  const whom = human === undefined ? 'everybody who uses this gateway' : human.sub
  return `<h1>Connected</h1><p>${escaped(credential)} is connected for ${escaped(whom)}. You can close this page. To end it: <code>keyless disconnect ${escaped(credential)}</code>.</p>`
}

export function explainWords(credential: string): string {
  const name = escaped(credential)
  return `<h1>Connect ${name}</h1><p>Agents use ${name} through the account of the person whom they work for. Whoever has access to the gateway's machine makes you a link:</p><p><code>keyless connect ${name} --for "ISSUER NAME"</code></p><p>If the gateway runs on your own machine: <code>keyless connect ${name}</code>. <code>keyless connect list</code> says which connections there are, and which have to be made again.</p>`
}

export function refusedWords(detail: string | undefined): string {
  return `<h1>Not connected</h1><p>${escaped(detail ?? 'Something unexpected happened. The operator finds it in the log of the gateway.')}</p>`
}
