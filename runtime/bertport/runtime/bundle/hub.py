"""Bundles on the Hugging Face Hub: an id such as `org/name` in place of a directory, kept in huggingface_hub's cache.

The manifest is fetched first, at one commit, and then the files that it lists and that are needed: a variant's, not the
repository's. Files are checked against the manifest when they are opened, as everywhere.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.bundle.siblings import comes_back
from bertport.runtime.errors import NO_ROOM, BundleError, PathError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.installation import install_command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

__all__ = [
    "HUB_ID",
    "OnHub",
    "Place",
    "find_bundle",
    "is_hub_id",
    "patience",
    "place_of",
    "reason_of",
    "refuse_empty",
    "refuse_no_token",
]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
"""An owner and a name. The Hub's old ids without an owner are left out: each mistyped directory would be one."""

PATIENCE = 4.0
"""Seconds in which the Hub has to take a connection, and again to answer, before it counts as out of reach."""
MOST_CAUSES = 16
"""Errors that are looked through for the first: libraries of HTTP wrap one into the other."""
NO_ACCESS = (401, 403)
"""Statuses of HTTP that say that a token, or the lack of one, is what is wrong."""
LONGEST_REASON = 120
"""Characters of an error of the network that are quoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHub:
    """A repository of the Hub, and how it may be asked."""

    name: str
    """`owner/name`."""
    revision: str | None = None
    """Branch, tag or commit; None for the main branch."""
    token: str | None = field(default=None, repr=False)
    """Access token for a private repository; None for the one that huggingface_hub finds: HF_TOKEN, or its login."""
    download: bool = True
    """Whether the Hub is asked for what is not in the cache."""

    def __post_init__(self) -> None:
        """Refuse a revision that is empty, and a token that is none.

        Raises:
            UsageError: for either.
        """
        refuse_empty(self.revision)
        refuse_no_token(self.token)

    @property
    def title(self) -> str:
        """Name in messages."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def file(self, name: str) -> Path:
        """Return the path of a repository's file in the cache, fetched where it is not there.

        Raises:
            PathError: when there is no such file or repository, or it cannot be had; and without huggingface_hub.
        """
        try:
            from huggingface_hub import constants, hf_hub_download
            from huggingface_hub.errors import (
                EntryNotFoundError,
                HfHubHTTPError,
                HFValidationError,
                LocalEntryNotFoundError,
                OfflineModeIsEnabled,
            )
        except ModuleNotFoundError as error:
            raise PathError(
                f"no bundle {self.title}: there is no directory of that name, and asking the Hub for it needs the "
                f"package {error.name}, which is not installed: {install_command('hub')}"
            ) from error
        if not self.download or constants.HF_HUB_OFFLINE:
            return self._kept(name)
        try:
            return Path(hf_hub_download(self.name, name, revision=self.revision, token=self.token))
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            raise self._unreachable(name, error) from error
        except EntryNotFoundError as error:
            if name == MANIFEST:
                raise PathError(
                    f"{self.title} on the Hub is not a bundle: it has no {MANIFEST}; make one of a checkpoint with "
                    f"bertport export {self.name} OUT"
                ) from error
            raise BundleError(
                f"{self.title} on the Hub lacks {name}, which its manifest lists: ask its owner to push the "
                "bundle again"
            ) from error
        except (HfHubHTTPError, HFValidationError) as error:
            raise PathError(f"{self._nowhere} the Hub answered: {_said(error)}: {_advice(error)}") from error
        except OSError as error:
            if error.filename is not None or error.errno in NO_ROOM:  # of the network's errors none names a file
                raise PathError(
                    f"{self._nowhere} the Hub's cache cannot be used ({error}): make room in it, see who may use "
                    "it, or name another folder by HF_HUB_CACHE"
                ) from error
            raise PathError(f"{self._nowhere} the Hub cannot be read ({error}): give a bundle's directory") from error
        except Exception as error:  # the HTTP library's and Xet's errors, such as that of a connection that is reset
            raise self._unreachable(name, error) from error

    @property
    def _nowhere(self) -> str:
        """Beginning of messages."""
        return f"no bundle {self.title}: there is no directory of that name, and"

    def _kept(self, name: str) -> Path:
        """Return the path of a file that the cache has, and ask nobody.

        `hf_hub_download` with `local_files_only` does not download, and yet asks the Hub, for a list of agents' names.

        Raises:
            PathError: when the cache has no such file.
        """
        from huggingface_hub import constants, try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            kept = try_to_load_from_cache(self.name, name, revision=self.revision)
        except HFValidationError as error:
            raise PathError(f"{self._nowhere} it is not a Hub name: {_said(error)}") from error
        except OSError as error:
            raise PathError(
                f"{self._nowhere} the Hub's cache cannot be read ({error}): give a bundle's directory"
            ) from error
        if isinstance(kept, str):
            return Path(kept)
        why, remedy = "nothing may be fetched", "allow it with --allow-download"
        if constants.HF_HUB_OFFLINE:
            why, remedy = "offline mode is on", "fetch it once with the network"
        raise PathError(f"{self._nowhere} {name} is not in the Hub's cache while {why}: {remedy}")

    def place(self) -> Place:
        """Return where the bundle is: the cache has its manifest, at one commit.

        Where the Hub cannot be reached, the cache answers alone: huggingface_hub would ask six times, for 24 seconds.

        Raises:
            PathError: when the repository has no manifest, or cannot be had.
        """
        error = self._away()
        try:
            directory = (self if error is None else replace(self, download=False)).file(MANIFEST).parent
        except PathError:
            if error is None:
                raise
            raise self._unreachable(MANIFEST, error) from error
        # A snapshot's directory is named after its commit: what follows is of the same one, wherever a branch has gone.
        return Place(directory=directory, hub=replace(self, revision=directory.name))

    def _away(self) -> Exception | None:
        """Return why the Hub cannot be reached, asked once for the manifest; None where it answers or is not asked."""
        try:
            from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
            from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, HFValidationError
        except ModuleNotFoundError:
            return None  # which `file` says
        if not self.download or constants.HF_HUB_OFFLINE:
            return None
        try:
            kept = try_to_load_from_cache(self.name, MANIFEST, revision=self.revision)
        except (HFValidationError, OSError):  # a name that is none, a cache that cannot be read: `file` says it
            return None
        known = isinstance(kept, str) and Path(kept).parent.name == self.revision
        try:
            if not known:  # what a commit holds never changes, and nobody asks for it again
                url = hf_hub_url(self.name, MANIFEST, revision=self.revision)
                get_hf_file_metadata(url, token=self.token, timeout=patience())
        except (HfHubHTTPError, HFValidationError, FileMetadataError):
            return None  # it answered, and says the same to what asks in earnest
        except Exception as error:  # noqa: BLE001 — the error's class is that of the HTTP library, which changed twice
            return error
        return None

    def _unreachable(self, name: str, error: Exception) -> PathError:
        return PathError(
            f"{self._nowhere} the Hub cannot be reached "
            f"({reason_of(error)}) and {name} is not in its cache: give a bundle's directory, or try again"
        )

    def fetch(self, names: Iterable[str]) -> None:
        """Fetch files that a manifest lists.

        Raises:
            PathError: when one cannot be had.
            BundleError: when the repository lacks one.
        """
        for name in names:
            self.file(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Location of a bundle: a local directory, or a commit on the Hub and its directory in the cache."""

    directory: Path
    """Its directory; on the Hub, where the cache keeps that commit."""
    hub: OnHub | None = None
    """The repository at that commit, which has what the directory lacks; None for a directory alone."""

    def fetch_variant(self, bundle: Bundle, variant: str) -> None:
        """Fetch what opening a variant reads, where the bundle is on the Hub.

        Raises:
            PathError: when a file cannot be had.
            BundleError: when the repository lacks one.
        """
        if self.hub is not None:
            manifest = bundle.manifest
            graphs = {name for each in manifest.variants for name in manifest.hashes_of(each)}
            needed = manifest.hashes_of(variant)  # beside graphs there are the tokenizer's files, and what is as small
            self.hub.fetch([name for name in manifest.files if name in needed or name not in graphs])

    def fetch_all(self, *, digest: str | None = None) -> Path:
        """Return the directory, in which every file of the bundle is.

        Raises:
            PathError: when a file cannot be had.
            BundleError: when the repository lacks one, or the bundle has another digest.
        """
        if self.hub is not None:
            self.hub.fetch(Bundle.open(self.directory, digest=digest).manifest.files)
        return self.directory


def _said(error: HfHubHTTPError | HFValidationError) -> str:
    """Return what the Hub said, on one line, without what huggingface_hub adds about its own arguments."""
    text = getattr(error, "server_message", None) or str(error)
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[-1].rstrip(".")


def _advice(error: HfHubHTTPError | HFValidationError) -> str:
    """Return what to do about what the Hub answered. A private repository is, to a token without access, none."""
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, RevisionNotFoundError):
        return "give a branch, tag or commit that it has"
    if isinstance(error, RepositoryNotFoundError | HFValidationError) or error.response.status_code in NO_ACCESS:
        return "check the name, or give a token that may read it, by --token or HF_TOKEN"
    return "try again later"


def patience() -> float:
    """Return the seconds in which a Hub has to answer: huggingface_hub's variable for it, or else `PATIENCE`."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_ETAG_TIMEOUT) if os.environ.get("HF_HUB_ETAG_TIMEOUT") else PATIENCE


def reason_of(error: BaseException) -> str:
    """Return what an error of the network began with, on one line: `[Errno 111] Connection refused`."""
    for _ in range(MOST_CAUSES):
        error = error.__cause__ or error.__context__ or error
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:LONGEST_REASON]


