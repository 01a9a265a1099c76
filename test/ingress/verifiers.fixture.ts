/** Programs that verify certificates as strictly as anybody does. Each judges a list of cases. */
import { spawnSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { run, runOk } from '../rig/process.ts'

export interface Case {
  readonly host: string
  /** PEM files: leaf and what is sent with it; the key of the leaf; all that the client trusts. */
  readonly chain: string
  readonly key: string
  readonly trust: string
}

export interface Verifier {
  readonly name: string
  /** The program that must be there. */
  readonly command: string
  /** Whether each case is accepted for its host. @param dir for files of its own. */
  verify(cases: readonly Case[], dir: string): Promise<boolean[]>
}

export function isThere(command: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`]).status === 0
}

export const verifiers: readonly Verifier[] = [
  {
    name: 'OpenSSL with -x509_strict',
    command: 'openssl',
    verify: (cases) =>
      each(cases, async ({ host, chain, trust }) => {
        const name = [isIP(host) === 0 ? '-verify_hostname' : '-verify_ip', host]
        const path = ['-CAfile', trust, '-untrusted', chain, chain]
        const { code, stdout } = await run('openssl', [
          'verify',
          '-x509_strict',
          '-purpose',
          'sslserver',
          ...name,
          ...path,
        ])
        return code === 0 && stdout.includes('OK')
      }),
  },
  {
    name: 'GnuTLS',
    command: 'certtool',
    verify: (cases) =>
      each(cases, async ({ host, chain, trust }) => {
        const rules = ['--verify-profile=high', '--verify-purpose=1.3.6.1.5.5.7.3.1', '--verify-hostname', host]
        return (
          (await run('certtool', ['--verify', ...rules, '--load-ca-certificate', trust, '--infile', chain])).code === 0
        )
      }),
  },
  {
    name: 'Python with VERIFY_X509_STRICT',
    command: 'python3',
    verify: async (cases) => verdicts(await runOk('python3', ['-c', PYTHON, ...argumentsOf(cases)])),
  },
  {
    name: 'Go',
    command: 'go',
    async verify(cases, dir) {
      await writeFile(join(dir, 'verify.go'), GO)
      const env = { ...process.env, GO111MODULE: 'off', GOFLAGS: '', GOTOOLCHAIN: 'local' }
      const args = ['run', 'verify.go', ...argumentsOf(cases)]
      return verdicts(await runOk('go', args, { cwd: dir, env, timeoutMs: 120_000 }))
    },
  },
  {
    name: 'Java',
    command: 'java',
    async verify(cases, dir) {
      await writeFile(join(dir, 'Verify.java'), JAVA)
      const args = ['-XX:TieredStopAtLevel=1', join(dir, 'Verify.java'), ...argumentsOf(cases)]
      return verdicts(await runOk('java', args, { timeoutMs: 60_000 }))
    },
  },
]

/** Four for each case. */
function argumentsOf(cases: readonly Case[]): string[] {
  return cases.flatMap(({ host, chain, key, trust }) => [host, chain, key, trust])
}

async function each(cases: readonly Case[], judge: (one: Case) => Promise<boolean>): Promise<boolean[]> {
  return Promise.all(cases.map(judge))
}

/** One line `yes` or `no …` for each case. */
function verdicts(said: string): boolean[] {
  return said
    .trim()
    .split('\n')
    .map((line) => line === 'yes')
}

/** A whole handshake in memory: what Python 3.13 demands of every server by default. */
const PYTHON = `
import ssl, sys
words = iter(sys.argv[1:])
for host, chain, key, trust in zip(words, words, words, words):
    client = ssl.create_default_context(cafile=trust)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(a, b, server_hostname=host), server.wrap_bio(b, a, server_side=True)]
    try:
        while ends:
            for end in list(ends):
                try:
                    end.do_handshake()
                    ends.remove(end)
                except ssl.SSLWantReadError:
                    pass
        print('yes')
    except ssl.SSLError as error:
        print('no', error)
`

const GO = `package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

func main() {
	for i := 1; i < len(os.Args); i += 4 {
		chain, _ := os.ReadFile(os.Args[i+1])
		trust, _ := os.ReadFile(os.Args[i+3])
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AppendCertsFromPEM(trust)
		block, rest := pem.Decode(chain)
		between.AppendCertsFromPEM(rest)
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err == nil {
			_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: os.Args[i]})
		}
		if err != nil {
			fmt.Println("no", err)
		} else {
			fmt.Println("yes")
		}
	}
}
`

/** The path as PKIX has it; hosts are matched elsewhere in Java, and `test/matrix` connects with a real client. */
const JAVA = `
import java.io.*;
import java.security.cert.*;
import java.util.*;

class Verify {
  static final CertificateFactory X509;
  static { try { X509 = CertificateFactory.getInstance("X.509"); } catch (CertificateException error) { throw new Error(error); } }

  static List<X509Certificate> read(String file) throws Exception {
    try (var in = new FileInputStream(file)) {
      return new ArrayList<>((Collection<X509Certificate>) X509.generateCertificates(in));
    }
  }

  public static void main(String[] args) throws Exception {
    for (int i = 0; i < args.length; i += 4) {
      var anchors = new HashSet<TrustAnchor>();
      for (var root : read(args[i + 3])) anchors.add(new TrustAnchor(root, null));
      var parameters = new PKIXParameters(anchors);
      parameters.setRevocationEnabled(false);
      var chain = read(args[i + 1]);
      chain.remove(chain.size() - 1); // the root: a path ends below its anchor
      try {
        CertPathValidator.getInstance("PKIX").validate(X509.generateCertPath(chain), parameters);
        System.out.println("yes");
      } catch (CertPathValidatorException error) {
        System.out.println("no " + error.getMessage().replace('\\n', ' '));
      }
    }
  }
}
`
