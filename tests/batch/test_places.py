"""Listings: which files of a folder, a glob or a URL are read, and what cannot be listed."""

from __future__ import annotations

import errno
import os
import socket
import threading
import uuid
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bertport.batch import run
from bertport.batch.job import Part, Span
from bertport.batch.places import Place, covers, open_place, redacted, unreachable
from bertport.batch.reading import chunks, read_source
from bertport.runtime.errors import PathError, UsageError


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")
    return folder


def listed(url, start):
    return [file.path.removeprefix(f"{start}/") for file in open_place(str(url)).files()]


def test_links_to_files_and_folders_are_followed(tmp_path):
    """The Hub's cache holds nothing but links."""
    blobs = fill(tmp_path / "blobs", "1", "more/2.jsonl")
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.jsonl").symlink_to(blobs / "1")
    (folder / "linked").symlink_to(blobs / "more")
    assert listed(folder, folder) == ["linked/2.jsonl", "sub/a.jsonl"]
    assert listed(f"{folder}/*/*.jsonl", folder) == ["linked/2.jsonl", "sub/a.jsonl"]
    [file] = open_place(f"{folder}/sub").files()
    status = (blobs / "1").stat()
    assert (file.size, file.stamp) == (status.st_size, str(status.st_mtime))  # of what the link leads to


def test_links_that_lead_nowhere_or_round_are_one_sentence(tmp_path):
    folder = fill(tmp_path / "in", "a.jsonl")
    (folder / "loop").symlink_to(folder)
    with pytest.raises(PathError, match=r"the link .*/in/loop leads to a folder above it, .*: remove it"):
        open_place(str(folder)).files()
    assert listed(f"{folder}/*.jsonl", folder) == ["a.jsonl"]
    (folder / "loop").unlink()
    (folder / "gone.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(PathError, match=r"cannot use .*/in/gone.jsonl \(No such file"):
        open_place(str(folder)).files()
    (folder / "gone.jsonl").unlink()
    (folder / "round.jsonl").symlink_to(folder / "round.jsonl")
    with pytest.raises(PathError, match=r"cannot use .*/in/round.jsonl \(Too many levels of symbolic links\)"):
        open_place(str(folder)).files()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_what_is_neither_a_file_nor_a_folder_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(PathError, match=r"a.jsonl is neither a file nor a folder"):
        open_place(str(tmp_path)).files()


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    folder = fill(tmp_path / "in", "a.jsonl", "closed/b.jsonl")
    scandir = os.scandir

    def refused(path):  # root may read any folder
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refused)
    for url in (folder, f"{folder}/*/*.jsonl"):
        with pytest.raises(PathError, match=r"cannot use .*/in/closed \(Permission denied\)"):
            open_place(str(url)).files()
    assert listed(f"{folder}/*.jsonl", folder) == ["a.jsonl"]


GLOBS = {
    "*.jsonl": ["a.jsonl", "b.jsonl"],
    "[!a].jsonl": ["b.jsonl"],
    "_*.jsonl": ["_c.jsonl"],
    "*/*.jsonl": ["x/d.jsonl"],
    "**/*.jsonl": ["a.jsonl", "b.jsonl", "x/d.jsonl", "x/y/e.jsonl"],
    "x/**": ["x/d.jsonl", "x/y/e.jsonl"],
    "**/y/**": ["x/y/e.jsonl"],
    "*": ["a.jsonl", "b.jsonl"],
    "none*": [],
}
FILES = ("a.jsonl", "b.jsonl", "_c.jsonl", ".d.jsonl", "x/d.jsonl", "x/y/e.jsonl", "x/_z/f.jsonl", "_q/g.jsonl")


@pytest.mark.parametrize("glob", GLOBS)
def test_globs_pass_over_names_as_folders_do(glob, tmp_path):
    fill(tmp_path, *FILES)
    assert listed(f"{tmp_path}/{glob}", tmp_path) == GLOBS[glob]
    root = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    for name in FILES:
        fs.pipe_file(f"{root}/{name}", b"{}\n")
    assert listed(f"memory:/{root}/{glob}", root) == GLOBS[glob]


def test_a_path_that_is_there_is_no_glob(tmp_path):
    folder = fill(tmp_path / "in[1]*", "a[b].jsonl", "b?.jsonl")
    assert listed(folder, folder) == ["a[b].jsonl", "b?.jsonl"]
    assert listed(f"{folder}/a[b].jsonl", folder) == ["a[b].jsonl"]
    assert open_place(str(folder)).names() == {"a[b].jsonl": 3, "b?.jsonl": 3}


def test_a_file_whose_size_no_server_says_is_not_taken_for_an_empty_one(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}/a.jsonl"
    fsspec.filesystem("memory").pipe_file(url, b"{}\n")
    info = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path: {**info(self, path), "size": None})
    with pytest.raises(PathError, match=r"the size of .*a.jsonl is not known"):
        open_place(url).files()


