"""Python clients of the matrix: CLIENT BASE CASE… → one JSON line a case, as the client's user would see it."""
import asyncio, hashlib, json, os, sys

client, base, cases = sys.argv[1], sys.argv[2], sys.argv[3:]
OWN = {"Authorization": "Bearer placeholder-of-the-agent"}
CHUNKS = 96


def pieces():
    for _ in range(CHUNKS):
        yield b"u" * 32768


def digest(parts):
    total, sha = 0, hashlib.sha256()
    for part in parts:
        total += len(part)
        sha.update(part)
    return {"bytes": total, "sha256": sha.hexdigest()}


def events(lines, acknowledge):
    seen = []
    for line in lines:
        line = line.decode() if isinstance(line, bytes) else line
        if not line.startswith("data:"):
            continue
        seen.append(line[5:].strip())
        if len(seen) == 1:
            acknowledge()
    return {"events": seen}


def with_requests():
    import requests

    session = requests.Session()
    session.headers.update(OWN)
    def upload():
        return session.post(base + "/upload", data=pieces())
    def download():
        with session.get(base + "/download", stream=True) as answer:
            return digest(answer.iter_content(65536))
    def sse():
        with session.get(base + "/sse", stream=True) as answer:
            return events(answer.iter_lines(chunk_size=1), lambda: session.get(base + "/seen"))
    return {
        "get": lambda: session.get(base + "/get").json(),
        "post": lambda: session.post(base + "/post", json={"from": client}).json(),
        "upload": lambda: upload().json(),
        "download": download,
        "sse": sse,
        "refused": lambda: shown(session.delete(base + "/refused")),
    }


def shown(answer):
    return {"status": answer.status_code, "text": answer.text}


def with_httpx():
    import httpx

    session = httpx.Client(headers=OWN, timeout=20)
    def download():
        with session.stream("GET", base + "/download") as answer:
            return digest(answer.iter_bytes())
    def sse():
        with session.stream("GET", base + "/sse") as answer:
            return events(answer.iter_lines(), lambda: httpx.get(base + "/seen", headers=OWN))
    return {
        "get": lambda: session.get(base + "/get").json(),
        "post": lambda: session.post(base + "/post", json={"from": client}).json(),
        "upload": lambda: session.post(base + "/upload", content=pieces()).json(),
        "download": download,
        "sse": sse,
        "refused": lambda: shown(session.delete(base + "/refused")),
    }


def with_urllib():
    import urllib.request as u

    def ask(path, **options):
        return u.urlopen(u.Request(base + path, headers={**OWN, **options.pop("headers", {})}, **options))
    def refused():
        try:
            return ask("/refused", method="DELETE").read().decode()
        except u.HTTPError as error:
            return {"status": error.code, "text": error.read().decode()}
    return {
        "get": lambda: json.load(ask("/get")),
        "post": lambda: json.load(
            ask("/post", data=json.dumps({"from": client}).encode(), headers={"Content-Type": "application/json"})
        ),
        "upload": lambda: json.load(ask("/upload", data=pieces(), method="POST")),
        "download": lambda: digest(iter(lambda a=ask("/download"): a.read(65536), b"")),
        "sse": lambda: events(ask("/sse"), lambda: ask("/seen").read()),
        "refused": refused,
    }


def with_urllib3():
    import urllib3

    pool = urllib3.PoolManager(headers=OWN)
    def refused():
        answer = pool.request("DELETE", base + "/refused")
        return {"status": answer.status, "text": answer.data.decode()}
    return {
        "get": lambda: pool.request("GET", base + "/get").json(),
        "post": lambda: pool.request("POST", base + "/post", json={"from": client}).json(),
        "upload": lambda: pool.request("POST", base + "/upload", body=pieces()).json(),
        "download": lambda: digest(pool.request("GET", base + "/download", preload_content=False).stream(65536)),
        "refused": refused,
    }


def with_aiohttp(**trust):
    import aiohttp

    def within(work):
        async def whole():
            async with aiohttp.ClientSession(headers=OWN, **trust) as session:
                return await work(session)
        return lambda: asyncio.run(whole())
    async def get(session):
        async with session.get(base + "/get") as answer:
            return await answer.json()
    async def post(session):
        async with session.post(base + "/post", json={"from": client}) as answer:
            return await answer.json()
    async def upload(session):
        async def parts():
            for piece in pieces():
                yield piece
        async with session.post(base + "/upload", data=parts()) as answer:
            return await answer.json()
    async def download(session):
        async with session.get(base + "/download") as answer:
            return digest([part async for part in answer.content.iter_chunked(65536)])
    async def sse(session):
        seen = []
        async with session.get(base + "/sse") as answer:
            async for line in answer.content:
                if line.startswith(b"data:"):
                    seen.append(line[5:].decode().strip())
                    if len(seen) == 1:
                        await session.get(base + "/seen")
        return {"events": seen}
    async def ws(session):
        async with session.ws_connect(base.replace("https:", "wss:") + "/ws") as socket:
            greeting = await socket.receive_str()
            await socket.send_str("ping")
            return {"greeting": greeting, "echo": await socket.receive_str()}
    async def refused(session):
        async with session.delete(base + "/refused") as answer:
            return {"status": answer.status, "text": await answer.text()}
    return {
        "get": within(get),
        "post": within(post),
        "upload": within(upload),
        "download": within(download),
        "sse": within(sse),
        "ws": within(ws),
        "refused": within(refused),
    }


