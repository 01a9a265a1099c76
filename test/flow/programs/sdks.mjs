// Every SDK of this language, made with nothing but the environment it finds, and one call of each. A line of JSON per SDK.
import Anthropic from '@anthropic-ai/sdk'
import { Octokit } from '@octokit/rest'
import { WebClient } from '@slack/web-api'
import OpenAI from 'openai'
import Stripe from 'stripe'

const port = process.argv[2]
const env = process.env

const SDKS = {
  openai: () => new OpenAI({ baseURL: `https://api.openai.com:${port}/v1`, maxRetries: 0 }).models.list(),
  anthropic: () => new Anthropic({ baseURL: `https://api.anthropic.com:${port}`, maxRetries: 0 }).models.list(),
  github: () =>
    new Octokit({ auth: env.GITHUB_TOKEN, baseUrl: `https://api.github.com:${port}` }).rest.users.getAuthenticated(),
  slack: () =>
    new WebClient(env.SLACK_BOT_TOKEN, {
      slackApiUrl: `https://slack.com:${port}/api/`,
      retryConfig: { retries: 0 },
    }).auth.test(),
  stripe: () =>
    new Stripe(env.STRIPE_API_KEY, { host: 'api.stripe.com', port, maxNetworkRetries: 0 }).balance.retrieve(),
}

for (const [name, call] of Object.entries(SDKS)) {
  try {
    await call()
    console.log(JSON.stringify({ name, ok: true }))
  } catch (error) {
    console.log(JSON.stringify({ name, ok: false, why: String(error?.message ?? error) }))
  }
}
