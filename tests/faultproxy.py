"""A proxy before an emulator of object storage that makes what real networks do: see `Faults`.

It runs as a process of its own: `python faultproxy.py PORT UPSTREAM`. It also keeps Google's
preconditions on generations, which fake-gcs-server 1.54 forgets on media and resumable uploads.
"""

import asyncio
import json
import os
import random
import re
import signal
import sys
from urllib.parse import quote, unquote

from aiohttp import ClientSession, TCPConnector, web

HOP = {"transfer-encoding", "connection", "keep-alive", "content-length", "content-encoding"}
GOOGLE = ("/storage/v1/", "/upload/", "/download/", "/batch/")
NEEDED = {
    "gs": {"GET": "storage.objects.get", "DELETE": "storage.objects.delete"},
    "s3": {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "DELETE": "s3:DeleteObject"},
}
"""The permission that a request needs, by its method; others write."""


class Faults:
    """How likely each fault is for a request whose method and path `match`, and what was seen.

    p401: answers that the login has expired; p403: that a right is missing; p404: that there is no
    such bucket; p503: that the storage is busy. preset: the connection is cut before the request is
    passed on; pdrop: after it; pcut: in the middle of the answer. block: such requests are answered
    503 always.
    kill: a process that is killed at its request number `at`, before or after it is passed on.
    """

    def __init__(self):
        self.latency_ms = self.p503 = self.preset = self.pdrop = self.pcut = 0.0
        self.p401 = self.p403 = self.p404 = 0.0
        self.kill = self.at = 0.0
        self.match = self.block = ""
        self.rng = random.Random(0)
        self.seen = {}

    def set(self, query):
        for name, value in query.items():
            if name == "seed":
                self.rng = random.Random(int(value))
            elif name == "clear":
                self.seen.clear()
            else:
                setattr(self, name, value if name in ("match", "block") else float(value))

    def kill_now(self):
        if self.kill:
            os.kill(int(self.kill), signal.SIGKILL)
        self.kill = 0.0

    def count(self, name, by=1):
        self.seen[name] = self.seen.get(name, 0) + by

    def strikes(self, name, request):
        place = f"{request.method} {unquote(request.raw_path)}"
        if self.match and not re.search(self.match, place):
            return False
        probability = getattr(self, name)
        hit = probability > 0 and self.rng.random() < probability
        self.count(name, int(hit))
        return hit


faults, sessions, locks, finished = Faults(), {}, {}, {}


async def control(request):
    faults.set(request.query)
    return web.json_response(faults.seen)


def hang_up(request):
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


def refused(request, status, message, code="ServiceUnavailable"):
    """The storage's own answer: Google's in JSON, Amazon's in XML with a `code`."""
    if request.path.startswith(GOOGLE):
        text = json.dumps({"error": {"code": status, "message": message}})
        return web.Response(status=status, text=text, content_type="application/json")
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def expired(request, body):
    if request.path.startswith(GOOGLE):
        return refused(request, 401, "Invalid Credentials")
    return refused(request, 400, "The provided token has expired.", "ExpiredToken")


def denied(request, body):
    google = request.path.startswith(GOOGLE)
    other = ("storage.objects.create", "s3:PutObject")[not google]
    needed = NEEDED["gs" if google else "s3"].get(request.method, other)
    if google and re.fullmatch("/storage/v1/b/[^/]+", request.path):
        needed = "storage.buckets.get"
    elif google and re.fullmatch("/storage/v1/b/[^/]+/o", request.path):
        needed = "storage.objects.list"
    elif "list-type" in request.query:
        needed = "s3:ListBucket"
    elif not google and "delete" in request.query:  # many at once: each is answered
        key = re.search(b"<Key>.*?</Key>", body)[0].decode()
        text = f"<Error>{key}<Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        return web.Response(
            text=f"<DeleteResult>{text}</DeleteResult>", content_type="application/xml"
        )
    if google:
        return refused(request, 403, f"me@example.com does not have {needed} access to the bucket.")
    return refused(request, 403, f"me is not authorized to perform: {needed}", "AccessDenied")


def no_bucket(request, body):
    return refused(request, 404, "The specified bucket does not exist", "NoSuchBucket")


def busy(request, body):
    return refused(request, 503, "Service Unavailable")


ANSWERS = {"p401": expired, "p403": denied, "p404": no_bucket, "p503": busy}


