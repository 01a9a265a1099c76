/** `keyless policy …` in this process, and what it wrote. */
import { vi } from 'vitest'
import { policyCommand } from '../../gateway/cli/policy/policy.ts'

export interface Said {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export async function keylessPolicy(...args: string[]): Promise<Said> {
  const written = { stdout: '', stderr: '' }
  const before = process.exitCode
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      written[name] += String(text)
      return true
    }),
  )
  try {
    process.exitCode = undefined
    await policyCommand().parseAsync(args, { from: 'user' })
    return { code: Number(process.exitCode ?? 0), ...written }
  } finally {
    for (const spy of spies) spy.mockRestore()
    process.exitCode = before
  }
}
