/** Which kinds of entries may be attacks, and what an attacker would be doing, in the words of MITRE ATLAS. */

export interface Finding {
  readonly title: string
  /** Id and name in MITRE ATLAS. */
  readonly technique?: readonly [string, string]
}

const UNSECURED = ['AML.T0055', 'Unsecured Credentials'] as const

export const FINDINGS: Readonly<Record<string, Finding>> = {
  'leak.detected': { title: 'An answer held its credential', technique: UNSECURED },
  'leak.foreign': {
    title: 'A request carried a credential of somebody else',
    technique: ['AML.T0086', 'Exfiltration via AI Agent Tool Invocation'],
  },
  'leak.reported': { title: 'A credential was found where none may be', technique: UNSECURED },
  'leak.canary_used': {
    title: 'Bait was seen that nothing legitimate uses',
    technique: ['AML.T0083', 'Credentials from AI Agent Configuration'],
  },
  'revocation.anomaly': {
    title: 'An agent did what it never did',
    technique: ['AML.T0053', 'AI Agent Tool Invocation'],
  },
}
