"""Python's clients that read no variables by themselves: `python_clients.py URL…` asks each URL with each of them, the name as its
path, and prints what was answered as JSON: `{"NAME URL": text}`."""
import asyncio
import json
import sys

import aiohttp
import urllib3


async def session(url):
    async with aiohttp.ClientSession() as opened, opened.get(url) as answer:
        return await answer.text()


async def told_not_to():
    async with aiohttp.ClientSession(trust_env=False) as opened:
        return opened.trust_env


pool = urllib3.PoolManager(num_pools=3, headers={"x-mine": "kept"})
clients = {
    "aiohttp": lambda url: asyncio.run(session(url)),
    "pool": lambda url: pool.request("GET", url).data.decode(),
    "request": lambda url: urllib3.request("GET", url, redirect=False).data.decode(),
}
said = {name + " " + url: ask(url + "/" + name) for name, ask in clients.items() for url in sys.argv[1:]}
said["trust_env=False"] = asyncio.run(told_not_to())
print(json.dumps(said))
