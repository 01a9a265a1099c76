/** `policy.engines` in `keyless.yaml`: engines outside the gateway that have to agree with what its own policies allow. */
import { z } from 'zod'
import { TOLD_NAMES } from '../policy/outside/facts.ts'
import { rangeSchema } from '../policy/selection.ts'
import { isOperationPattern } from '../protocol/authority.ts'
import { secretReference } from '../provider/reference.ts'
import { read } from './advice.ts'
import { absolutePath, type Surroundings } from './around.ts'
import { cleanUrl } from './listen.ts'

const pattern = z.string().refine(isOperationPattern, {
  message: 'an operation or a pattern',
  params: { allowed: 'service:operation, service:group.* or service:*', fix: 'write github:*' },
})

const fact = z.string().refine((name) => TOLD_NAMES.includes(name), {
  message: 'an attribute of the Cedar schema',
  params: {
    allowed: TOLD_NAMES.join(', '),
    fix: 'write one of these; parameters, budgets and earlier calls are for Cedar policies',
  },
})

const common = {
  name: z
    .string()
    .regex(/^[a-z][a-z0-9_-]{0,39}$/, 'lower-case letters, digits, _ and -; at most 40')
    .describe('In entries: `engine:NAME`.'),
  for: z
    .array(pattern)
    .min(1)
    .max(64)
    .optional()
    .describe('Operations that it is asked about, and grants that reach any of them. Default: all.'),
  facts: z
    .array(fact)
    .max(TOLD_NAMES.length)
    .optional()
    .describe('Attributes that it is told besides agent, action and resource. Default: all that cost nothing to know.'),
  timeout_ms: z.int().min(5).max(5_000).optional().describe('After that the answer is no. Default 250.'),
  cache_s: z
    .int()
    .min(0)
    .max(300)
    .optional()
    .describe('Seconds for which the answer to the very same question is remembered. Default 0: never.'),
}

const url = z.string().transform(
  read(cleanUrl, {
    allowed: 'an http(s) URL without user, query or fragment',
    fix: 'write the whole address that is asked: "https://pdp.example.com/access/v1/evaluation" or "http://127.0.0.1:8181/v1/data/keyless/allow"',
  }),
)

const overHttp = {
  url: url.describe('The whole address that is asked.'),
  headers: z.record(z.string(), secretReference).optional().describe('Header: secret, by reference.'),
  addresses: z.array(rangeSchema).optional().describe('CIDR ranges that its address may be in besides public ones.'),
}

const engine = z.discriminatedUnion('kind', [
  z.strictObject({ ...common, kind: z.literal('authzen'), ...overHttp }),
  z.strictObject({ ...common, kind: z.literal('opa'), ...overHttp }),
  z.strictObject({
    ...common,
    kind: z.literal('opa_wasm'),
    file: z.string().min(1).describe('Bundle of `opa build -t wasm`, or the policy.wasm in it.'),
    entrypoint: z
      .string()
      .min(1)
      .max(200)
      .optional()
      .describe('Such as keyless/allow. Default: the first of the bundle.'),
  }),
])

export const enginesSchema = z
  .array(engine)
  .max(8)
  .refine((all) => new Set(all.map(({ name }) => name)).size === all.length, {
    message: 'names that differ',
    params: { allowed: 'a name of its own for each engine', fix: 'give one of them another name' },
  })
  .describe('Engines outside the gateway that have to agree: each is asked once grant and Cedar have said yes.')

type Written = z.output<typeof engine>

/** Of the settings, paths absolute. */
export type PolicyEngineSettings = Written & { readonly timeout_ms: number; readonly cache_s: number }

export function enginesOf(written: readonly Written[] | undefined, around: Surroundings): PolicyEngineSettings[] {
  return (written ?? []).map((one) => ({
    ...one,
    ...(one.kind === 'opa_wasm' && { file: absolutePath(one.file, around) }),
    timeout_ms: one.timeout_ms ?? 250,
    cache_s: one.cache_s ?? 0,
  }))
}