def test_links_behind_a_url_are_not_passed_over(monkeypatch):
    """As servers of SFTP list them."""
    root = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    for name in ("a.jsonl", "b/c.jsonl"):
        fs.pipe_file(f"{root}/{name}", b"{}\n")
    linked = {f"{root}/a.jsonl": {"type": "link", "size": 9}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: linked)
    [file] = open_place(f"memory:/{root}").files()
    assert file.size == 3
    linked[f"{root}/b"] = {"type": "link", "size": 9}
    with pytest.raises(PathError, match="/b is a link to a folder, or no file: name what it leads to"):
        open_place(f"memory:/{root}").files()


def test_a_name_may_hold_what_stands_for_a_chain_in_a_url(tmp_path):
    folder = fill(tmp_path / "in::1", "a::b.jsonl")
    assert listed(folder, folder) == listed(f"file://{folder}", folder) == ["a::b.jsonl"]


@pytest.mark.parametrize(
    ("url", "path", "below", "expected"),
    [
        ("sftp://me@host/p", "/p", "/p/a.jsonl", "sftp://me@host/p/a.jsonl"),
        ("sftp://me@host/p/*.jsonl", "/p/*.jsonl", "/p/a.jsonl", "sftp://me@host/p/a.jsonl"),
        ("abfs://box@one.dfs/p/", "box/p", "box/p/a.jsonl", "abfs://box@one.dfs/p/a.jsonl"),
        ("s3://bucket/p/", "bucket/p", "bucket/p/a.jsonl", "s3://bucket/p/a.jsonl"),
        ("s3://bucket/**/*.jsonl", "bucket/**/*.jsonl", "bucket/p/a.jsonl", "s3://bucket/p/a.jsonl"),
        ("zip://::/x.zip", "", "a.jsonl", "zip://a.jsonl::/x.zip"),
        ("zip://*.jsonl::/x.zip", "*.jsonl", "a.jsonl", "zip://a.jsonl::/x.zip"),
        ("simplecache::s3://bucket/p", "bucket/p", "bucket/p/a.jsonl", "simplecache::s3://bucket/p/a.jsonl"),
        (
            "https://host/a.jsonl?x=1",
            "https://host/a.jsonl?x=1",
            "https://host/a.jsonl?x=1",
            "https://host/a.jsonl?x=1",
        ),
        ("memory://", "", "/a.jsonl", "memory:///a.jsonl"),
    ],
)
def test_the_url_of_a_file_keeps_the_host_and_the_archive(url, path, below, expected):
    assert Place(url, fsspec.filesystem("memory"), path).at(below).url == expected


