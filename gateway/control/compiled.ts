/**
 * What the framework makes of the schemas of a route, made when the route is first asked for: a start would otherwise wait for a
 * hundred of them, most of which nobody needs before it stops. A test makes every one.
 */
import validators from '@fastify/ajv-compiler'
import serializers, { type SerializerCompiler, type SerializerFactory } from '@fastify/fast-json-stringify-compiler'

type ValidatorFactory = ReturnType<typeof validators>
type ValidatorCompiler = ReturnType<ValidatorFactory>
type Validator = ReturnType<ValidatorCompiler>

export function compiledWhenAsked(): { buildValidator: ValidatorFactory; buildSerializer: SerializerFactory } {
  const buildValidator = validators()
  const buildSerializer = serializers()
  return {
    buildValidator: (shared, options) => {
      const compile = buildValidator(shared, options)
      return (route) => validatorOf(() => compile(route))
    },
    buildSerializer: (shared, options) => {
      const compile = buildSerializer(shared, options)
      return (route) => serializerOf(() => compile(route))
    },
  }
}

function validatorOf(compile: () => Validator): Validator {
  let compiled: Validator | undefined
  const validate = ((value: unknown) => {
    compiled ??= compile()
    const isValid = compiled(value)
    validate.errors = compiled.errors ?? null // read by the framework right after
    return isValid
  }) as Validator
  return validate
}

function serializerOf(compile: () => ReturnType<SerializerCompiler>): ReturnType<SerializerCompiler> {
  let compiled: ReturnType<SerializerCompiler> | undefined
  return (value) => {
    compiled ??= compile()
    return compiled(value)
  }
}
