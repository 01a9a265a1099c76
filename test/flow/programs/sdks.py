"""Every SDK of this language, made with nothing but the environment it finds, and one call of each. A line of JSON per SDK."""
import json, os, sys

port = sys.argv[1]


def openai():
    from openai import OpenAI

    list(OpenAI(base_url=f"https://api.openai.com:{port}/v1", max_retries=0).models.list())


def anthropic():
    from anthropic import Anthropic

    list(Anthropic(base_url=f"https://api.anthropic.com:{port}", max_retries=0).models.list())


def slack():
    from slack_sdk import WebClient

    WebClient(token=os.environ["SLACK_BOT_TOKEN"], base_url=f"https://slack.com:{port}/api/").auth_test()


def stripe():
    import stripe

    stripe.StripeClient(
        os.environ["STRIPE_API_KEY"], base_addresses={"api": f"https://api.stripe.com:{port}"}, max_network_retries=0
    ).v1.balance.retrieve()


def google():
    import google.auth
    from googleapiclient.discovery import build

    credentials, _ = google.auth.default()
    place = {"api_endpoint": f"https://gmail.googleapis.com:{port}"}
    gmail = build("gmail", "v1", credentials=credentials, client_options=place, cache_discovery=False)
    gmail.users().messages().list(userId="me", q="from:ana@example.com newer_than:1d").execute()


def boto3():
    import boto3

    boto3.client("sts", region_name="us-east-1", endpoint_url=f"https://sts.amazonaws.com:{port}").get_caller_identity()


for call in (openai, anthropic, slack, stripe, google, boto3):
    try:
        call()
        print(json.dumps({"name": call.__name__, "ok": True}), flush=True)
    except Exception as error:
        print(json.dumps({"name": call.__name__, "ok": False, "why": f"{type(error).__name__}: {error}"}), flush=True)
