/** Schemas are compiled when they are needed. One that cannot be is found here, not by whoever asks for its route first. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import serializers from '@fastify/fast-json-stringify-compiler'
import type { FastifyInstance, RouteOptions } from 'fastify'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../rig/gateway.ts'

/** Route → the part of a listener that has it. */
const routes = new Map<RouteOptions, FastifyInstance>()
let gateway: TestGateway

function hear(message: unknown): void {
  const { fastify } = message as { fastify: FastifyInstance }
  fastify.addHook('onRoute', function remember(this: FastifyInstance, route) {
    routes.set(route, this)
  })
}

beforeAll(async () => {
  subscribe('fastify.initialization', hear)
  gateway = await startGateway('')
})
afterAll(async () => {
  unsubscribe('fastify.initialization', hear)
  await gateway.stop()
})

const nameOf = ({ method, url }: RouteOptions) => `${method} ${url}`

it('of every route that a listener has', () => {
  expect([...routes.keys()].map(nameOf)).toEqual(expect.arrayContaining(['POST /tasks', 'GET /records']))
  const written = { method: '', url: '', httpStatus: '200' }
  const toText = serializers()({})
  let compiled = 0
  for (const [route, { validatorCompiler: compile }] of routes) {
    const { body, querystring, params, response = {} } = route.schema ?? {}
    for (const schema of [body, querystring, params].filter((one) => one !== undefined)) {
      const validate = compile?.({ ...written, schema })
      expect(() => validate?.(null), nameOf(route)).not.toThrow()
      if (validate !== undefined) compiled++
    }
    for (const schema of Object.values(response as object)) {
      expect(() => toText({ ...written, schema }), nameOf(route)).not.toThrow()
      compiled++
    }
  }
  expect(compiled).toBeGreaterThan(100)
})
