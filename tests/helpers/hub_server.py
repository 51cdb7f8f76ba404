"""As much of the Hugging Face Hub as uploads and downloads of models ask for, on this machine.

Large files go over the Hub's older protocol (git LFS), not over Xet, whose servers are not imitated here.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants

from tests.helpers.web import listening

_LARGE = (".safetensors", ".onnx", ".pt2", ".bin")


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[dict[str, bytes]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        self.files = {**self.files, **files}
        self.commits.append(self.files)
        return self.sha(len(self.commits))

    def sha(self, number: int) -> str:
        return hashlib.sha1(f"commit {number}".encode()).hexdigest()

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        known = {self.sha(number): files for number, files in enumerate(self.commits, 1)}
        revision = self.sha(len(self.commits)) if revision == "main" else revision
        return (revision, known[revision]) if revision in known else None


@dataclass
class Hub:
    """What is there, who may write, and what was asked for."""

    address: str = ""
    token: str = "hf_right"
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refusal: tuple[int, str] | None = None  # of everything
    full: bool = False  # no large file is taken

    def add(self, name: str, files: dict[str, bytes], **settings: bool) -> Repository:
        repository = self.repositories[name] = Repository(**settings)
        repository.commit(files)
        return repository


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_GET

    def handle_request(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.refusal:
            status, said = self.hub.refusal
            return self.answer({"error": said}, status, {"X-Error-Message": said})
        writes = self.command in ("POST", "PUT") and not path.startswith("/large/")
        if writes and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            said = "Invalid credentials in Authorization header"
            return self.answer({"error": said}, 401, {"X-Error-Message": said})
        for pattern, method in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return getattr(self, method)(*found.groups())
        return self.answer({"error": f"what is {path}?"}, 404)

    def answer(self, content, status: int = 200, headers: dict[str, str] | None = None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def found(self, name: str, revision: str, *, files: bool = False):
        """The repository at a revision; answers itself where there is none, or its files are not for anybody."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.answer({"error": "Repository not found"}, 401, {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and files:
            self.answer({"error": "Ask for access"}, 403, {"X-Error-Code": "GatedRepo"})
        elif (there := repository.at(revision)) is None:
            self.answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return there
        return None

    # -- reading

    def info(self, name: str, revision: str | None):
        if there := self.found(name, revision or "main"):
            sha, files = there
            siblings = [
                {"rfilename": path, "size": len(data), "blobId": git_hash(data), **self.lfs(path, data)}
                for path, data in files.items()
            ]
            private = self.hub.repositories[name].private
            self.answer({"id": name, "sha": sha, "private": private, "siblings": siblings})

    def tree(self, name: str, revision: str):
        if there := self.found(name, revision):
            self.answer([self.entry(path, data) for path, data in there[1].items()])

    def entry(self, path: str, data: bytes):
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
        return {**entry, **self.lfs(path, data)}

    def lfs(self, path: str, data: bytes):
        """Of a large file: what git LFS knows of it."""
        if not path.endswith(_LARGE):
            return {}
        digest = hashlib.sha256(data).hexdigest()
        return {"lfs": {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 134}}

    def file(self, name: str, revision: str, path: str):
        if not (there := self.found(name, revision, files=True)):
            return
        sha, files = there
        if path not in files:
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(files[path]).hexdigest() if path.endswith(_LARGE) else git_hash(files[path])
        self.answer(files[path], headers={"X-Repo-Commit": sha, "ETag": f'"{etag}"'})

    # -- writing

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.hub.address}/{name}"
        if name in self.hub.repositories:
            self.answer({"error": "You already created this model repo", "url": url}, 409)
            return
        self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        self.hub.repositories[name].commit({".gitattributes": b""})
        self.answer({"url": url})

    def validate(self):
        text = json.loads(self.body)["content"]
        assert text.startswith("---\n")
        self.answer({"errors": [], "warnings": []})

    def preupload(self, name: str):
        files = json.loads(self.body)["files"]
        modes = {True: "lfs", False: "regular"}
        self.answer(
            {
                "files": [
                    {
                        "path": f["path"],
                        "uploadMode": modes[f["path"].endswith(_LARGE)],
                        "shouldIgnore": False,
                    }
                    for f in files
                ]
            }
        )

    def batch(self, name: str):
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.address}/large/{each['oid']}"}}}
            for each in json.loads(self.body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def put(self, oid: str):
        if self.hub.full:
            self.answer({"error": "Your storage is full"}, 403, {"X-Error-Message": "Your storage is full"})
            return
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.large[oid] = self.body
        self.answer({})

    def commit(self, name: str):
        files = {}
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        sha = self.hub.repositories[name].commit(files)
        url = f"{self.hub.address}/{name}/commit/{sha}"
        self.answer({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


_ROUTES = [
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (r"POST /api/models/([^/]+/[^/]+)/preupload/main", "preupload"),
    (r"POST /api/models/([^/]+/[^/]+)/commit/main", "commit"),
    (r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /large/(\w+)", "put"),
    (r"GET /api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
    (r"GET /api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
    (r"(?:GET|HEAD) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "file"),
]


def point_client_at(hub: Hub, monkeypatch, folder: Path) -> None:
    """The Hub's client as it is where HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_DISABLE_XET were set."""
    for name in ("CCL_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", hub.token)


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving_hub() -> Iterator[Hub]:
    hub = Hub()
    with listening(_Handler, hub=hub) as hub.address:
        yield hub
