"""boto3 as a user has it, with nothing but the environment it finds: every way in which it signs. A line of JSON per step: what came of it."""
import io, json, ssl, os, sys, urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

endpoint, region = sys.argv[1:]
KEY = "a b/ü+(x)*&=~'!.txt"
BODY = bytes(range(256)) * 512
LARGE = BODY * 48


def client(signing=region, payload_signing_enabled=None, addressing_style="path", **config):
    s3 = {"addressing_style": addressing_style, "payload_signing_enabled": payload_signing_enabled}
    config = Config(retries={"max_attempts": 1}, s3={k: v for k, v in s3.items() if v is not None}, **config)
    return boto3.client("s3", region_name=signing, endpoint_url=endpoint, config=config)


path = client()
virtual = client(addressing_style="virtual")
parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=2)
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({"https": os.environ["HTTPS_PROXY"]}),
    urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])),
)


def put(s3, key, **more):
    s3.put_object(Bucket="reports", Key=key, Body=BODY, **more)
    return s3.get_object(Bucket="reports", Key=key)["Body"].read() == BODY


def download():
    into = io.BytesIO()
    path.download_fileobj("reports", "large", into, Config=parts)
    return into.getvalue() == LARGE


def upload():
    path.upload_fileobj(io.BytesIO(LARGE), "reports", "large", Config=parts)
    return True


def presigned(version, operation, method="GET", data=None, **params):
    url = client(signature_version=version).generate_presigned_url(operation, Params={"Bucket": "reports", "Key": "presigned", **params})
    return opener.open(urllib.request.Request(url, data=data, method=method)).read().decode()


class Unseekable(io.RawIOBase):
    """A pipe: botocore cannot hash it first."""

    def __init__(self):
        self.rest = io.BytesIO(BODY)

    def read(self, size=-1):
        return self.rest.read(size)


steps = {
    "trailer": lambda: put(path, KEY, Metadata={"note": "two  spaces"}),
    "metadata": lambda: path.head_object(Bucket="reports", Key=KEY)["Metadata"]["note"],
    "hash": lambda: put(client(payload_signing_enabled=True, request_checksum_calculation="when_required"), "hash"),
    "unsigned": lambda: put(client(payload_signing_enabled=False, request_checksum_calculation="when_required"), "unsigned"),
    "sha256": lambda: put(path, "sha256", ChecksumAlgorithm="SHA256"),
    "pipe": lambda: path.put_object(Bucket="reports", Key="pipe", Body=Unseekable(), ContentLength=len(BODY))["ETag"] != "",
    "virtual": lambda: put(virtual, KEY + "/v"),
    "range": lambda: list(path.get_object(Bucket="reports", Key=KEY, Range="bytes=5-9")["Body"].read()),
    "list": lambda: [o["Key"] for o in virtual.list_objects_v2(Bucket="reports", Prefix="a b/ü+")["Contents"]],
    "upload in parts": upload,
    "download in parts": download,
    "presigned put": lambda: presigned("s3v4", "put_object", "PUT", b"by URL"),
    "presigned get": lambda: presigned("s3v4", "get_object", ResponseContentType="text/x; a=b+c"),
    "presigned in version 2": lambda: presigned("s3", "get_object"),
    "another region": lambda: put(client("us-east-1"), "elsewhere"),
    "not granted": lambda: path.delete_object(Bucket="reports", Key=KEY),
    "absent": lambda: path.get_object(Bucket="reports", Key="absent"),
}
for name, step in steps.items():
    try:
        said = step()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps([name, said]), flush=True)
