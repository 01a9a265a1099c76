/** Postgres in `keyless.yaml`, completed: where the shared index of the logs of a fleet is. */
import type { z } from 'zod'
import { absolutePath, readText, type Surroundings } from './around.ts'
import type { postgresSchema } from './audit.ts'

export function postgresOf(
  written: z.output<typeof postgresSchema> | undefined,
  around: Surroundings,
): { readonly url: string } | undefined {
  if (written === undefined) return undefined
  const { text, where } = textOf(written.url, around)
  if (text === undefined || !/^postgres(ql)?:\/\//.test(text))
    around.report(['postgres', 'url'], {
      got: text === undefined ? `nothing in ${where}` : `no Postgres URL in ${where}`,
      allowed: 'postgres://user:password@host:port/database',
      fix: `put the URL into ${where}`,
    })
  // Not enumerable: the URL may carry a password, and settings get printed.
  return Object.defineProperty({ url: '' }, 'url', { value: text ?? '', enumerable: false })
}

function textOf(place: z.output<typeof postgresSchema>['url'], around: Surroundings) {
  if (typeof place === 'string') return { text: place, where: 'this line' }
  if ('env' in place) return { text: process.env[place.env], where: `the environment variable ${place.env}` }
  const file = absolutePath(place.file, around)
  return { text: readText(file)?.trim(), where: `the file ${file}` }
}
