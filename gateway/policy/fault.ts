/** What is wrong with policies and service files: collected, and thrown together, so that one run shows every correction. */

export interface Fault {
  /** File and place in it: `policies/own.cedar:12`, `billing.yaml: operations.invoices.read.access`. */
  readonly where: string
  readonly got: string
  readonly allowed: string
  readonly fix: string
}

export class PolicyFaults extends Error {
  readonly faults: readonly Fault[]

  constructor(faults: readonly Fault[]) {
    super(
      `${faults.length} ${faults.length === 1 ? 'problem' : 'problems'} in policies and services:\n${faults.map(faultLine).join('\n')}`,
    )
    this.name = 'PolicyFaults'
    this.faults = faults
  }
}

function faultLine(fault: Fault): string {
  return `  ${fault.where}\n    got: ${fault.got}\n    allowed: ${fault.allowed}\n    fix: ${fault.fix}`
}

/** @throws {PolicyFaults} when there is at least one. */
export function throwFaults(faults: readonly Fault[]): void {
  if (faults.length > 0) throw new PolicyFaults(faults)
}
