import { createSecretKey, randomBytes } from 'node:crypto'
import { copyFile, link, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { createAudit } from '../../gateway/audit/audit.ts'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { forget } from '../../gateway/audit/personal/forgetting.ts'
import { openPersonal, type Personal } from '../../gateway/audit/personal/personal.ts'
import { lineageHash } from '../../gateway/audit/personal/places.ts'
import { personalSeals } from '../../gateway/audit/personal/seals.ts'
import { FIELDS, SEALED, Seal } from '../../gateway/audit/sealing.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { findCanaryInTree, newCanary } from '../rig/canary.ts'
import {
  decision,
  endpoint,
  entriesOf,
  grant,
  inbound,
  openTestLog,
  outcome,
  temporaryDir,
  testClock,
} from './log.fixture.ts'

const key = createSecretKey(randomBytes(32))
const ana = { tenant: 'default', iss: 'https://id.acme.test', sub: 'ana' }
let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-personal-'))
  return () => rm(dir, { recursive: true, force: true })
})

const opened = (isReader = false) => openPersonal({ dir, key, isReader })
const sealIn = async (personal: Personal, person = ana) => {
  await personal.ready(person)
  return personal.of(person)
}
const text = (sealed: string) => SEALED.exec(sealed)?.[2] ?? ''

describe('a seal', () => {
  const anyField = fc.constantFrom(...FIELDS)
  const seal = new Seal('AAAAAAAAAAAAAAAA', randomBytes(32))

  it('opens what it closed, whatever it was, and closes equal values equally', () => {
    fc.assert(
      fc.property(anyField, fc.string({ unit: 'grapheme' }), (field, value) => {
        const sealed = seal.close(field, value)
        expect(sealed).toMatch(SEALED)
        expect(seal.open(text(sealed))).toBe(value)
        expect(new Seal(seal.id, Buffer.alloc(32)).open(text(sealed))).toBeUndefined()
        expect(seal.close(field, value)).toBe(sealed)
      }),
    )
  })

  it('closes a value differently in each place, under each key and under each name', () => {
    const own = randomBytes(32)
    const forms = [
      new Seal('A'.repeat(16), own),
      new Seal('B'.repeat(16), own),
      new Seal('A'.repeat(16), randomBytes(32)),
    ]
    const all = forms.flatMap((one) => FIELDS.map((field) => one.close(field, 'ana')))
    expect(new Set(all.map(text)).size).toBe(all.length)
  })

  it('opens nothing of which a bit was changed', () => {
    const sealed = Buffer.from(text(seal.close('human', 'ana')), 'base64url')
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = Buffer.from(sealed)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(seal.open(changed.toString('base64url'))).toBeUndefined()
    }
  })

  it('opens nothing once it is destroyed', () => {
    const mortal = new Seal('CCCCCCCCCCCCCCCC', randomBytes(32))
    const sealed = mortal.close('human', 'ana')
    mortal.destroy()
    expect(mortal.open(text(sealed))).toBeUndefined()
    expect(mortal.close('human', 'ana')).not.toBe(sealed)
  })
})