def test_workers_open_what_is_in_an_archive(tiny_bundle, tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("a", "b"):
            archive.writestr(f"rows/{name}.jsonl", '{"text": "the [MASK]"}\n')
    for number, url in enumerate(("zip://rows/*.jsonl::", "zip://rows::")):
        assert run(tiny_bundle, "fill-mask", f"{url}{tmp_path}/in.zip", tmp_path / f"out{number}")["rows"] == 2


def test_every_file_whose_name_stands_for_a_chain_in_a_url_is_refused_before_the_run(tiny_bundle, tmp_path):
    for name in ("a", "b", "b::c"):
        fsspec.filesystem("memory").pipe_file(f"/chained/{name}.jsonl", b'{"text": "the [MASK]"}\n')
    with pytest.raises(UsageError, match=r"no worker could open memory://chained/b::c\.jsonl by its URL"):
        run(tiny_bundle, "fill-mask", "memory://chained", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_columns_that_folders_name(tmp_path):
    folder = fill(tmp_path / "run=3", "lang=en/day=1/a.jsonl", "lang=de/b.jsonl", "c=d.jsonl")
    for place in (folder, f"{folder}/*/**/*.jsonl", f"file://{folder}"):
        found = open_place(str(place))
        assert found.folder_columns(found.files()) == ["day", "lang"]
    one = open_place(str(folder / "c=d.jsonl"))
    assert one.folder_columns(one.files()) == []


def test_a_url_that_leads_elsewhere_is_refused():
    fs = fsspec.filesystem("memory")
    for url, path in (("memory://a", "/b"), ("nowhere://me:word@a", "/a")):
        with pytest.raises(UsageError, match=r"no worker could open .* by its URL") as raised:
            Place(url, fs, path).stored()
        assert "word" not in raised.value.message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:word@host/a.jsonl?sig=1&b=2", "https://***@host/a.jsonl?***"),
        ("HTTP://token@host/a.jsonl", "HTTP://***@host/a.jsonl"),
        ("zip://a::https://host/a.zip?sig=1::b", "zip://a::https://host/a.zip?***::b"),
        ("ftp://me:wo@rd@host/a", "ftp://***@host/a"),
        ("404, url='https://host/a?sig=1', and", "404, url='https://host/a?***', and"),
        ("abfs://box@one.dfs/p?.jsonl", "abfs://box@one.dfs/p?.jsonl"),
        ("/a/me:word@b?c", "/a/me:word@b?c"),
    ],
)
def test_secrets_of_urls_are_not_shown(text, shown):
    assert redacted(text) == shown


def test_what_to_do_is_said_of_what_happened():
    full = unreachable("out", OSError(errno.ENOSPC, "No space left on device"))
    assert full.message == "cannot use out (No space left on device): make room there, and run the same command again"
    gone = unreachable("in", FileNotFoundError("https://me:word@host/a?sig=1"))
    assert gone.message.startswith("cannot use in ('https://***@host/a?***'): check the path")


@pytest.mark.parametrize(
    ("place", "path", "inside"),
    [
        ("/a", "/a", True),
        ("/a", "/ab", False),
        ("/a/*.parquet", "/a/out/part.parquet", False),
        ("/a/*/*.parquet", "/a/out/part.parquet", True),
        ("/a/**/*.parquet", "/a/b/out/part.parquet", True),
        ("/a/**/*.jsonl", "/a/b/out/part.parquet", False),
        ("/a/**", "/a/out/part.parquet", True),
        ("/*", "/a/part.parquet", False),
    ],
)
def test_which_paths_a_place_covers(place, path, inside):
    assert covers(place, path) is inside


class Rows(BaseHTTPRequestHandler):
    """Answers who knows the password, and the signature."""

    changed = "Mon, 30 Nov 2026 07:00:00 GMT"

    def do_GET(self):
        known = self.headers["Authorization"] is not None and self.path.endswith("?sig=0123")
        content = b'{"text": "no mask"}\n' if known else b""
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", self.changed)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 — the name that http.server calls

    def log_message(self, *said):
        pass


