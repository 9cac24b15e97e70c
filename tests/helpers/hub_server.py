"""A hub of models and data sets on loopback, as huggingface_hub asks it: reading, creating, committing, large files.

with HubServer() as hub:                                     # sets nothing: give hub.url as $HF_ENDPOINT
    hub.add("owner/name", {"config.json": b"{}"})            # a commit; returns its 40 digits
    hub.served["owner/name", "config.json"] = b"tampered"    # what is sent instead of the content
    hub.fails = 503                                          # every answer
"""

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = (".safetensors", ".bin", ".parquet")  # kept as "large files": by SHA-256 instead of git's digest


class HubServer:
    def __init__(self):
        self.repos: dict[tuple[str, str], list[tuple[str, dict[str, bytes]]]] = {}  # (kind, repo) -> (commit, files)
        self.served: dict[tuple[str, str], bytes] = {}
        self.large: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.token, self.fails = "", 0
        self.requests: list[str] = []
        self.messages: list[str] = []

    def __enter__(self) -> "HubServer":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, repo: str, files: dict[str, bytes], kind: str = "model") -> str:
        commits = self.repos.setdefault((kind, repo), [])
        files = (commits[-1][1] if commits else {}) | files
        commit = hashlib.sha1(repr((len(commits), repo, sorted(files.items()))).encode()).hexdigest()
        commits.append((commit, files))
        return commit

    def files(self, repo: str, kind: str = "model") -> dict[str, bytes]:
        return self.repos[kind, repo][-1][1]


def entry(name: str, content: bytes) -> dict:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    about = {"size": len(content), "oid": git, "blobId": git}
    if name.endswith(LARGE):
        sha = hashlib.sha256(content).hexdigest()
        about["lfs"] = {"oid": sha, "sha256": sha, "size": len(content), "pointerSize": 130}
    return about


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self) -> None:
        hub, body = self.hub, self.body()
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        hub.requests.append(f"{self.command} {path}")
        if hub.fails:
            return self.answer(hub.fails)
        known = self.headers.get("Authorization") == f"Bearer {hub.token}"
        if self.command == "POST" and path != "/api/validate-yaml" and not known:  # the url of a PUT is signed
            return self.answer(401, {"error": "Invalid credentials"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            there = hub.repos.setdefault((asked.get("type") or "model", repo), [])
            return self.answer(409 if there else 200, {"url": f"{hub.url}/{repo}"})
        if found := re.fullmatch(r"/lfs/(\w+)", path):
            hub.large[found[1]] = body
            return self.answer(200)
        for pattern, method in (
            (r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(tree|revision|preupload|commit)/([^/]+))?", self.api),
            (r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
            (r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.batch),
        ):
            if found := re.fullmatch(pattern, path):
                if found[2] in hub.private and not known:
                    return self.answer(401, X_Error_Code="RepoNotFound")
                return method(body, *found.groups())
        self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def at(self, kind: str, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """(commit, files) of a revision; None after the answer that there is none."""
        commits = self.hub.repos.get((kind, repo))
        if commits is None:
            self.answer(404, X_Error_Code="RepoNotFound")
            return None
        if revision == "main":
            return commits[-1] if commits else ("0" * 40, {})
        found = [it for it in commits if it[0] == revision]
        if not found:
            self.answer(404, X_Error_Code="RevisionNotFound")
        return found[0] if found else None

    def api(self, body: bytes, kinds: str, repo: str, verb: str | None, revision: str | None) -> None:
        kind = kinds.rstrip("s")
        if (found := self.at(kind, repo, revision or "main")) is None:
            return
        commit, files = found
        if verb == "tree":
            self.answer(200, [{"type": "file", "path": name, **entry(name, it)} for name, it in files.items()])
        elif verb == "preupload":
            asked = json.loads(body)["files"]
            modes = {it["path"]: "lfs" if it["path"].endswith(LARGE) else "regular" for it in asked}
            about = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            self.answer(200, {"files": about})
        elif verb == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            self.hub.messages.append(lines[0]["value"]["summary"])
            new = {it["value"]["path"]: base64.b64decode(it["value"]["content"]) for it in lines if it["key"] == "file"}
            new |= {it["value"]["path"]: self.hub.large[it["value"]["oid"]] for it in lines if it["key"] == "lfsFile"}
            commit = self.hub.add(repo, new, kind)
            self.answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})
        else:
            siblings = [{"rfilename": name, **entry(name, it)} for name, it in files.items()]
            self.answer(200, {"id": repo, "sha": commit, "siblings": siblings, "tags": []})

    def resolve(self, body: bytes, prefix: str | None, repo: str, revision: str, name: str) -> None:
        if (found := self.at("dataset" if prefix else "model", repo, revision)) is None:
            return
        commit, files = found
        if name not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        about = entry(name, files[name])
        etag = about["lfs"]["oid"] if "lfs" in about else about["oid"]
        sent = self.hub.served.get((repo, name), files[name])
        self.answer(200, sent, ETag=f'"{etag}"', X_Repo_Commit=commit, X_Linked_Size=str(about["size"]))

    def batch(self, body: bytes, prefix: str | None, repo: str) -> None:
        asked = json.loads(body)["objects"]
        upload = [{**it, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{it['oid']}"}}} for it in asked]
        self.answer(200, {"transfer": "basic", "objects": upload})
