"""A real HTTP server on this machine that misbehaves in the ways that servers do."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Served:
    """A file and how it is served; each of `faults` spoils one request, then all is well."""

    def __init__(self, body, *, etag='"v1"', last_modified=None, ranges=True, faults=()):
        self.body, self.etag, self.last_modified, self.ranges = body, etag, last_modified, ranges
        self.faults = list(faults)


class Server:
    """`files` by path; `seen` are the requests as (method, path, headers)."""

    def __init__(self, *, bytes_per_s=None):
        self.files, self.seen, self.bytes_per_s = {}, [], bytes_per_s
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer()

            def do_GET(self):
                self.answer()

            def answer(self):
                self.close_connection = True
                outer.seen.append((self.command, self.path, dict(self.headers)))
                with contextlib.suppress(ConnectionError):
                    file = outer.files.get(self.path)
                    if file is None:
                        send(self, 404, b"not found")
                    elif file.faults and self.command == "GET":
                        file.faults.pop(0)(self, file)
                    else:
                        serve(self, file, rate=outer.bytes_per_s)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path, host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"

    def add(self, path, body, **how):
        self.files[path] = Served(body, **how)
        return self.url(path)

    def gets(self, path):
        return [headers for method, seen, headers in self.seen if (method, seen) == ("GET", path)]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def send(handler, status, body=b"", headers=(), *, length=None):
    handler.send_response(status)
    sent = {"Content-Length": str(len(body) if length is None else length), "Connection": "close"}
    for name, value in {**sent, **dict(headers)}.items():
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def marks(file):
    found = {"ETag": file.etag, "Last-Modified": file.last_modified, "Accept-Ranges": "bytes"}
    return {name: value for name, value in found.items() if value is not None}


def asked_range(handler, file):
    """The first byte of an honoured range, or None."""
    asked, unless = handler.headers.get("Range"), handler.headers.get("If-Range")
    changed = unless is not None and unless not in (file.etag, file.last_modified)
    if not file.ranges or asked is None or changed:
        return None
    return int(asked.removeprefix("bytes=").rstrip("-"))


def serve(handler, file, *, cut_at=None, longer=0, headers=(), rate=None):
    """The file as it should be, or cut after some bytes, or with a false length."""
    start, size = asked_range(handler, file), len(file.body)
    if start is not None and start >= size:
        send(handler, 416, b"", {**marks(file), "Content-Range": f"bytes */{size}"})
        return
    extra = dict(marks(file), **dict(headers))
    if start is not None:
        extra.setdefault("Content-Range", f"bytes {start}-{size - 1}/{size}")
    body = file.body[start or 0 :]
    send(handler, 200 if start is None else 206, b"", extra, length=len(body) + longer)
    if handler.command == "HEAD":
        return
    body = body if cut_at is None else body[:cut_at]
    step = len(body) if rate is None else max(1, rate // 50)
    for at in range(0, len(body), max(1, step)):
        handler.wfile.write(body[at : at + step])
        if rate is not None:
            time.sleep(0.02)


def cut(at):
    return lambda handler, file: serve(handler, file, cut_at=at)


def lie(longer):
    return lambda handler, file: serve(handler, file, longer=longer)


def status(code, headers=(), body=b""):
    return lambda handler, file: send(handler, code, body, headers)


def redirect(url, code=302):
    return status(code, {"Location": url})


def page(text="<!DOCTYPE html><html><title>Please log in</title></html>"):
    return status(200, {"Content-Type": "text/html"}, text.encode())


def with_headers(**headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, file: serve(handler, file, headers=named)


def drip(pause_s=0.05):
    def fault(handler, file):
        send(handler, 200, b"", marks(file), length=len(file.body))
        for byte in file.body:
            handler.wfile.write(bytes([byte]))
            time.sleep(pause_s)

    return fault


def stall(seconds, *, after=0):
    def fault(handler, file):
        serve(handler, file, cut_at=after)
        handler.wfile.flush()
        time.sleep(seconds)

    return fault


def chunked(cut_at=None):
    def fault(handler, file):
        send(handler, 200, b"", {**marks(file), "Transfer-Encoding": "chunked",
                                 "Content-Length": None})  # fmt: skip
        body = file.body if cut_at is None else file.body[:cut_at]
        for at in range(0, len(body), 1000):
            block = body[at : at + 1000]
            handler.wfile.write(b"%x\r\n" % len(block) + block + b"\r\n")
        if cut_at is None:
            handler.wfile.write(b"0\r\n\r\n")

    return fault


def hang_up(handler, file):
    pass
