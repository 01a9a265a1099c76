/** Clients that are driven in tests of their own, for docs/clients.md. `heldBy` is the file; a test sees that it is there. */

export interface MatrixTool {
  readonly title: string
  readonly works: string
  readonly notes: string
  readonly heldBy: string
}

export const tools: readonly MatrixTool[] = [
  {
    title: 'git',
    works: 'clone (64 MB), push (chunked), shallow and partial clone with later fetches, refusals as `remote: …`',
    notes:
      '`https_proxy` and `GIT_SSL_CAINFO`. Sends proxy credentials only after a 407; `GIT_HTTP_PROXY_AUTHMETHOD=basic` saves that. Credentials in a remote’s URL never leave the gateway. The credential of ours is there from the first request, so git never asks for one.',
    heldBy: 'test/flow/git.test.ts',
  },
  {
    title: 'git-lfs',
    works: 'push and pull (20 MB)',
    notes:
      'Objects come with an authorization of their own: with `captures: [/objects/*/actions/*/header/Authorization]` at the batch the agent holds placeholders for it, with `attach: none` at the objects it passes. It asks for a refused object eight times more by itself, for a refused batch not.',
    heldBy: 'test/flow/git.test.ts',
  },
  {
    title: 'gh, skopeo, kubectl',
    works: 'refusals in words',
    notes:
      '`HTTPS_PROXY` and `SSL_CERT_FILE`, as Go has them. Of a refused first question (`/v2/`, API discovery) skopeo and kubectl show the status alone. A kubeconfig that names a CA trusts only that one.',
    heldBy: 'test/matrix/dialects.test.ts',
  },
  {
    title: 'gRPC (`@grpc/grpc-js`)',
    works: 'unary and streaming calls, trailers, refusals as `grpc-status`',
    notes: '`grpc_proxy` or `https_proxy`, lower case; speaks HTTP/2 only.',
    heldBy: 'test/flow/grpc.test.ts',
  },
]
