/** Settings of `gitlab`: which instance, and whose token makes the others. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'
import { credentialTerms } from '../terms.ts'

export const gitlabSchema = z
  .strictObject({
    provider: z.literal('gitlab'),
    ...credentialTerms,
    /** A personal access token with scope `api`, of somebody who is Maintainer of the projects: it makes and ends the others. */
    token: secretReference,
    /** Root of the instance, without `/api/v4`. */
    url: endpointUrl.default('https://gitlab.com'),
    /** Path of the group whose tokens serve what names neither project nor group, such as searching. Absent: that is refused. */
    group: z
      .string()
      .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*(?:\/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$/)
      .optional(),
    addresses: z.array(addressRange).default([]),
  })
  .superRefine(refuseCleartext(['url']))

export type GitlabConfig = z.output<typeof gitlabSchema>