@pytest.fixture
def web():
    """Return the host and port of a server of rows."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rows)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_rows_of_a_signed_url_are_read_and_its_secrets_kept(web, tiny_bundle, tmp_path):
    url = f"http://me:word@{web}/in.jsonl?sig=0123"
    with pytest.raises(UsageError, match=r"of http://\*\*\*@.*/in.jsonl\?\*\*\* has no answer"):
        run(tiny_bundle, "fill-mask", url, tmp_path / "out", on_error="fail")
    assert run(tiny_bundle, "fill-mask", url, tmp_path / "kept")["rows"] == 1
    stored = (tmp_path / "kept" / "_bertport" / "run.json").read_text()
    assert stored.count("word") == stored.count("0123") == 1  # in the part's own URL
    with pytest.raises(PathError, match="Forbidden") as raised:
        run(tiny_bundle, "fill-mask", f"{url}4", tmp_path / "none")
    assert "word" not in raised.value.message
    assert "0123" not in raised.value.message


def test_files_on_the_web_are_told_apart_by_the_time_of_their_last_change(web, monkeypatch):
    """Of a server that says no ETag."""
    url = f"http://me:word@{web}/in.jsonl?sig=0123"
    [before] = open_place(url).files()
    assert open_place(url).files() == [before]
    monkeypatch.setattr(Rows, "changed", "Mon, 30 Nov 2026 08:00:00 GMT")
    [after] = open_place(url).files()
    assert (after.path, after.size) == (before.path, before.size)
    assert after.stamp != before.stamp


@pytest.mark.parametrize("query", ["", "?sig=0123"])
def test_a_server_that_is_not_reached_is_not_taken_for_an_empty_folder(query):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PathError, match=rf"cannot use http://127.0.0.1:{port}/in.jsonl.* and that it is reached from"):
        open_place(f"http://127.0.0.1:{port}/in.jsonl{query}").files()


def test_a_server_of_whole_files_alone_is_not_said_to_have_a_damaged_one(web):
    """Another part than the first begins in the middle of a file."""
    url = f"http://me:word@{web}/in.jsonl?sig=0123"
    place = open_place(url)
    source, _ = read_source(place, place.files(), "features", columns={}, carry=[])
    part = Part(number=1, spans=(Span(url, 10, 20),), weight=1)
    with pytest.raises(PathError, match=r"range requests.*\): its server sends whole files alone: copy it here"):
        list(chunks(part, source))


def test_a_folder_behind_a_url_that_cannot_be_read_is_not_taken_for_an_empty_one(monkeypatch):
    root = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    for name in ("a.jsonl", "b/c.jsonl"):
        fs.pipe_file(f"{root}/{name}", b"{}\n")
    fs.mkdir(f"{root}/empty")
    fs.mkdir(f"{root}/_closed")
    ls = MemoryFileSystem.ls

    def refused(self, path, *how, **more):
        if path.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return ls(self, path, *how, **more)

    monkeypatch.setattr(MemoryFileSystem, "ls", refused)
    assert listed(f"memory:/{root}", root) == ["a.jsonl", "b/c.jsonl"]
    fs.mkdir(f"{root}/b/closed")
    with pytest.raises(PathError, match=r"cannot use /.*/b/closed \(Permission denied\)"):
        open_place(f"memory:/{root}").files()


def test_a_file_is_replaced_also_where_a_name_that_is_taken_is_not_given(monkeypatch):
    """As behind SMB, and some servers of FTP."""
    moved = MemoryFileSystem.mv

    def refusing(self, old, new, **how):
        if self.exists(new):
            raise FileExistsError(errno.EEXIST, "File exists", new)
        moved(self, old, new, **how)

    monkeypatch.setattr(MemoryFileSystem, "mv", refusing)
    folder = open_place(f"memory://{uuid.uuid4().hex}")
    file, beside = folder.child("done.json"), folder.child("tmp")
    for content in (b"one", b"two"):
        file.write(content, beside)
        assert file.read() == content
    assert beside.names() == {}
    with pytest.raises(FileExistsError):  # what is not there replaces nothing
        beside.child("gone.new").rename(file)
    assert file.read() == b"two"
