"""A stand-in for the Hub's API on this machine: as much as downloading and pushing a model asks."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Hub:
    """Models by name, their files by name; `private` and `gated` ones need the token `right`."""

    def __init__(self):
        self.models, self.private, self.gated, self.asked = {}, set(), set(), []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def sha(self, name):
        content = repr(sorted(self.models[name].items())).encode()
        return hashlib.sha1(content).hexdigest()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, body=b"", **headers):
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
                headers["Content-Type"] = "application/json"
            self.send_response(status)
            headers.setdefault("Content-Length", len(body))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refused(self, name):
            """Answers for a model that is not there or not for this token; whether it did."""
            allowed = self.headers.get("authorization") == "Bearer right"
            if name not in hub.models or (name in hub.private and not allowed):
                self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound",
                            X_Error_Message="Repository not found")  # fmt: skip
                return True
            if name in hub.gated and not allowed:
                self.answer(403, {"error": "gated"}, X_Error_Code="GatedRepo",
                            X_Error_Message="Access to model is restricted")  # fmt: skip
                return True
            return False

        def do_GET(self):
            path = unquote(self.path.partition("?")[0]).strip("/").split("/")
            hub.asked.append((self.command, "/".join(path)))
            if path[:2] == ["api", "models"]:
                name = "/".join(path[2:4])
                if self.refused(name):
                    return
                if path[4:5] == ["revision"] and path[5] not in ("main", hub.sha(name)):
                    self.answer(404, {}, X_Error_Code="RevisionNotFound",
                                X_Error_Message="Revision not found")  # fmt: skip
                    return
                files = [{"rfilename": file} for file in hub.models[name]]
                if path[4:5] == ["tree"]:
                    self.answer(200, [
                        {"type": "file", "path": file, "size": len(data), "oid": "0"}
                        for file, data in hub.models[name].items()
                    ])  # fmt: skip
                    return
                self.answer(200, {"id": name, "sha": hub.sha(name), "siblings": files,
                                  "private": name in hub.private})  # fmt: skip
            elif path[2:3] == ["resolve"]:
                name, file = "/".join(path[:2]), "/".join(path[4:])
                if self.refused(name):
                    return
                data = hub.models[name].get(file)
                if data is None:
                    self.answer(404, b"", X_Error_Code="EntryNotFound")
                    return
                self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"',
                            X_Repo_Commit=hub.sha(name))  # fmt: skip
            else:
                self.answer(404)

        do_HEAD = do_GET

        def do_POST(self):
            path = unquote(self.path.partition("?")[0]).strip("/").split("/")
            hub.asked.append((self.command, "/".join(path)))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("authorization") != "Bearer right":
                self.answer(401, {"error": "Invalid username or password."})
            elif path == ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.models.setdefault(name, {})
                if asked.get("private") or asked.get("visibility") == "private":
                    hub.private.add(name)
                self.answer(200, {"url": f"{hub.url}/{name}", "name": name})
            elif path[4:5] == ["preupload"]:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                self.answer(200, {"files": files})
            elif path[4:5] == ["commit"]:
                name = "/".join(path[2:4])
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        data = base64.b64decode(entry["value"]["content"])
                        hub.models[name][entry["value"]["path"]] = data
                self.answer(200, {"commitUrl": f"{hub.url}/{name}/commit/1", "commitOid": "1" * 40,
                                  "success": True})  # fmt: skip
            else:
                self.answer(200, {})

    return Handler