describe('the keys of humans', () => {
  it('are one for each, shared by all who use the directory, and the same after a restart', async () => {
    const [here, there] = await Promise.all([opened(), opened()])
    const people = Array.from({ length: 20 }, (_, i) => ({ ...ana, sub: `human ${i}` }))
    await Promise.all(people.flatMap((one) => [here.ready(one), there.ready(one), here.ready(one)]))
    const later = await opened(true)
    for (const one of people) {
      const sealed = here.of(one).close('human', one.sub)
      expect(there.of(one).close('human', one.sub)).toBe(sealed)
      expect(later.unseal({ human: { sub: sealed }, list: [sealed, 1, null] })).toEqual({
        human: { sub: one.sub },
        list: [one.sub, 1, null],
      })
      expect(later.sealedForms(one.sub)).toEqual([sealed])
    }
    expect((await readdir(dir)).length).toBe(people.length)
    expect(new Set(people.map((one) => here.of(one).id)).size).toBe(people.length)
  })

  it('tell people of two issuers and tenants apart who have the same name', async () => {
    const personal = await opened()
    const others = [ana, { ...ana, iss: 'https://other.test' }, { ...ana, tenant: 'other' }]
    for (const one of others) await personal.ready(one)
    expect(new Set(personal.sealedForms('ana')).size).toBe(3)
    expect(personal.sealedForms('ben')).toEqual([])
    expect(personal.sealedForms('127.0.0.1', 'address').length).toBe(3)
  })

  it('are noise on the disk, under names that say nothing', async () => {
    const sub = newCanary()
    await (await opened()).ready({ ...ana, sub })
    expect(await findCanaryInTree(dir, sub)).toEqual([])
    expect(await readdir(dir)).toEqual([expect.stringMatching(/^[\w-]{43}\.key$/)])
  })

  it('name the file that another gateway’s key was put in place of', async () => {
    const foreign = await openPersonal({ dir, key: createSecretKey(randomBytes(32)) })
    await foreign.ready(ana)
    await expect(opened()).rejects.toThrow(/was not sealed by this gateway's keys.*lease\.key/)
  })

  it('are not made by a reader, who finds nobody where there is nobody', async () => {
    await rm(dir, { recursive: true })
    const reader = await opened(true)
    expect(reader.unseal('sealed:AAAAAAAAAAAAAAAA:not even one')).toBe('sealed:AAAAAAAAAAAAAAAA:not even one')
    await expect(readdir(dir)).rejects.toThrow('ENOENT')
  })
})

describe('a destroyed key', () => {
  it('is gone from the disk, from here, and from other processes when they look', async () => {
    const [here, there] = [await opened(), await opened()]
    const sealed = (await sealIn(here)).close('purpose', 'triage issue 42')
    await sealIn(there)
    let told = 0
    there.onDestroyed(() => {
      told += 1
    })
    const { id } = here.of(ana)
    await here.destroy(id)
    expect(await readdir(dir)).toEqual([`${id}.gone`])
    expect(here.unseal(sealed)).toBe(sealed)
    await there.refresh()
    expect([there.unseal(sealed), told, there.sealedForms('ana')]).toEqual([sealed, 1, []])
    expect((await opened(true)).unseal(sealed)).toBe(sealed)
  })

  it('is followed by another for a human who comes back, which opens nothing of before', async () => {
    const personal = await opened()
    const before = (await sealIn(personal)).close('human', 'ana')
    await personal.destroy(personal.of(ana).id)
    const after = (await sealIn(personal)).close('human', 'ana')
    expect(after.split(':')[1]).not.toBe(before.split(':')[1])
    const reader = await opened(true)
    expect([reader.unseal(before), reader.unseal(after)]).toEqual([before, 'ana'])
  })

  it('is finished off by whoever comes next when a crash came between its steps', async () => {
    const personal = await opened()
    const seal = await sealIn(personal)
    const sealed = seal.close('human', 'ana')
    await writeFile(join(dir, `${seal.id}.gone`), '') // told, and not yet done
    const next = await opened()
    expect(next.unseal(sealed)).toBe(sealed)
    expect(await readdir(dir)).toEqual([`${seal.id}.gone`])
    await writeFile(join(dir, `${seal.id}.dead`), 'out of its place, and not yet overwritten')
    await opened()
    expect(await readdir(dir)).toEqual([`${seal.id}.gone`])
  })

  it('does not come back when somebody puts its file back', async () => {
    const personal = await opened()
    const seal = await sealIn(personal)
    const sealed = seal.close('human', 'ana')
    const [file = ''] = await readdir(dir)
    const copy = `${dir}.copy`
    await copyFile(join(dir, file), copy)
    await personal.destroy(seal.id)
    await link(copy, join(dir, file))
    await rm(copy)
    expect((await opened()).unseal(sealed)).toBe(sealed)
    expect(await readdir(dir)).not.toContain(file)
  })

  it('takes nobody else along: the new key of a human outlives a late end of the old one', async () => {
    const [here, late] = [await opened(), await opened()]
    await Promise.all([here.ready(ana), late.ready(ana)])
    await here.destroy(here.of(ana).id)
    const sealed = (await sealIn(here)).close('human', 'ana')
    await late.refresh() // ends what it has in memory; the file is another's by now
    expect((await opened(true)).unseal(sealed)).toBe('ana')
  })
})

describe('the log', () => {
  let logDir: string
  beforeEach(async () => {
    logDir = await temporaryDir()
    return () => rm(logDir, { recursive: true, force: true })
  })
  const people = { human: { iss: ana.iss, sub: 'ana' }, owner: 'ben' }
  const ours = () =>
    grant({
      human: people.human,
      agent: { ...grant().agent, owner: people.owner },
      lineage: [
        { n: 0, type: 'human', id: 'ana' },
        { n: 1, type: 'ai_agent', id: 'spiffe://acme.test/a', grant: 'g' },
      ],
    })

  async function record(
    personal: Personal,
    work: (audit: ReturnType<typeof createAudit>) => Promise<unknown>,
  ): Promise<Entry[]> {
    const log = await openTestLog(logDir)
    const clock = testClock()
    const seals = personalSeals(personal, 'default', clock)
    const audit = createAudit({ log, clock, node: 'n', version: '1', hmacKey: key, personal: seals })
    try {
      await work(audit)
    } finally {
      await audit.close()
    }
    return (await entriesOf(logDir)).filter(({ kind }) => !kind.startsWith('log.'))
  }
  async function call(audit: ReturnType<typeof createAudit>, of = ours()): Promise<void> {
    const event = audit.openCall(inbound())
    event.authenticated(of)
    event.located(endpoint())
    event.decided(decision())
    await event.commit()
    event.closed(outcome())
  }

  it('has a chain hash over the chain as it stands there: who guesses a name cannot see that it is right', async () => {
    const [entry] = await record(await opened(), (audit) => call(audit))
    const { lineage = [], lineage_hash } = entry as Entry & { lineage_hash: string }
    expect(lineage[0]?.id).toMatch(SEALED)
    expect(lineage_hash).toBe(lineageHash(lineage as never))
    expect(lineage_hash).not.toBe(lineageHash([{ ...lineage[0], id: 'ana' }, ...lineage.slice(1)] as never))
  })

  it('seals the address of somebody unknown under the key of their day', async () => {
    const personal = await opened()
    const [entry] = await record(personal, async (audit) => {
      await audit.openCall(inbound()).refused(refusal())
    })
    expect(entry?.client?.ip).toMatch(SEALED)
    expect(entry?.decision?.detail).toMatch(SEALED)
    expect(personal.known('2026-11-21')).toMatchObject([{ iss: 'nobody', tenant: 'default' }])
    expect(personal.unseal(entry)?.client?.ip).toBe('127.0.0.1')
  })

  it('refuses calls while the key of their human cannot be made: no record, no call', async () => {
    const personal = await opened()
    await rm(dir, { recursive: true })
    await record(personal, async (audit) => {
      await expect(call(audit)).rejects.toMatchObject({ code: 'audit_unavailable' })
      const refused = await audit.openCall(inbound()).refused(refusal())
      expect(refused).toMatchObject({ code: 'audit_unavailable' })
    })
  })

  it('goes on under a new key when the human of a living grant is forgotten, and shows the old one to nobody', async () => {
    const personal = await opened()
    const one = ours()
    const entries = await record(personal, async (audit) => {
      await call(audit, one)
      const { keys, seq } = await forget(
        { audit, personal, tenant: 'default', by: { iss: 'local:x', sub: 'op' } },
        { sub: 'ana' },
      )
      expect([keys.length, seq]).toEqual([1, 3])
      await call(audit, one)
    })
    const [before, , said, after] = entries.map((entry) => personal.unseal(entry))
    expect(before?.human?.sub).toMatch(SEALED)
    expect(before?.client?.ip).toMatch(SEALED)
    expect(said).toMatchObject({ kind: 'admin.personal_forgotten', human: { sub: 'op' } })
    expect(after).toMatchObject({ human: { sub: 'ana' }, client: { ip: '127.0.0.1' }, lineage: [{ id: 'ana' }, {}] })
  })

  it('wants to know which human of a name is meant, and says when there is none', async () => {
    const personal = await opened()
    for (const iss of ['https://a.test', 'https://b.test', 'registry']) await personal.ready({ ...ana, iss })
    await record(personal, async (audit) => {
      const parts = { audit, personal, tenant: 'default', by: undefined }
      await expect(forget(parts, { sub: 'ana' })).rejects.toThrow(/https:\/\/a\.test, https:\/\/b\.test.*--iss/)
      await expect(forget(parts, { sub: 'eve' })).rejects.toMatchObject({ code: 'instruction_invalid' })
      expect(await forget(parts, { sub: 'ana', iss: 'https://a.test' })).toMatchObject({ keys: [expect.any(String)] })
      expect((await forget(parts, { sub: 'ana' })).keys.length).toBe(2) // the other, and the owner of that name
    })
    expect(await readFile(join(logDir, 'entries.jsonl'), 'utf8')).not.toContain('"ana"')
  })
})

function refusal() {
  return new GatewayError('grant_invalid', 'The grant of ana is unknown.')
}
