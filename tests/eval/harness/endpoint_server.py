"""A real OpenAI-compatible server on this machine that misbehaves as it is told."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """`faults` by a word of the prompt; each spoils one request for it, then all is well.

    `seen` are the requests as (prompt, path, headers, body); `busiest` the most at one time.
    """

    def __init__(self, *, slow_s=0.0):
        self.faults, self.seen, self.slow_s = {}, [], slow_s
        self.busy = self.busiest = 0
        self.good = good
        """What answers where nothing is spoiled."""
        self.meet = None
        """Where that many requests wait for each other."""
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with contextlib.suppress(ConnectionError):
                    outer.answer(self, body)

        class Quiet(ThreadingHTTPServer):
            daemon_threads, block_on_close, request_queue_size = True, False, 64

            def handle_error(self, *_):
                pass  # a client that hung up

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler, body):
        chat = handler.path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        with self._lock:
            self.seen.append((prompt, handler.path, dict(handler.headers), body))
            found = next((f for word, f in self.faults.items() if word in prompt and f), None)
            fault = found.pop(0) if found else None
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        try:
            if self.meet is not None:
                self.meet.wait(120)
            time.sleep(self.slow_s)
            (fault or self.good)(handler, prompt, chat)
        finally:
            with self._lock:
                self.busy -= 1

    def asked(self, word):
        """How often prompts with this word were asked."""
        return sum(word in prompt for prompt, *_ in self.seen)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def send(handler, status, body, headers=(), *, length=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.close_connection = True
    handler.send_response(status)
    sent = {"Content-Length": len(body) if length is None else length, "Connection": "close"}
    for name, value in {**sent, **dict(headers)}.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def reply(text, chat, *, reason="stop", usage=None):
    words = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    usage = usage or {"prompt_tokens": 5, "completion_tokens": 2}
    return {"choices": [{**words, "finish_reason": reason}], "usage": usage}


def good(handler, prompt, chat):
    send(handler, 200, reply(f"about {prompt}", chat))


def status(code, headers=(), body=None):
    words = {"error": {"message": "try later"}} if body is None else body
    return lambda handler, prompt, chat: send(handler, code, words, headers)


def body(content):
    return lambda handler, prompt, chat: send(handler, 200, content)


def half(handler, prompt, chat):
    whole = json.dumps(reply(f"about {prompt}", chat)).encode()
    send(handler, 200, whole[:20], length=len(whole))


def refuse(handler, prompt, chat):
    words = reply(None, chat, reason="content_filter")
    if chat:
        words["choices"][0]["message"]["refusal"] = "I must not"
    send(handler, 200, words)


def hang_up(handler, prompt, chat):
    handler.close_connection = True


def stall(seconds):
    return lambda handler, prompt, chat: time.sleep(seconds)


def repeat_key(code):
    """A reply that repeats the key it was given."""

    def fault(handler, prompt, chat):
        given = handler.headers["Authorization"]
        send(handler, code, {"error": {"message": f"wrong key: {given}"}})

    return fault


def strange(**fields):
    """A whole reply of which the choice, or the usage, has other fields."""

    def fault(handler, prompt, chat):
        words = reply(f"about {prompt}", chat)
        words["usage"] |= fields.pop("usage", {})
        words["choices"][0] |= fields
        send(handler, 200, words)

    return fault
