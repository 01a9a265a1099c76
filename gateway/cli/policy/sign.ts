/** `keyless policy sign | keygen`: stand for a directory of policies with an Ed25519 key. Needs no gateway and no network. */
import type { KeyObject } from 'node:crypto'
import { Command, InvalidArgumentError } from 'commander'
import type { Fault } from '../../policy/fault.ts'

interface SignOptions {
  readonly key: string
  readonly version?: number
  readonly name?: string
  readonly valid?: number
  readonly cosign?: boolean
}

export function policySignCommand(): Command {
  return new Command('sign')
    .description('sign the *.cedar files of a directory: writes bundle.dsse.json beside them')
    .argument('<directory>', 'directory of policies')
    .requiredOption('--key <file>', 'PEM file with an Ed25519 private key')
    .option(
      '--version <n>',
      'version, greater than every one before (default: the time, in epoch seconds)',
      wholeNumber,
    )
    .option('--name <name>', 'name of the bundle, which ids of policies begin with (default: that of the directory)')
    .option('--valid <time>', 'how long it may decide, such as 30d or 12h (default: without end)', parseSpan)
    .option('--cosign', 'add a signature to the bundle as another key has signed it')
    .action(async (directory: string, options: SignOptions) => {
      process.stdout.write(await (options.cosign ? cosign(directory, options) : signAnew(directory, options)))
    })
}

export function policyKeygenCommand(): Command {
  return new Command('keygen')
    .description('make a key pair for `keyless policy sign`')
    .argument('<file>', 'file for the private key; the public one is written to <file>.pub')
    .action(async (file: string) => {
      const [{ generateKeyPairSync }, { createOnce }, { keyId }, { existsSync }] = await Promise.all([
        import('node:crypto'),
        import('../../private-file.ts'),
        import('../../policy/source/signature.ts'),
        import('node:fs'),
      ])
      for (const taken of [file, `${file}.pub`].filter((path) => existsSync(path)))
        throw new Error(`${taken} is there already. Name another file, or remove it if nothing is signed with it.`)
      const { privateKey, publicKey } = generateKeyPairSync('ed25519')
      await createOnce(file, privateKey.export({ type: 'pkcs8', format: 'pem' }))
      await createOnce(`${file}.pub`, publicKey.export({ type: 'spki', format: 'pem' }), 0o644)
      process.stdout.write(
        `${keyId(publicKey)}\nName ${file}.pub under policy.keys, and keep ${file} where bundles are signed.\n`,
      )
    })
}

async function signAnew(directory: string, o: SignOptions): Promise<string> {
  const [
    { BUNDLE_NAME, keyId, MANIFEST, signManifest },
    { replace },
    { createPublicKey },
    { basename, join, resolve },
  ] = await Promise.all([
    import('../../policy/source/signature.ts'),
    import('../../private-file.ts'),
    import('node:crypto'),
    import('node:path'),
  ])
  const key = await privateKey(o.key)
  const files = await hashes(directory)
  await requirePolicies(directory)
  const issuedAt = Math.floor(Date.now() / 1000)
  const name = o.name ?? basename(resolve(directory))
  if (!BUNDLE_NAME.test(name))
    throw new Error(
      `The name of the bundle is ${name}: it takes letters, digits, dots, - and _. Choose one with --name.`,
    )
  const version = o.version ?? issuedAt
  const notAfter = o.valid === undefined ? undefined : issuedAt + o.valid
  const manifest = signManifest({ name, version, issuedAt, notBefore: undefined, notAfter, files }, key)
  await replace(join(directory, MANIFEST), manifest, 0o644)
  const until = notAfter === undefined ? '' : `, until ${new Date(notAfter * 1000).toISOString()}`
  return `${name} version ${version}: ${files.size} ${files.size === 1 ? 'file' : 'files'}, signed by ${keyId(createPublicKey(key))}${until}\n`
}

async function cosign(directory: string, { key: file, version, name, valid }: SignOptions): Promise<string> {
  if (version !== undefined || name !== undefined || valid !== undefined)
    throw new Error('--cosign signs what the first has signed: leave out --version, --name and --valid.')
  const [
    { cosignManifest, MANIFEST, verifyManifest, keyId },
    { replace },
    { createPublicKey },
    { readFile },
    { join },
  ] = await Promise.all([
    import('../../policy/source/signature.ts'),
    import('../../private-file.ts'),
    import('node:crypto'),
    import('node:fs/promises'),
    import('node:path'),
  ])
  const key = await privateKey(file)
  const path = join(directory, MANIFEST)
  const manifest = cosignManifest(await readFile(path), key)
  const { statement } = verifyManifest(manifest, { keys: [createPublicKey(key)], signatures: 1 })
  const there = await hashes(directory)
  const isSame = there.size === statement.files.size && [...there].every(([at, sha]) => statement.files.get(at) === sha)
  if (!isSame)
    throw new Error(`The files in ${directory} are not those that ${MANIFEST} names. Sign it anew, without --cosign.`)
  await requirePolicies(directory)
  await replace(path, manifest, 0o644)
  return `${statement.name} version ${statement.version}: signed by ${keyId(createPublicKey(key))} too\n`
}

async function privateKey(file: string): Promise<KeyObject> {
  const [{ createPrivateKey }, { readFile }] = await Promise.all([import('node:crypto'), import('node:fs/promises')])
  const pem = await readFile(file, 'utf8')
  try {
    const key = createPrivateKey(pem)
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch {
    // said below, without what the file holds
  }
  throw new Error(`${file} holds no Ed25519 private key in PEM. Make one with \`keyless policy keygen FILE\`.`)
}

/**
 * What no gateway would take is not signed. Whether it fits their services is theirs to say, and `keyless policy check`'s.
 * @throws {PolicyFaults} listing every problem in them.
 */
async function requirePolicies(directory: string): Promise<void> {
  const [{ findSources, readPolicies }, { throwFaults }] = await Promise.all([
    import('../../policy/source/policy-file.ts'),
    import('../../policy/fault.ts'),
  ])
  const faults: Fault[] = []
  readPolicies(await findSources([directory], faults), faults)
  throwFaults(faults)
}

/** SHA-256 of every policy file, by its name below the directory. */
async function hashes(directory: string): Promise<Map<string, string>> {
  const [{ readdir, readFile }, { join }, { hash }, { isFileName }] = await Promise.all([
    import('node:fs/promises'),
    import('node:path'),
    import('node:crypto'),
    import('../../policy/source/signature.ts'),
  ])
  const names = (await readdir(directory, { recursive: true })).filter((name) => name.endsWith('.cedar')).sort()
  if (names.length === 0) throw new Error(`${directory} holds no *.cedar file.`)
  const odd = names.find((name) => !isFileName(name))
  if (odd !== undefined)
    throw new Error(
      `${odd} cannot be in a bundle: names take letters, digits, dots, - and _, and begin with none of the last three but _.`,
    )
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, hash('sha256', await readFile(join(directory, name)), 'hex')] as const),
    ),
  )
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,14}$/.test(text)) throw new InvalidArgumentError('Write a whole number, 1 or more.')
  return Number(text)
}

/** "30d", "12h", "15m" → seconds. */
function parseSpan(text: string): number {
  const match = /^([1-9]\d{0,3})(m|h|d)$/.exec(text)
  if (match === null) throw new InvalidArgumentError('Write a number and a unit: 30d, 12h or 15m.')
  return Number(match[1]) * ({ m: 60, h: 3600, d: 86_400 }[match[2] ?? 'm'] ?? 60)
}
