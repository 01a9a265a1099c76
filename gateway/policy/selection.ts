/** How settings choose a service: by name or path, or with what only they know of it: its hosts, its name, its credential. */
import { z } from 'zod'
import { parseCidr } from '../protocol/cidr.ts'
import { HOST_PATTERN_FORM, isExactHost, isHostPattern, parseHostPattern } from '../protocol/host-pattern.ts'

const HOST_FORM = `an exact host name or IP address, lower case, without port; or a pattern such as {bucket}.s3.amazonaws.com: ${HOST_PATTERN_FORM}`

/** A host of a service file or of settings. */
export const hostSchema = z
  .string()
  .refine((host) => (isHostPattern(host) ? parseHostPattern(host) !== undefined : isExactHost(host)), {
    message: HOST_FORM,
    params: { allowed: HOST_FORM, fix: 'write the host alone, like acme.example.com: no https://, no path, no *' },
  })

/** A range of addresses of a service file or of settings. */
export const rangeSchema = z.string().refine((range) => parseCidr(range) !== undefined, {
  message: 'a CIDR range such as 10.0.0.0/8',
  params: { allowed: 'a range of addresses (CIDR)', fix: 'write an address and a prefix length, like 10.20.0.0/16' },
})

export const SERVICE_NAME = z
  .string()
  .regex(/^[a-z][a-z0-9-]*$/, 'lower-case letters, digits and hyphens')
  .refine((name) => name !== 'unmanaged', 'any name but the reserved `unmanaged`')

/** A word by which policies choose operations. */
export const labelSchema = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,39}$/, 'lower-case letters, digits and hyphens')

export const selectionSchema = z
  .strictObject({
    use: z.string().min(1).describe('A shipped name (atlassian), or a path to a .yaml of your own.'),
    as: SERVICE_NAME.optional().describe('Its name here, if another: two accounts at one API are two services.'),
    hosts: z.array(hostSchema).min(1).optional().describe('Your hosts, for an API that each customer has at another.'),
    credential: z.string().min(1).optional().describe('Entry under `credentials`. Default: the name of the service.'),
    addresses: z
      .array(rangeSchema)
      .optional()
      .describe('Ranges outside the public Internet that the hosts may resolve to.'),
    labels: z
      .array(labelSchema)
      .min(1)
      .optional()
      .describe('Words by which policies choose, of every operation: resource.labels.contains("inside").'),
  })
  .describe('A service, with what only these settings know of it.')

export type Selection = z.output<typeof selectionSchema>
