/** Finds the part of a JSON Schema that speaks about one place in a document. Pure. */

export type JsonNode = Record<string, unknown>
export type Path = readonly PropertyKey[]

export function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (inner, key) =>
      typeof inner === 'object' && inner !== null ? (inner as Record<PropertyKey, unknown>)[key] : undefined,
    value,
  )
}

/** The schema node that applies at a place; of a union, the branch most of whose constants are written. */
export function nodeAt(schema: JsonNode, written: unknown, path: Path): JsonNode | undefined {
  let node: JsonNode | undefined = schema
  let value = written
  for (const key of path) {
    if (node === undefined) return undefined
    node = stepInto(chooseBranch(node, value), key)
    value = valueAt(value, [key])
  }
  return node === undefined ? undefined : chooseBranch(node, value)
}

function stepInto(node: JsonNode, key: PropertyKey): JsonNode | undefined {
  if (typeof key === 'number') return asNode(node.items)
  const own = propertiesOf(node)[String(key)]
  if (own !== undefined) return own
  const said = branchesOf(node)
    .map((branch) => propertiesOf(branch)[String(key)])
    .filter((property) => property !== undefined)
  const constants: unknown[] = said.flatMap(constantsOf)
  return constants.length > 0 ? { enum: [...new Set(constants)] } : (said[0] ?? asNode(node.additionalProperties))
}

function chooseBranch(node: JsonNode, value: unknown): JsonNode {
  const equal = (branch: JsonNode) =>
    Object.entries(propertiesOf(branch)).filter(([key, property]) =>
      constantsOf(property).includes(valueAt(value, [key])),
    ).length
  const ranked = branchesOf(node)
    .map((branch) => ({ branch, rank: equal(branch) }))
    .sort((a, b) => b.rank - a.rank)
  const [best, next] = ranked
  if (best === undefined || best.rank === 0) return node
  // Several fit equally: the wrong word may be the one that tells them apart.
  return best.rank === next?.rank
    ? { oneOf: ranked.filter(({ rank }) => rank === best.rank).map(({ branch }) => branch) }
    : best.branch
}

/** Alternatives of a union, those of unions inside it included. */
export function branchesOf(node: JsonNode): JsonNode[] {
  const branches = node.oneOf ?? node.anyOf
  if (!Array.isArray(branches)) return []
  return branches.flatMap((branch) => {
    const inner = asNode(branch)
    if (inner === undefined) return []
    const deeper = branchesOf(inner)
    return deeper.length > 0 ? deeper : [inner]
  })
}

export function propertiesOf(node: JsonNode | undefined): Record<string, JsonNode> {
  return (asNode(node?.properties) ?? {}) as Record<string, JsonNode>
}

function asNode(value: unknown): JsonNode | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonNode) : undefined
}

function constantsOf(node: JsonNode): readonly unknown[] {
  if (node.const !== undefined) return [node.const]
  return Array.isArray(node.enum) ? node.enum : []
}
