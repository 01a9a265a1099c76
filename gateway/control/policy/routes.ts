/** The policies in force, on the unix socket alone: which they are, and to read them again. */
import type { FastifyInstance } from 'fastify'
import type { PolicyView } from '../../protocol/control-policy.ts'
import type { Human } from '../../protocol/grant.ts'
import { emptyBody } from '../shapes.ts'

export interface PolicyDoor {
  readonly human: Human
  readonly policies: {
    readonly view: PolicyView
    /** @throws {GatewayError} `policy_rejected`, `audit_unavailable` */
    reload(by: Human): Promise<PolicyView>
  }
}

const text = { type: 'string' } as const
const view = {
  type: 'object',
  required: ['policy_set', 'policies', 'loaded_at'],
  properties: {
    policy_set: { ...text, description: 'digest of policies, schema and services' },
    policies: { type: 'integer' },
    loaded_at: { type: 'integer', description: 'epoch seconds' },
    trouble: text,
    needs_restart: { type: 'array', items: text },
    shadow: {
      type: 'object',
      required: ['same', 'differed', 'skipped', 'unknown'],
      properties: {
        ...{ policy_set: text, policies: { type: 'integer' }, trouble: text },
        ...{ same: { type: 'integer' }, differed: { type: 'integer' } },
        ...{ skipped: { type: 'integer' }, unknown: { type: 'integer' } },
      },
    },
    source: {
      type: 'object',
      required: ['kind', 'place', 'looked_at'],
      properties: {
        kind: text,
        place: text,
        looked_at: { type: ['integer', 'null'], description: 'epoch seconds' },
        bundle: {
          type: 'object',
          required: ['name', 'version', 'signed_by', 'issued_at'],
          properties: {
            ...{ name: text, version: { type: 'integer' }, revision: text },
            signed_by: { type: 'array', items: text },
            ...{ issued_at: { type: 'integer' }, not_after: { type: 'integer' } },
          },
        },
      },
    },
  },
} as const
const tags = ['policy']

export function addPolicyRoutes(app: FastifyInstance, { policies, human }: PolicyDoor): void {
  app.get(
    '/policy',
    { schema: { summary: 'The policies in force', tags, response: { 200: view } } },
    () => policies.view,
  )
  app.post(
    '/policy/reload',
    {
      schema: {
        summary: 'Read agents and policies again',
        description: 'All of it is taken up, or nothing. Answers when it decides.',
        tags,
        body: emptyBody,
        response: { 200: view },
      },
    },
    () => policies.reload(human),
  )
}
