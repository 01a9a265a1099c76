/** What leaves as OCSF is what OCSF says it is. */
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import canonicalize from 'canonicalize'
import { beforeAll, describe, expect, it } from 'vitest'
import { leafHash } from '../../../gateway/audit/tree/merkle.ts'
import { ocsfRow } from '../../../gateway/records/export/ocsf.ts'
import { entryBytes, itemsOf, samples, TRACEPARENT } from './entries.fixture.ts'

interface Vector {
  readonly classes: Readonly<Record<string, object>>
  readonly $defs: object
}

let validators: Map<number, ValidateFunction>

beforeAll(async () => {
  const { classes, $defs } = JSON.parse(
    await readFile(new URL('../../vectors/ocsf-1.9.json', import.meta.url), 'utf8'),
  ) as Vector
  const ajv = new Ajv2020({ strict: false, allErrors: true })
  validators = new Map(Object.entries(classes).map(([uid, schema]) => [Number(uid), ajv.compile({ ...schema, $defs })]))
})

type Event = Record<string, never> & { class_uid: number; metadata: { uid: string; profiles: string[] } }

function eventsOf(...given: Parameters<typeof itemsOf>): Event[] {
  return itemsOf(...given).map((item) => JSON.parse(ocsfRow(item)) as Event)
}

function faults(event: Event): unknown {
  const validate = validators.get(event.class_uid)
  return validate?.(event)
    ? []
    : [event.class_uid, validate?.errors?.map((e) => `${e.instancePath} ${e.message} ${JSON.stringify(e.params)}`)]
}

describe('events', () => {
  it.each(samples.map((sample, i) => [sample.kind as string, i] as const))(
    'of %s (%i) are valid by the schema',
    (_kind, i) => {
      expect(faults(eventsOf()[i] as Event)).toEqual([])
      expect(
        faults(eventsOf(samples, ['human', 'address', 'user_agent', 'path', 'purpose', 'policies'])[i] as Event),
      ).toEqual([])
    },
  )

  it('that lack a required member, or have one that OCSF does not know, would be found', () => {
    const [event] = eventsOf().filter(({ class_uid }) => class_uid === 6003)
    expect(faults({ ...event, actor: undefined } as never)).not.toEqual([])
    expect(faults({ ...event, severity_id: 42 } as never)).not.toEqual([])
    expect(faults({ ...event, unknown_member: 1 } as never)).not.toEqual([])
    expect(faults({ ...event, delegation: {} } as never)).not.toEqual([])
  })

  it('have the class of their kind and a type that follows from class and activity', () => {
    for (const event of eventsOf() as unknown as Record<string, number>[])
      expect(event.type_uid).toBe((event.class_uid as number) * 100 + (event.activity_id as number))
    const classes = new Map(eventsOf().map((event, i) => [samples[i]?.kind, event.class_uid]))
    expect(Object.fromEntries(classes)).toMatchObject({
      'call.decision': 6003,
      'call.outcome': 6003,
      'grant.delegated': 3003,
      'grant.revoked': 3005,
      'lease.issued': 3004,
      'leak.detected': 2004,
      'log.opened': 0,
    })
  })

  it('say of what may be an attack what an attacker would be doing', () => {
    const found = eventsOf().filter(({ class_uid }) => class_uid === 2004) as unknown as {
      finding_info: { attacks: unknown }
    }[]
    const techniques = found.map(({ finding_info }) => finding_info.attacks)
    expect(techniques).toEqual(
      ['AML.T0055', 'AML.T0086', 'AML.T0083', 'AML.T0053'].map((uid) => [
        { technique: { uid, name: expect.stringMatching(/^[A-Z]/) } },
      ]),
    )
  })

  it('say of a call who, through whom, what, where to and how it ended, with the whole lineage', () => {
    const outcome = eventsOf().find(({ metadata }) => metadata.uid.endsWith(':7'))
    expect(outcome).toMatchObject({
      activity_id: 2,
      status_id: 1,
      status_code: '200',
      actor: { user: { uid: 'ana@acme.test' }, session: { uid: 'task_42' } },
      ai_agent: { uid: 'spiffe://acme.test/agents/triage', name: 'triage' },
      delegation: { uid: '01a20305-cd3b-7552-8974-f40f1c51c684', parent_uid: '01a20305-cd3b-7552-8974-f40f1c51c683' },
      api: { operation: 'github:issues.read', service: { name: 'github' }, response: { code: 200 } },
      src_endpoint: { ip: '10.1.2.3' },
      http_request: { http_method: 'GET', url: { url_string: 'https://api.github.com/repos/acme/site/issues' } },
      trace: { uid: TRACEPARENT.slice(3, 35), span: { parent_uid: TRACEPARENT.slice(36, 52) } },
      unmapped: { lineage: [{ type: 'human' }, { n: 1 }, { n: 2 }] },
    })
  })
})

describe('record_integrity', () => {
  it('carries the leaf of the log, and a fingerprint that anybody can compute again from the event', () => {
    const bytes = entryBytes()
    for (const [i, event] of (eventsOf() as unknown as Record<string, never>[]).entries()) {
      const { fingerprint, ...attestation } = (event.attestation_list as unknown as Record<string, never>[])[0] ?? {}
      const signed = canonicalize({ ...event, attestation_list: [attestation] }) as string
      expect(fingerprint).toMatchObject({ algorithm_id: 3, value: hash('sha256', signed, 'hex') })
      expect(event.unmapped).toMatchObject({
        log: { origin: 'keyless.test/acme', seq: i, leaf_sha256: leafHash(bytes[i] as Buffer).toString('base64') },
      })
    }
  })

  it('is left out where something is masked: a hash of the whole entry is a way to guess what was', () => {
    for (const event of eventsOf(samples, ['human'])) {
      expect(event).not.toHaveProperty('attestation_list')
      expect(event.metadata.profiles).not.toContain('record_integrity')
      expect(JSON.stringify(event)).not.toContain('leaf_sha256')
    }
  })
})
