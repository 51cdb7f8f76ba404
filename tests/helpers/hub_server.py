"""As much of the Hugging Face Hub as uploads and downloads of models ask for, on this machine.

All files are uploaded with the commit itself; the Hub's protocols for large files are not imitated.
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
    asked: list[str] = field(default_factory=list)
    refusal: tuple[int, str] | None = None  # of everything

    def add(self, name: str, files: dict[str, bytes], **settings: bool) -> Repository:
        repository = self.repositories[name] = Repository(**settings)
        repository.commit(files)
        return repository


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.refusal:
            return self.refuse(*self.hub.refusal)
        if self.command == "POST" and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            return self.refuse(401, "Invalid credentials in Authorization header")
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return method(self, *match.groups())
        return self.refuse(404, f"what is {path}?")

    do_HEAD = do_POST = do_GET

    def answer(self, content, status: int = 200, **headers: str):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, message: str, code: str = ""):
        self.answer({"error": message}, status, X_Error_Message=message, X_Error_Code=code)

    def found(self, name: str, revision: str, *, files: bool = False):
        """The repository at a revision; answers itself where there is none, or its files are not for anybody."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.refuse(401, "Repository not found", "RepoNotFound")
        elif repository.gated and files:
            self.refuse(403, "Ask for access", "GatedRepo")
        elif (there := repository.at(revision)) is None:
            self.refuse(404, "Invalid rev id", "RevisionNotFound")
        else:
            return there
        return None

    def info(self, name: str, revision: str | None):
        if there := self.found(name, revision or "main"):
            sha, files = there
            siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
            private = self.hub.repositories[name].private
            self.answer({"id": name, "sha": sha, "private": private, "siblings": siblings})

    def tree(self, name: str, revision: str):
        if there := self.found(name, revision):
            files = there[1].items()
            self.answer([{"type": "file", "path": path, "size": len(x), "oid": "0"} for path, x in files])

    def file(self, name: str, revision: str, path: str):
        if there := self.found(name, revision, files=True):
            sha, files = there
            if path in files:
                etag = hashlib.sha1(files[path]).hexdigest()
                self.answer(files[path], X_Repo_Commit=sha, ETag=f'"{etag}"')
            else:
                self.refuse(404, "Entry not found", "EntryNotFound")

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.hub.address}/{name}"
        if name in self.hub.repositories:
            self.answer({"error": "You already created this model repo", "url": url}, 409)
            return
        self.hub.add(name, {".gitattributes": b""}, private=asked.get("visibility") == "private")
        self.answer({"url": url})

    def validate(self):
        assert json.loads(self.body)["content"].startswith("---\n")
        self.answer({"errors": [], "warnings": []})

    def preupload(self, name: str):
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
        self.answer({"files": modes})

    def commit(self, name: str):
        lines = map(json.loads, self.body.splitlines())
        added = [line["value"] for line in lines if line["key"] == "file"]
        files = {each["path"]: base64.b64decode(each["content"]) for each in added}
        sha = self.hub.repositories[name].commit(files)
        url = f"{self.hub.address}/{name}/commit/{sha}"
        self.answer({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


_ROUTES = [
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (r"POST /api/models/([^/]+/[^/]+)/preupload/main", _Handler.preupload),
    (r"POST /api/models/([^/]+/[^/]+)/commit/main", _Handler.commit),
    (r"GET /api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", _Handler.info),
    (r"GET /api/models/([^/]+/[^/]+)/tree/([^/]+)", _Handler.tree),
    (r"(?:GET|HEAD) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.file),
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


@contextmanager
def serving_hub() -> Iterator[Hub]:
    hub = Hub()
    with listening(_Handler, hub=hub) as hub.address:
        yield hub
