"""Listings: which files of a folder, a glob or a URL are read, and what cannot be listed."""

from __future__ import annotations

import os
import uuid

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bertport.batch.places import open_place
from bertport.runtime.errors import PathError


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
