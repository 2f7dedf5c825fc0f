"""A Hub of our own that can be written: the HTTP that huggingface_hub speaks to make a repository and to commit to it.

Repositories have branches and commits; large files go through Git LFS (batch, upload, verify), small ones in the commit
itself. Who writes, or reads what is private, needs `TOKEN`. Xet, the Hub's newer storage, is not spoken: the client
falls back to LFS where HF_HUB_DISABLE_XET says so.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import yaml

__all__ = ["TOKEN", "HubStandIn", "Repository", "stand_in"]

TOKEN = "hf_of_a_writer"  # noqa: S105 — of the stand-in


@dataclass
class Repository:
    """A repository: what each commit holds, and where branches are."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    def commit(self, files, branch="main", **header):
        """Add a commit with these files to a branch, and return its name."""
        name = hashlib.sha1(json.dumps([len(self.commits), sorted(files)]).encode()).hexdigest()  # noqa: S324 — as git
        self.commits[name], self.branches[branch] = dict(files), name
        self.log.append(header)
        return name

    def at(self, revision):
        """Return the commit and the files of a branch or commit; None for neither."""
        commit = self.branches.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None

    @property
    def files(self):
        """Files of the main branch."""
        return self.commits[self.branches["main"]]


@dataclass
class HubStandIn:
    """State of the stand-in, and the requests that it was sent."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files, by SHA-256."""
    sent: list[str] = field(default_factory=list)
    """Names of the files in commits, and SHA-256 of the large files that were uploaded."""
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""
    before_commit: Any = None
    """Called before a commit is made: what somebody else does meanwhile."""
    left_out: frozenset[str] = frozenset()
    """Files that a commit loses, as by a `.gitignore`."""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Answers to paths with these endings, in place of what they ask for."""


def is_large(name, size):
    return name.endswith((".onnx", "_data")) or size > 10 << 20


def git_name(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 — as git


def problems_of(card):
    """Return what the Hub would say of a card's metadata: which of the specification's fields are missing or wrong."""
    try:
        metadata = yaml.safe_load(card.partition("---\n")[2].partition("\n---")[0])
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    wanted = [(key, metadata.get(key, "")) for key in ("license", "library_name", "pipeline_tag")]
    for model in metadata.get("model-index", []):
        wanted.append(("model-index[].name", model.get("name")))
        for result in model["results"]:
            for key, field_ in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
                wanted.append((f"model-index[].results[].{key}.{field_}", result.get(key, {}).get(field_)))
            for metric in result.get("metrics") or [{}]:
                number = isinstance(metric.get("value"), int | float)
                wanted.append(("model-index[].results[].metrics[]", number and metric.get("type")))
    found = [f'"{key}" must be a string' for key, value in wanted if not isinstance(value, str)]
    if metadata.get("base_model_relation", "quantized") not in {"adapter", "merge", "quantized", "finetune"}:
        found.append('"base_model_relation" must be one of adapter, merge, quantized, finetune')
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    hub: HubStandIn

    def do_GET(self):
        self.hub.asked.append(f"{self.command} {self.path}")
        parts = [unquote(part) for part in self.path.split("?")[0].strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.allowed()):
            return self.error(401, "RepoNotFound", "Repository not found")
        revision = parts[5] if api and len(parts) > 5 else "main" if api else parts[3]
        found = repository.at(revision)
        if found is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit, files = found
        if api and parts[4:5] == ["tree"]:
            return self.json([self.listed(path, content) for path, content in files.items()])
        if api:
            siblings = [{"rfilename": path} for path in files]
            return self.json({"id": name, "sha": commit, "private": repository.private, "siblings": siblings})
        path = "/".join(parts[4:])
        if path not in files:
            return self.error(404, "EntryNotFound", f"Entry not found: {path}", {"X-Repo-Commit": commit})
        content = files[path]
        etag = hashlib.sha256(content).hexdigest() if is_large(path, len(content)) else git_name(content)
        return self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    do_HEAD = do_GET  # noqa: N815 — the name that http.server calls

    def do_POST(self):
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for part, (status, said) in self.hub.refused.items():
            if part in self.path:
                return self.error(status, "", said)
        if self.path == "/api/validate-yaml":
            return self.validate(json.loads(body))
        if self.path.startswith("/lfs/"):
            return self.store(body) if self.command == "PUT" else self.json({})
        if not self.allowed():
            return self.error(401, "", "Invalid username or password.")
        return self.change(body)

    do_PUT = do_POST  # noqa: N815 — as above

    def change(self, body):
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        parts = [unquote(part) for part in self.path.split("?")[0].strip("/").split("/")]
        if parts[-2:] == ["objects", "batch"]:
            return self.batch(json.loads(body))
        name, what, branch = "/".join(parts[2:4]), parts[4], parts[5]
        repository = self.hub.repositories[name]
        if what == "branch":
            repository.branches[branch] = repository.branches["main"]
            return self.json({})
        if branch not in repository.branches:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        if what == "preupload":
            return self.json({"files": [self.mode(repository, branch, each) for each in json.loads(body)["files"]]})
        return self.commit(repository, branch, [json.loads(line) for line in body.splitlines()], name)

    def validate(self, asked):
        errors = [{"message": each} for each in problems_of(asked["content"])]
        self.json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def create(self, asked):
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.hub.repositories:
            return self.error(409, "", "You already created this model repo")
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[name] = repository = Repository(private=private)
        repository.commit({".gitattributes": b"*.onnx filter=lfs\n"}, summary="initial commit")
        return self.json({"url": f"{self.hub.endpoint}/{name}"})

    def mode(self, repository, branch, asked):
        there = repository.at(branch)[1].get(asked["path"])
        large = is_large(asked["path"], asked["size"])
        oid = None if there is None else hashlib.sha256(there).hexdigest() if large else git_name(there)
        return {
            "path": asked["path"],
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
            "oid": oid,
        }

    def batch(self, asked):
        objects = []
        for each in asked["objects"]:
            links = {
                "upload": {"href": f"{self.hub.endpoint}/lfs/{each['oid']}"},
                "verify": {"href": f"{self.hub.endpoint}/lfs/verify"},
            }
            objects.append({**each, **({} if each["oid"] in self.hub.stored else {"actions": links})})
        self.json({"transfer": "basic", "objects": objects})

    def store(self, content):
        name = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != name:
            return self.error(400, "", "the content has another SHA-256")
        self.hub.stored[name] = content
        self.hub.sent.append(name)
        return self.json({})

    def commit(self, repository, branch, lines, name):
        if self.hub.before_commit:
            self.hub.before_commit(repository)
        header = lines[0]["value"]
        if header.get("parentCommit") not in {None, repository.branches[branch]}:
            return self.error(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(repository.at(branch)[1])
        for line in lines[1:]:
            value, path = line["value"], line["value"]["path"]
            if line["key"] == "deletedFile":
                del files[path]
                continue
            if path in self.hub.left_out:
                continue
            files[path] = base64.b64decode(value["content"]) if line["key"] == "file" else self.hub.stored[value["oid"]]
            self.hub.sent.append(path)
        commit = repository.commit(files, branch, **header)
        return self.json({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit}", "commitOid": commit})

    def listed(self, path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_name(content)}
        if is_large(path, len(content)):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def allowed(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def error(self, status, code, said, headers=None):
        known = {"X-Error-Message": said, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.answer(status, json.dumps({"error": said}).encode(), {"Content-Type": "application/json", **known})

    def json(self, value, status=200):
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status, content, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def stand_in():
    """Return a Hub that listens on this machine, and is empty."""
    hub = HubStandIn()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