def refuse_empty(revision: str | None) -> None:
    """Refuse a revision that is empty, as a variable of a shell is that is not set: it would be the main branch.

    Raises:
        UsageError: for it.
    """
    if isinstance(revision, str) and not revision.strip():
        raise UsageError("the revision is empty: name a branch, tag or commit, or leave it out for the main branch")


def refuse_no_token(token: object) -> None:
    """Refuse a token that no request can carry: an empty one, or one with the line break of the file that it was in.

    The error of the HTTP library would say that the Hub is out of reach, and quote the token.

    Raises:
        UsageError: for it, without a character of it.
    """
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and token.split() == [token]):
        raise UsageError(
            "the token is empty, or has a space, a line break or another character that no token has: give it as the "
            "Hub shows it, or leave it out for HF_TOKEN or the Hub's login"
        )


def is_hub_id(path: str | os.PathLike[str]) -> bool:
    """Return whether a path has the form of a Hub id, and no directory or file has that name."""
    text = os.fspath(path)
    return (
        isinstance(text, str)
        and HUB_ID.fullmatch(text) is not None
        and not os.path.lexists(text)
        and not comes_back(Path(text))
    )


def place_of(
    path: str | os.PathLike[str] | None, *, revision: str | None = None, token: str | None = None, download: bool = True
) -> Place:
    """Return where a bundle is: a directory of that path first, a Hub id otherwise.

    Args:
        path: a directory or a Hub id; None for the embedded default.
        revision: branch, tag or commit of a Hub repository.
        token: of the Hub; None for the one that huggingface_hub finds.
        download: whether the Hub is asked for what is not in its cache.

    Raises:
        UsageError: for what is no path, and for a revision or token of what is no Hub repository.
        PathError: when the repository has no manifest, or cannot be had.
    """
    if path is not None and not (isinstance(path, str | os.PathLike) and isinstance(os.fspath(path), str)):
        raise UsageError(
            f"a bundle is named by a directory's path or a Hub id, not {excerpt(path)}: give a text or a Path "
            "(os.fsdecode makes a text of bytes)"
        )
    if path is None or not is_hub_id(path):
        for name, value in (("revision", revision), ("token", token)):
            if value is not None:
                what = "the embedded bundle" if path is None else os.fspath(path)
                raise UsageError(
                    f"a {name} was given, and {what} is not a repository of the Hub, written as owner/name: leave it "
                    "out"
                )
        return Place(directory=default_bundle() if path is None else Path(path))
    return OnHub(name=os.fspath(path), revision=revision, token=token, download=download).place()


def find_bundle(
    path: str, *, revision: str | None = None, token: str | None = None, download: bool, digest: str | None = None
) -> Path:
    """Return the directory of a whole bundle: itself where it is one, else a Hub repository's in the cache.

    Raises:
        UsageError: for a revision or token of what is no Hub repository.
        PathError: when something of it cannot be had.
        BundleError: when it is not a bundle, or one of another digest.
    """
    return place_of(path, revision=revision, token=token, download=download).fetch_all(digest=digest)
