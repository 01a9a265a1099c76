/**
 * Interpreters that get the run's environment back when somebody has emptied it: hosts of MCP servers start them with little more
 * than HOME and PATH. PATH is what survives, so a directory stands first in it with a script under each interpreter's name, which
 * sets what is missing and becomes the interpreter that stands next on PATH.
 */
import { constants } from 'node:fs'
import { access, mkdir, stat, symlink, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'

/** What MCP servers are started with. Not java: scripts find its home by where the command lies. */
const INTERPRETERS = [
  ...['node', 'npm', 'npx', 'pnpm', 'pnpx', 'yarn', 'bun', 'bunx', 'deno'],
  ...['python', 'python3', 'uv', 'uvx', 'pipx', 'ruby', 'perl', 'php'],
]

/**
 * One process, no other command: builtins of any POSIX shell alone. Version managers (pyenv, asdf) stand in PATH as scripts of
 * the same name that look for the name again; they become it, so the process is the same, and the search goes on behind them.
 * One that starts a child instead would go round for ever: a bound ends that.
 */
const SHIM = (environmentFile: string) => `#!/bin/sh
name=\${0##*/}
[ -n "\${HTTPS_PROXY-}" ] || [ ! -r ${quoted(environmentFile)} ] || . ${quoted(environmentFile)}
after=
depth=0
case "\${KEYLESS_SHIM-}" in
  "$$ $name "*) after=\${KEYLESS_SHIM#"$$ $name "} ;;
  "$PPID $name "*) depth=$((\${KEYLESS_SHIM_DEPTH:-0} + 1)) ;;
esac
if [ "$depth" -ge 20 ]; then
  echo "keyless: $name on PATH starts itself again and again" >&2
  exit 126
fi
rest=$PATH:
while [ -n "$rest" ]; do
  dir=\${rest%%:*}
  rest=\${rest#*:}
  file=\${dir:-.}/$name
  if [ -n "$after" ]; then
    [ "$file" != "$after" ] || after=
  elif [ -f "$file" ] && [ -x "$file" ] && ! [ "$file" -ef "$0" ]; then
    export KEYLESS_SHIM="$$ $name $file" KEYLESS_SHIM_DEPTH=$depth
    exec "$file" "$@"
  fi
done
echo "keyless: $name: command not found" >&2
exit 127
`

/** @returns the directory to put first in PATH. It holds a shim for each interpreter that `path` leads to. */
export async function writeShims(
  dir: string,
  path: string,
  variables: Readonly<Record<string, string>>,
): Promise<string> {
  const bin = join(dir, 'bin')
  const environmentFile = join(dir, 'environment.sh')
  const shim = join(dir, 'shim.sh')
  await mkdir(bin, { mode: 0o700 })
  await writeFile(environmentFile, shellText(variables), { mode: 0o600 })
  await writeFile(shim, SHIM(environmentFile), { mode: 0o700 })
  const places = path.split(delimiter).filter((place) => place !== '')
  const found = await Promise.all(INTERPRETERS.map(async (name) => ((await isOnPath(name, places)) ? [name] : [])))
  await Promise.all(found.flat().map((name) => symlink(shim, join(bin, name))))
  return bin
}

/** What the host did set stays: it had a reason. */
function shellText(variables: Readonly<Record<string, string>>): string {
  return Object.entries(variables)
    .map(([name, value]) => `[ "\${${name}+x}" ] || export ${name}=${quoted(value)}\n`)
    .join('')
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

async function isOnPath(name: string, places: readonly string[]): Promise<boolean> {
  for (const place of places) {
    const file = join(place, name)
    try {
      if (!(await stat(file)).isFile()) continue
      await access(file, constants.X_OK)
      return true
    } catch {
      // not in this directory
    }
  }
  return false
}
