/** Settings of `hmac`: what is signed, how, and where the signature goes, as templates with names in braces. */
import { z } from 'zod'
import { secretReference } from './reference.ts'
import { partReferences } from './static.ts'
import { credentialTerms } from './terms.ts'

/** Names that every template knows besides those of `values`. */
const SIGNED = ['timestamp', 'nonce', 'method', 'host', 'target', 'path', 'query', 'body', 'body_hash'] as const
/** Names of a template for a field or parameter: what is known before the request is complete, and the signature. */
const SHOWN = ['timestamp', 'nonce', 'signature', 'body_hash'] as const

const VARIABLE = /\{([a-z][a-z0-9_]*)\}/g
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

export const hmacSchema = z
  .strictObject({
    provider: z.literal('hmac'),
    ...credentialTerms,
    /** Where the shared secret is kept. It never travels. */
    secret: secretReference,
    /** How it is written down. Default utf8: its characters are the key. */
    secret_encoding: z.enum(['utf8', 'base64', 'base64url', 'hex']).default('utf8'),
    /** What travels beside the signature: `key_id`, `passphrase`. */
    values: partReferences.default({}),
    algorithm: z.enum(['sha1', 'sha256', 'sha384', 'sha512']).default('sha256'),
    encoding: z.enum(['hex', 'base64', 'base64url']).default('hex'),
    /** What is signed: `"{timestamp}{method}{path}{body}"`. */
    sign: z.string().min(1),
    timestamp: z.enum(['s', 'ms', 'iso8601']).default('s'),
    /** Of `{body_hash}`. */
    body_hash: z.enum(['sha1', 'sha256', 'sha384', 'sha512', 'md5']).default('sha256'),
    body_hash_encoding: z.enum(['hex', 'base64', 'base64url']).default('hex'),
    /** Header → template. */
    headers: z.record(z.string().regex(TOKEN), z.string()).default({}),
    /** Parameter → template. Those without `{signature}` are in the query that is signed; the one with it comes behind. */
    query: z.record(z.string().min(1), z.string()).default({}),
  })
  .superRefine((config, context) => {
    const own = Object.keys(config.values)
    const shown = [...Object.values(config.headers), ...Object.values(config.query)]
    const check = (path: string, template: string, names: readonly string[]) => {
      for (const name of variablesOf(template)) {
        if (names.includes(name)) continue
        const message = `has {${name}}, which nobody knows. It may have: ${names.map((one) => `{${one}}`).join(', ')}`
        context.addIssue({ code: 'custom', path: [path], message })
      }
    }
    check('sign', config.sign, [...SIGNED, ...own])
    for (const template of Object.values(config.headers)) check('headers', template, [...SHOWN, ...own])
    for (const template of Object.values(config.query))
      check('query', template, uses(template, 'signature') ? ['signature'] : ['timestamp', 'nonce', ...own])
    if (!shown.some((template) => uses(template, 'signature')))
      context.addIssue({ code: 'custom', path: ['headers'], message: 'and query have no {signature}: it goes nowhere' })
    if (!isSigned(config.sign))
      context.addIssue({
        code: 'custom',
        path: ['sign'],
        message: 'says nothing of the request: who saw one signature could send others',
      })
  })

export type HmacConfig = z.output<typeof hmacSchema>

function isSigned(template: string): boolean {
  return ['target', 'path', 'query', 'body', 'body_hash'].some((name) => uses(template, name))
}

function variablesOf(template: string): string[] {
  return [...template.matchAll(VARIABLE)].map(([, name = '']) => name)
}

export function uses(template: string, name: string): boolean {
  return template.includes(`{${name}}`)
}

/** The template with what is known; values are not looked at again. */
export function fill(template: string, known: Readonly<Record<string, string>>): string {
  return template.replaceAll(VARIABLE, (whole, name: string) => known[name] ?? whole)
}
