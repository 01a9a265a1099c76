/** Who may decide on what: groups of the settings, and never whoever asks. Pure. */
import { type ApprovalFacts, type ApprovalTerms, ROOT_HUMAN } from '../protocol/approval.ts'
import type { Human } from '../protocol/grant.ts'

/** Begins the issuer of users of a machine. */
const LOCAL = 'local:'
/** Issuer of owners of agents that come by themselves. */
const REGISTRY = 'registry'

export type Identity = Pick<Human, 'iss' | 'sub'>

/** One person, however many ways it has to prove to be it. */
export interface Approver {
  readonly name: string
  readonly identities: readonly Identity[]
}

export interface People {
  readonly approvers: readonly Approver[]
  /** Group → names of approvers. */
  readonly groups: ReadonlyMap<string, readonly string[]>
}

/** Why not, in words for whoever tries. */
export type Standing =
  | { readonly name: string; readonly groups: readonly string[]; readonly hindrance?: undefined }
  | { readonly hindrance: string }

interface Sought {
  readonly facts: Pick<ApprovalFacts, 'human' | 'agent' | 'lineage'>
  readonly terms: Pick<ApprovalTerms, 'from'>
}

/**
 * What a human's word counts for. The human for whom the agent works is asked as `human` and counts for no group, by whichever of
 * its identities it comes; otherwise who asks and who consents would be one.
 */
export function standingOf({ approvers, groups }: People, { facts, terms }: Sought, human: Identity): Standing {
  if (facts.lineage.some(({ type, id }) => type === 'ai_agent' && id === human.sub))
    return { hindrance: 'An agent decides on nothing that agents ask for.' }
  const approver = approvers.find(({ identities }) => identities.some((known) => isSame(known, human)))
  if (isRoot(facts, human, approver)) {
    if (!terms.from.includes(ROOT_HUMAN))
      return {
        hindrance: `The agent works for this human, so somebody else has to decide, of: ${terms.from.join(', ')}. Nobody approves their own request.`,
      }
    return { name: approver?.name ?? `${human.iss} ${human.sub}`, groups: [ROOT_HUMAN] }
  }
  if ([human, ...(approver?.identities ?? [])].some((known) => isNamesake(known, facts.human)))
    return {
      hindrance: 'The agent works for somebody of this name, known by another issuer, who may be the same human.',
    }
  const own = approver && terms.from.filter((group) => groups.get(group)?.includes(approver.name))
  if (approver === undefined || own === undefined || own.length === 0)
    return { hindrance: `This human is in none of the groups that are asked: ${terms.from.join(', ')}.` }
  return { name: approver.name, groups: own }
}

/** Groups that the settings do not have, or that are empty: nobody could consent for them. */
export function unknownGroups({ groups }: People, { from }: Pick<ApprovalTerms, 'from'>): string[] {
  return from.filter((group) => group !== ROOT_HUMAN && (groups.get(group)?.length ?? 0) === 0)
}

/** So many different people could consent at most: with the human of the task, who may be one of the others. */
export function mostPeople({ groups }: People, { from }: Pick<ApprovalTerms, 'from'>): number {
  const members = new Set(from.flatMap((group) => groups.get(group) ?? []))
  return members.size + (from.includes(ROOT_HUMAN) ? 1 : 0)
}

/** An agent that came by itself works for its owner, who is known by name alone: by the one that settings give to an approver. */
function isRoot({ human: root }: Sought['facts'], human: Identity, approver: Approver | undefined): boolean {
  if (isSame(root, human)) return true
  if (approver === undefined) return false
  if (root.iss === REGISTRY && approver.name === root.sub) return true
  return approver.identities.some((known) => isSame(known, root))
}

/**
 * The same name, as another issuer has it: owners of agents, of whom settings say no more than that; and user names of machines, for
 * replicas run on several, and people have one name on all of them. Good for a no, never for a yes.
 */
function isNamesake(known: Identity, root: Identity): boolean {
  const isNameAlone = root.iss === REGISTRY || (known.iss.startsWith(LOCAL) && root.iss.startsWith(LOCAL))
  return isNameAlone && known.sub === root.sub
}

function isSame(a: Identity, b: Identity): boolean {
  return a.iss === b.iss && a.sub === b.sub
}
