"""Places: files and folders on this machine or behind a URL, opened by fsspec.

A file appears under its name whole or not at all: it is written beside, under a name of its own, and renamed.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bertport.runtime.bundle.exchange import sync_directory, sync_file
from bertport.runtime.errors import NO_ROOM, MissingDependencyError, PathError, UsageError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.installation import pip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["RECORDS", "SIGNS", "WEB", "File", "Place", "covers", "open_place", "redacted", "unreachable"]

RECORDS = "_bertport"
"""Folder of a run's own records inside the output; readers of Parquet folders pass over names that begin so."""
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss"})
"""Kinds of URLs behind which there are no folders."""
SIGNS = "*?["
"""Characters that make a glob of a path."""
ALL = "**"
"""The name in a glob that stands for folders of any depth, and at its end for all that is in them."""
HIDDEN = (".", "_")
"""Beginnings of names that are passed over, as readers of Parquet folders do."""
WEB = ("http://", "https://")
"""Beginnings of URLs whose query may be a signature."""
STAMPS = (
    *("ETag", "etag", "checksum", "Content-MD5", "Digest", "CRC"),
    *("mtime", "LastModified", "last_modified", "Last-Modified", "modify", "modificationTime", "updated", "created"),
)
"""Names that file systems have for a file's ETag or checksum, and for the time of its last change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file as a listing shows it."""

    path: str
    """Its path in its file system."""
    size: int
    """Bytes."""
    stamp: str
    """Stamp of its version, which changes when the file does: the store's ETag, or else the time of its last change."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a file system."""

    url: str
    """As it was given; it may hold a password."""
    fs: Any = field(repr=False)
    """fsspec's file system."""
    path: str
    """The path in it."""

    @property
    def local(self) -> bool:
        """Whether it is on this machine's own file systems."""
        return "file" in self._protocols

    @property
    def pattern(self) -> bool:
        """Whether it may be a glob, which stands for paths."""
        return any(sign in self.path for sign in SIGNS)

    @property
    def title(self) -> str:
        """Name in messages: without the secrets of a URL."""
        return redacted(self.url)

    def child(self, name: str) -> Place:
        """Return a place below this one."""
        return Place(f"{self.url.rstrip('/')}/{name}", self.fs, f"{self.path.rstrip('/')}/{name}")

    def at(self, path: str) -> Place:
        """Return the place of a file that a listing of this one found."""
        return Place(path if self.local else self._url_of(path), self.fs, path)

    def _url_of(self, path: str) -> str:
        """Return the URL of a path below this one: what fsspec calls it lacks hosts, accounts and archives."""
        links = self.url.split("::")
        number = next((number for number, link in enumerate(links) if "://" in link), 0)  # the path's, in a chain
        link, own = links[number], self.path.rstrip("/")
        while link.endswith("/") and not link.endswith("://") and not link.endswith(own or "/"):
            link = link[:-1]
        if path != own and self.pattern:
            folder = _split(own)[0]
            link, own = link.removesuffix(own[len(folder) :]), folder
        if not path.startswith(own):
            return str(self.fs.unstrip_protocol(path))
        links[number] = link + path[len(own) :]
        return "::".join(links)

    def stored(self) -> str:
        """Return the path or URL that opens the place on another machine.

        Raises:
            UsageError: for a URL that does not lead there again.
        """
        if self.local:
            return self.path
        try:
            again = open_place(self.url)
        except (UsageError, PathError):
            again = None
        if again is None or (again.fs, again.path) != (self.fs, self.path):
            raise UsageError(f"no worker could open {self.title} by its URL: copy it to a folder or a store")
        return self.url

    def exists(self) -> bool:
        """Return whether something is there."""
        return bool(self._tried(lambda: self.fs.exists(self.path)))

    def read(self) -> bytes | None:
        """Return the bytes of a file; None where there is none."""
        try:
            return bytes(self.fs.cat_file(self.path))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise unreachable(self.title, error) from error

    def open(self) -> IO[bytes]:
        """Open a file to be read."""
        stream: IO[bytes] = self._tried(lambda: self.fs.open(self.path, "rb"))
        return stream

    def files(self) -> list[File]:
        """Return the files of a folder, of a glob, or the one file, sorted by path; folders below are looked into.

        Links are followed. In a folder, and where a glob has a wildcard, names that begin with a dot or an underline
        are passed over, unless a name in the glob begins so. A path that is there is no glob.

        Raises:
            PathError: for a folder below that cannot be read, and a file whose size is not known: their rows would be
                missing.
        """
        files: list[File] = self._tried(lambda: list(self._local() if self.local else self._behind_url()))
        return sorted(files, key=lambda file: file.path)

    def folder_columns(self, files: Sequence[File]) -> list[str]:
        """Return the columns that the names of folders below it state, as `lang=en` does."""
        top = _split(self.path)[0] if self.pattern else self.path.rstrip("/")
        return sorted({name for file in files for name in re.findall(r"/([^/=]+)=[^/]*(?=/)", file.path[len(top) :])})

    def names(self) -> dict[str, int]:
        """Return the sizes of the files that are in a folder itself, by name."""

        def listed() -> dict[str, int]:
            self.fs.invalidate_cache()
            entries = self.fs.ls(self.path, detail=True) if self.fs.exists(self.path) else []
            return {str(each["name"]).rpartition("/")[2]: each["size"] for each in entries if each["type"] == "file"}

        found: dict[str, int] = self._tried(listed)
        return found

    def _local(self) -> Iterator[File]:
        """Yield the files on this machine's own file systems."""
        if os.path.isfile(self.path):  # noqa: PTH113 — paths of fsspec are text
            yield _file_at(self.path)
        elif os.path.lexists(self.path):
            yield from _found(self.path.rstrip("/"), (ALL,))
        elif self.pattern:
            folder, names = _split(self.path)
            found = _found(folder, names)
            yield from {file.path: file for file in found}.values()  # `**` twice in a glob finds a file twice

    def _behind_url(self) -> Iterator[File]:
        """Yield the files behind a URL."""
        self.fs.invalidate_cache()
        names: tuple[str, ...] = (ALL,)
        if self._one_on_the_web or self.fs.isfile(self.path):
            found, start = {self.path: self._info()}, len(self.path)
        elif self.pattern and not self.fs.exists(self.path):
            folder, names = _split(self.path)
            found, start = dict(self.fs.glob(self.path, detail=True)), len(folder)
        else:
            found = dict(self.fs.find(self.path, detail=True, withdirs=not self._in_store))
            start = len(self.path.rstrip("/"))
            self._check_folders(found, start)
        for path, listed in found.items():
            if listed["type"] == "directory" or any(_passed_over(name, names) for name in path[start:].split("/")):
                continue
            entry = listed if listed["type"] == "file" else self.fs.info(path)  # of a link, what it leads to
            if entry["type"] != "file":
                raise PathError(f"{redacted(path)} is a link to a folder, or no file: name what it leads to")
            if entry["size"] is None:
                raise PathError(
                    f"the size of {redacted(path)} is not known, which its server does not say: copy it here"
                )
            yield File(path=path, size=int(entry["size"]), stamp=_stamp(entry))

    def _check_folders(self, found: dict[str, Any], start: int) -> None:
        """Raise PathError for a folder below that cannot be read, which fsspec's listing shows as an empty one."""
        inside = {path.rpartition("/")[0] for path in found}
        for path, entry in found.items():
            if entry["type"] != "directory" or path in inside:
                continue
            if any(_passed_over(name, (ALL,)) for name in path[start:].split("/")):
                continue
            try:
                with suppress(FileNotFoundError):
                    self.fs.ls(path, detail=False)
            except Exception as error:  # every file system has errors of its own
                raise unreachable(redacted(path), error) from error

    @property
    def _one_on_the_web(self) -> bool:
        """Whether it is one file on the web, of which its server says whether it is there."""
        # A question mark begins its query.
        return self.path.startswith(WEB) and not any(sign in self.path for sign in "*[")

    def _info(self) -> dict[str, Any]:
        """Return what its file system says of a file."""
        try:
            return dict(self.fs.info(self.path))
        except FileNotFoundError as error:  # on the web, of whatever went wrong
            raise error.__cause__ or error from None

    def make(self) -> None:
        """Make a folder, and those above it."""
        self._tried(self._made)

    @property
    def _in_store(self) -> bool:
        """Whether it is in an object store."""
        return bool(OBJECT_STORES.intersection(self._protocols))

    @property
    def _protocols(self) -> tuple[str, ...]:
        """The names of its file system."""
        return (self.fs.protocol,) if isinstance(self.fs.protocol, str) else tuple(self.fs.protocol)

    def _made(self) -> None:
        """Make the folder; in an object store there are none, and making one would make a bucket."""
        if not self._in_store:
            self.fs.makedirs(self.path, exist_ok=True)

    def write(self, content: bytes, beside: Place, *, private: bool = False) -> None:
        """Write a file, whole or not at all; `beside` is the folder where it is written before it is renamed."""
        scratch = beside.child(f"{uuid.uuid4().hex}.new")

        def put() -> None:
            beside.make()
            _put(scratch, content, private=private)
            scratch.rename(self)

        def put_again() -> None:
            try:
                put()
            except FileNotFoundError:  # another run of the same command has just ended, and tidied up
                put()

        self._tried(put_again)

    def create(self, content: bytes, beside: Place, *, private: bool = False) -> None:
        """Write a file as `write` does, unless it is there: read it again to learn whose content stands.

        Of writers at one moment one alone comes through on disks with hard links and in stores that know the condition
        (S3's If-None-Match); elsewhere the last one stands.

        Args:
            content: the file's bytes.
            beside: the folder where it is written first.
            private: whether its owner alone may read it, on this machine's own file systems.
        """
        scratch = beside.child(f"{uuid.uuid4().hex}.new")

        with suppress(Exception):  # it is there, or the place has no such way: which of them is asked below
            if self.local:
                beside.make()
                _put(scratch, content, private=private)
                sync_file(Path(scratch.path))
                os.link(scratch.path, self.path)
                sync_directory(Path(self.path).parent)
            elif self._in_store:
                self.fs.pipe_file(self.path, content, mode="create")
        if self.local:
            scratch.remove()
        self.fs.invalidate_cache()
        if not self.exists():
            self.write(content, beside, private=private)

    def rename(self, target: Place) -> None:
        """Rename a file, in one step where the file system has one; what had that name is replaced."""
        if self.local:
            _renamed(Path(self.path), Path(target.path))
            return
        try:
            self.fs.mv(self.path, target.path)
        except Exception:  # every file system has errors of its own
            if self._in_store or not (self.exists() and target.exists()):
                raise
            target.remove()  # SMB, and some servers of FTP, give no file a name that is taken
            self.fs.mv(self.path, target.path)

    def take(self, made: Path, beside: Place) -> None:
        """Move a local file to this place: it is there whole or not at all.

        Args:
            made: the file; below `beside` where this place is on this machine.
            beside: the folder where files are written before they are renamed.
        """
        scratch = beside.child(made.name)

        def put() -> None:
            if self.local:
                _renamed(made, Path(self.path))
                return
            beside.make()
            self.fs.put_file(os.fspath(made), scratch.path)
            scratch.rename(self)

        self._tried(put)

    def remove(self) -> None:
        """Remove a file or a folder with all that is in it, where it is there."""

        def gone() -> None:
            if self.fs.exists(self.path):
                self.fs.rm(self.path, recursive=True)

        self._tried(gone)

    def _tried(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 — whatever the work returns
        try:
            return work()
        except Exception as error:  # every file system has errors of its own
            raise unreachable(self.title, error) from error


def open_place(url: str) -> Place:
    """Return the place that a path or a URL names; nothing is read yet.

    Raises:
        UsageError: for an empty path, and a kind of URL that fsspec does not know.
        PathError: for an archive or a server that cannot be reached.
        MissingDependencyError: where fsspec, or the package for this kind of URL, is not installed.
    """
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingDependencyError("batch", "fsspec", "batch") from error
    if not url:  # to fsspec it is the current folder, and to a shell a variable that is not set
        raise UsageError("the input or output is an empty path: name it, as . for the current folder")
    scheme, of_a_url, _ = url.partition("://")
    if not of_a_url or scheme.lower() in {"file", "local"}:  # fsspec would take `::` in a name for a chain
        fs = fsspec.filesystem("file")
        return Place(url, fs, fs._strip_protocol(url))  # noqa: SLF001 — what url_to_fs calls
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        said = excerpt(one_line(error), 200)
        raise MissingDependencyError(
            f"opening {redacted(url)}", scheme, "batch", command=f"{pip()} install its package ({said})"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"cannot open {redacted(url)} ({excerpt(redacted(str(error)), 200)}): give a path, or a URL of fsspec"
        ) from error
    except Exception as error:  # an archive is opened, and some servers are asked, at once: each has errors of its own
        raise unreachable(redacted(url), error) from error
    return Place(url, fs, str(path))


def redacted(text: str) -> str:
    """Return a text without the secrets of URLs in it: passwords, and on the web tokens and what a URL is signed with.

    >>> redacted("cannot read https://me:word@host/a.jsonl?sig=0123: 403")
    'cannot read https://***@host/a.jsonl?*** 403'
    >>> redacted("sftp://me:word@host/a, sftp://me@host/b and s3://bucket/part-?.jsonl")
    'sftp://***@host/a, sftp://me@host/b and s3://bucket/part-?.jsonl'
    """
    text = re.sub(r"(?i)(https?://)[^/\s]+@", r"\1***@", text)
    text = re.sub(r"(://)[^/\s@]*:[^/\s]*@", r"\1***@", text)
    return re.sub(r"""(?i)(https?://[^\s?'"]*\?)(?:(?!::)[^\s'"])+""", r"\1***", text)


def unreachable(place: str, error: Exception, advice: str = "") -> PathError:
    """Return the error of a place that cannot be read or written.

    Args:
        place: its name in messages.
        error: what a file system raised.
        advice: what to do, where it is known better than by the error.
    """
    if isinstance(error, PathError):
        return error
    reason = getattr(error, "strerror", None) or excerpt(one_line(redacted(str(error))), 200)
    if not advice and getattr(error, "errno", None) in NO_ROOM:
        advice = "make room there, and run the same command again"
    return PathError(
        f"cannot use {place} ({reason or type(error).__name__}): "
        f"{advice or 'check the path, who may use it, and that it is reached from here'}"
    )


def _put(place: Place, content: bytes, *, private: bool) -> None:
    """Write a file in one go; where it is private, and of this machine, nobody but its owner may read it."""
    if private and place.local:
        os.close(os.open(place.path, os.O_CREAT | os.O_WRONLY, 0o600))
    place.fs.pipe_file(place.path, content)


def _renamed(made: Path, target: Path) -> None:
    """Rename a file of this machine; its new name stays after a crash of the machine, with all its bytes."""
    sync_file(made)
    made.replace(target)
    sync_directory(target.parent)


def _stamp(entry: dict[str, Any]) -> str:
    for name in STAMPS:
        if entry.get(name) is not None:
            return str(entry[name]).strip('"')
    return ""


def covers(place: str, path: str) -> bool:
    """Return whether a file's path is a place's, below it, or one of those for which it stands as a glob."""
    if f"{path}/".startswith(f"{place.rstrip('/')}/"):
        return True
    if not any(sign in place for sign in SIGNS):
        return False
    folder, names = _split(place)
    return path.startswith(f"{folder}/") and _leads_to(names, path[len(folder) + 1 :].split("/"))


def _leads_to(names: Sequence[str], path: Sequence[str]) -> bool:
    """Return whether the names of a glob stand for those of a path."""
    if not names:
        return not path
    if names[0] == ALL:
        return len(names) == 1 or any(_leads_to(names[1:], path[first:]) for first in range(len(path)))
    return bool(path) and fnmatchcase(path[0], names[0]) and _leads_to(names[1:], path[1:])


def _split(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder of a glob, and the names below it, of which the first has a wildcard."""
    names = pattern.split("/")
    first = next(number for number, name in enumerate(names) if any(sign in name for sign in SIGNS))
    return "/".join(names[:first]), tuple(names[first:])


def _passed_over(name: str, names: Sequence[str]) -> bool:
    """Return whether a name is passed over; `names` are those of the glob, of which one may begin as it does."""
    return name.startswith(HIDDEN) and not any(each.startswith(name[0]) for each in names)


def _found(folder: str, names: Sequence[str], above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[File]:
    """Yield the files below a folder of this machine that the names of a glob lead to; links are followed.

    fsspec's own listings leave out links, and folders that cannot be read.

    Args:
        folder: the folder; empty for the root.
        names: the names, one a level.
        above: the folders that lead here, by device and number.

    Raises:
        PathError: for a folder that cannot be read, and links that lead to a folder above.
    """
    name, below = names[0], names[1:]
    try:
        with os.scandir(folder or "/") as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
        status = os.stat(folder or "/")  # noqa: PTH116 — paths of fsspec are text
    except OSError as error:
        raise unreachable(folder, error) from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise PathError(f"the link {folder} leads to a folder above it, whose rows would never end: remove it")
    if name == ALL and below:
        yield from _found(folder, below, above)
    for entry in entries:
        if _passed_over(entry.name, names) or (name != ALL and not fnmatchcase(entry.name, name)):
            continue
        path, deeper = f"{folder}/{entry.name}", names if name == ALL else below
        try:
            is_folder = entry.is_dir()
        except OSError as error:  # links that lead round, or where nobody may look
            raise unreachable(path, error) from error
        if is_folder:
            if deeper:
                yield from _found(path, deeper, above | {here})
        elif not below:
            yield _file_at(path)


def _file_at(path: str) -> File:
    """Return a file of this machine; PathError for a link to nothing, and what is neither a file nor a folder."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise unreachable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise PathError(f"{path} is neither a file nor a folder: remove it, or name the files with a glob")
    return File(path=path, size=status.st_size, stamp=str(status.st_mtime))