async def generation(app, bucket, name):
    url = f"{app['base']}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
    async with app["up"].get(url) as answer:
        return int((await answer.json()).get("generation", 0)) if answer.status == 200 else 0


def upload(request, body):
    """(bucket, name, generation wanted, whether it ends the upload) of an upload; None of others.

    Of a resumable one the beginning says what its parts do not.
    """
    query = request.query
    found = re.match(r"/upload/(?:resumable/|storage/v1/b/([^/]+)/o)", request.path)
    if not found:
        return None
    bucket, name, wanted = found[1], query.get("name"), query.get("ifGenerationMatch")
    resumable = query.get("uploadType") == "resumable"
    if resumable and request.method == "POST" and name is None:
        named = re.search(rb'"name"\s*:\s*"([^"]+)"', body)
        name = named and named[1].decode()
    if request.method == "PUT" and query.get("upload_id") in sessions:
        bucket, name, wanted = sessions[query["upload_id"]]
    more = request.headers.get("Content-Range", "bytes 0-0/0").endswith("/*")
    ends = not more if request.method == "PUT" else not resumable
    return bucket, name, wanted, ends


async def passed_on(app, request, body):
    names = ("content-length", "transfer-encoding", "accept-encoding")
    headers = {k: v for k, v in request.headers.items() if k.lower() not in names}
    async with app["up"].request(
        request.method, app["base"] + request.raw_path, headers=headers, data=body,
        allow_redirects=False,
    ) as answer:  # fmt: skip
        data = await answer.read()
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
        if request.method == "HEAD":
            kept["Content-Length"] = answer.headers.get("Content-Length", "0")
        return answer.status, kept, data


async def handle(request):
    app = request.app
    faults.count(request.method)
    if faults.latency_ms:
        await asyncio.sleep(faults.latency_ms / 1e3)
    body = await request.read()
    faults.at -= 1
    late = faults.at == 0 and faults.rng.random() < 0.5
    if faults.at == 0 and not late:
        faults.kill_now()
        hang_up(request)
    if faults.block and re.search(
        faults.block, unquote(request.raw_path) + body[:300].decode("latin1")
    ):
        faults.count("blocked")
        return busy(request, body)
    if faults.strikes("preset", request):
        hang_up(request)
    for name, answer in ANSWERS.items():
        if faults.strikes(name, request):
            return answer(request, body)
    status, headers, data = await _kept_in_order(app, request, body)
    if late:
        faults.kill_now()
        hang_up(request)
    if faults.strikes("pdrop", request):
        hang_up(request)
    if request.method == "GET":
        faults.count("bytes", len(data))
    if len(data) > 1000 and faults.strikes("pcut", request):
        answer = web.StreamResponse(status=status, headers=headers)
        answer.content_length = len(data)
        await answer.prepare(request)
        await answer.write(data[: len(data) // 2])
        hang_up(request)
    return web.Response(status=status, headers=headers, body=data)


async def _kept_in_order(app, request, body):
    """The emulator's answer, with preconditions and repeated last parts as the real one has."""
    parts, upload_id = upload(request, body), request.query.get("upload_id")
    if upload_id in finished:
        return 200, {"Content-Type": "application/json"}, finished[upload_id]
    if parts is None:
        return await passed_on(app, request, body)
    bucket, name, wanted, ends = parts
    if wanted is not None and ends and name:
        async with locks.setdefault((bucket, name), asyncio.Lock()):
            if await generation(app, bucket, name) != int(wanted):
                text = json.dumps({"error": {"code": 412, "message": "conditionNotMet"}})
                return 412, {"Content-Type": "application/json"}, text.encode()
            found = await passed_on(app, request, body)
    else:
        found = await passed_on(app, request, body)
    status, headers, data = found
    if upload_id and status == 200 and data.startswith(b'{"kind'):
        finished[upload_id] = data
    if request.method == "POST" and "Location" in headers and wanted is not None:
        begun = re.search(r"upload_id=([^&]+)", headers["Location"])
        sessions[unquote(begun[1])] = (bucket, name, wanted)
    return found


async def main(port, base):
    app = web.Application(client_max_size=2**32)
    app["base"] = base
    app["up"] = ClientSession(connector=TCPConnector(limit=200), auto_decompress=False)
    app.router.add_get("/__fault", control)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
