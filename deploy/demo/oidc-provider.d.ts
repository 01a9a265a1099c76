/** The part of `oidc-provider` that the demo and the tests use; the package ships no types. */
declare module 'oidc-provider' {
  import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'

  interface IssuedToken {
    readonly jti: string
    readonly clientId?: string
  }

  interface Interaction {
    readonly params: Readonly<Record<string, unknown>>
    readonly prompt: { readonly name: string }
  }

  interface Consent {
    addOIDCScope(scope: string): void
    save(): Promise<string>
  }

  export class Provider {
    constructor(issuer: string, configuration: object)
    readonly Grant: new (of: {
      accountId: string
      clientId: string
    }) => Consent
    callback(): RequestListener
    registerGrantType(
      name: string,
      work: (context: unknown) => Promise<void>,
      parameters: readonly string[],
      repeatable: readonly string[],
    ): void
    interactionDetails(request: IncomingMessage, response: ServerResponse): Promise<Interaction>
    interactionFinished(request: IncomingMessage, response: ServerResponse, result: object): Promise<void>
    on(event: 'client_credentials.issued', listener: (token: IssuedToken) => void): this
    on(event: 'server_error', listener: (context: unknown, cause: Error) => void): this
  }

  export const errors: Readonly<Record<'InvalidGrant' | 'InvalidRequest', new (description: string) => Error>>
}
