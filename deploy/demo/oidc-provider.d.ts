/** The part of `oidc-provider` that the demo uses; the package ships no types. */
declare module 'oidc-provider' {
  import type { RequestListener } from 'node:http'

  interface IssuedToken {
    readonly jti: string
    readonly clientId?: string
  }

  export class Provider {
    constructor(issuer: string, configuration: object)
    callback(): RequestListener
    on(event: 'client_credentials.issued', listener: (token: IssuedToken) => void): this
    on(event: 'server_error', listener: (context: unknown, cause: Error) => void): this
  }
}
