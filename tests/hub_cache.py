"""A Hub of our own, and the layout in which huggingface_hub keeps what it fetches: files that are links to blobs."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COMMIT", "in_hub_cache", "serving"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_hub_cache(bundle: Path, cache: Path, *, name: str = "acme/tiny", links: bool = True, below: str = "") -> Path:
    """Return a bundle as `snapshot_download` leaves it, below `below`; copies on systems without links."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    for directory in (repository / "refs", snapshot, blobs):
        directory.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for path in sorted(each for each in bundle.rglob("*") if each.is_file()):
        content, target = path.read_bytes(), snapshot / below / path.relative_to(bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        if links:
            blob = blobs / hashlib.sha256(content).hexdigest()
            blob.write_bytes(content)
            target.symlink_to(os.path.relpath(blob, target.parent))
        else:
            target.write_bytes(content)
    return snapshot / below


class Hub(http.server.BaseHTTPRequestHandler):
    """Stand-in for the Hub, as far as huggingface_hub asks it: a repository's files at a revision, and each file."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    asked: ClassVar[list[str]] = []
    reset: ClassVar[frozenset[str]] = frozenset()
    """Files, with their repository's name ahead, of which half comes before the connection is reset."""

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, revision = "/".join(parts[2:4]), parts[5] if parts[4:5] in (["revision"], ["tree"]) else "main"
            if name not in self.repositories or revision not in ("main", "v1", COMMIT):
                error = "RevisionNotFound" if name in self.repositories else "RepoNotFound"
                return self.answer(404, b"{}", {"X-Error-Code": error, "X-Error-Message": f"{error}: {name}"})
            if parts[4:5] == ["tree"]:  # how huggingface_hub lists files since 2.0
                sizes = {file: len(content) for file, content in self.repositories[name].items()}
                listed = [{"type": "file", "path": file, "size": sizes[file], "oid": COMMIT} for file in sizes]
                return self.answer(200, json.dumps(listed).encode(), {})
            files = [{"rfilename": file} for file in self.repositories[name]]
            return self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode(), {})
        name, revision, file = "/".join(parts[:2]), "/".join(parts[3:4]), "/".join(parts[4:])
        for missing, error in (
            (name not in self.repositories, "RepoNotFound"),
            (revision not in ("main", "v1", COMMIT), "RevisionNotFound"),
            (file not in self.repositories.get(name, {}), "EntryNotFound"),
        ):
            if missing:
                return self.answer(404, b"", {"X-Error-Code": error, "X-Error-Message": f"{error}: {name}"})
        content = self.repositories[name][file]
        if self.command == "GET":
            self.asked.append("/".join(parts[4:]))
        etag = hashlib.sha256(content).hexdigest()
        half = f"{name}/{file}" in self.reset
        return self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, half=half)

    do_HEAD = do_GET  # noqa: N815 — the name that http.server calls

    def answer(self, status, content, headers, *, half=False):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half and self.command == "GET":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # which holds the socket, too
            self.connection.close()

    def log_message(self, *_):
        pass


@contextmanager
def serving(repositories, *, reset=frozenset()):
    """Return the address of a Hub that has files by repository and name, and the names that it is asked for."""
    handler = type("Serving", (Hub,), {"repositories": repositories, "asked": [], "reset": reset})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
