/** Settings of `azure`: which tenant of Microsoft Entra, as which application, proved how, for which resource. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'
import { credentialTerms } from '../terms.ts'

/** learn.microsoft.com: "National clouds", token endpoints and federation audiences. */
export const AZURE_CLOUDS = {
  public: { authority: 'https://login.microsoftonline.com', audience: 'api://AzureADTokenExchange' },
  usgovernment: { authority: 'https://login.microsoftonline.us', audience: 'api://AzureADTokenExchangeUSGov' },
  china: { authority: 'https://login.partner.microsoftonline.cn', audience: 'api://AzureADTokenExchangeChina' },
} as const

export const azureSchema = z
  .strictObject({
    provider: z.literal('azure'),
    ...credentialTerms,
    /** Directory (tenant) id, or one of its domains. */
    tenant: z.string().regex(/^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/, { error: 'is no tenant id and no domain' }),
    /** Application (client) id. */
    client_id: z.guid(),
    /** The resource with `/.default`: everything that the application is allowed there. */
    scope: z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+\/\.default$/, {
      error: 'is not one resource with /.default, such as https://graph.microsoft.com/.default',
    }),
    /** One of the three below. */
    client_secret: secretReference.optional(),
    /** Certificate and private key (RSA), both PEM, in one file. */
    certificate: secretReference.optional(),
    /** Federated identity credential: Entra verifies assertions of this gateway. */
    federation: z
      .strictObject({
        /** `sub` of the assertions, fixed, as the federated identity credential names it. */
        subject: z.string().min(1).max(600),
        /** `aud` of the assertions. Default: the one that the cloud recommends. */
        audience: z.string().min(1).max(600).optional(),
      })
      .optional(),
    cloud: z.enum(['public', 'usgovernment', 'china']).default('public'),
    /** Where tokens are asked for, if not at the cloud's own. */
    authority_url: endpointUrl.optional(),
    addresses: z.array(addressRange).default([]),
  })
  .refine(
    ({ client_secret, certificate, federation }) =>
      [client_secret, certificate, federation].filter((one) => one !== undefined).length === 1,
    { path: ['client_secret'], message: 'write one of client_secret, certificate and federation' },
  )
  .superRefine(refuseCleartext(['authority_url']))

export type AzureConfig = z.output<typeof azureSchema>