def with_websockets():
    from websockets.sync.client import connect

    def ws():
        with connect(base.replace("https:", "wss:") + "/ws", additional_headers=OWN) as socket:
            greeting = socket.recv()
            socket.send("ping")
            return {"greeting": greeting, "echo": socket.recv()}
    def refused():
        connect(base.replace("https:", "wss:") + "/refused", additional_headers=OWN)
    return {"ws": ws, "refused": refused}


def with_openai():
    import openai

    ai = openai.OpenAI(api_key="placeholder-of-the-agent", base_url=base + "/v1")
    ask = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    def sse():
        import httpx

        seen = []
        for event in ai.chat.completions.create(stream=True, **ask):
            seen.append(event.choices[0].delta.content)
            if len(seen) == 1:
                httpx.get(base + "/seen", headers=OWN)
        return {"events": seen}
    return {
        "post": lambda: json.loads(ai.chat.completions.create(**ask).choices[0].message.content),
        "sse": sse,
        "refused": lambda: ai.models.delete("m"),
    }


def with_anthropic():
    import anthropic

    ai = anthropic.Anthropic(api_key="placeholder-of-the-agent", base_url=base)
    ask = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    def sse():
        import httpx

        seen = []
        for event in ai.messages.create(stream=True, **ask):
            if event.type == "content_block_delta":
                seen.append(event.delta.text)
                if len(seen) == 1:
                    httpx.get(base + "/seen", headers=OWN)
        return {"events": seen}
    return {
        "post": lambda: json.loads(ai.messages.create(**ask).content[0].text),
        "sse": sse,
        "refused": lambda: ai.messages.batches.delete("m"),
    }


def with_langchain():
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_openai import ChatOpenAI

    def chain_at(url):
        model = ChatOpenAI(model="m", api_key="placeholder-of-the-agent", base_url=url)
        return ChatPromptTemplate.from_messages([("user", "{question}")]) | model
    chain = chain_at(base + "/v1")
    def sse():
        import httpx

        seen = []
        for part in chain.stream({"question": "hello"}):
            if part.content:
                seen.append(part.content)
                if len(seen) == 1:
                    httpx.get(base + "/seen", headers=OWN)
        return {"events": seen}
    return {
        "post": lambda: json.loads(chain.invoke({"question": "hello"}).content),
        "sse": sse,
        "refused": lambda: chain_at(base + "/refused/v1").invoke({"question": "hello"}),
    }


def with_boto3():
    import boto3
    from botocore.config import Config

    keys = {"aws_access_key_id": "AKIAPLACEHOLDER00000", "aws_secret_access_key": "placeholder-of-the-agent"}
    def service(name):
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        return boto3.client(name, region_name="eu-west-1", endpoint_url=base, config=config, **keys)
    s3 = service("s3")
    def upload():
        body = b"".join(pieces())
        s3.put_object(Bucket="bucket", Key="upload", Body=body)
        return digest([body])
    def told(ask):
        try:
            return ask()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return {
        "upload": upload,
        "download": lambda: digest(s3.get_object(Bucket="bucket", Key="download")["Body"].iter_chunks(65536)),
        "refused": lambda: "\n".join([
            told(lambda: s3.delete_object(Bucket="bucket", Key="refused")),
            told(lambda: service("sts").get_caller_identity()),
            told(lambda: service("dynamodb").list_tables()),
        ]),
    }


CLIENTS = {
    "requests": with_requests,
    "httpx": with_httpx,
    "urllib": with_urllib,
    "urllib3": with_urllib3,
    "aiohttp": with_aiohttp,
    "aiohttp-trust-env": lambda: with_aiohttp(trust_env=True),
    "websockets": with_websockets,
    "openai": with_openai,
    "anthropic": with_anthropic,
    "langchain": with_langchain,
    "boto3": with_boto3,
}

deeds = CLIENTS[client]()
for case in cases:
    try:
        found = deeds[case]()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"case": case, "found": found}, default=str), flush=True)
