"""Pushing: a bundle becomes a repository of the Hub, in one commit, with a card that states its digest.

Every file is checked before the Hub is asked, what the Hub has already is not sent again, and the commit is looked at
once it is made: a repository is a bundle, or it is as it was.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bertport.runtime.bundle.cards import CARD, read_card
from bertport.runtime.bundle.directory import MANIFEST, Bundle, manifest_content
from bertport.runtime.bundle.hub import HUB_ID, patience, reason_of, refuse_empty, refuse_no_token
from bertport.runtime.bundle.hub_card import hub_card, states_all, was_edited
from bertport.runtime.bundle.reading import read_manifest
from bertport.runtime.errors import BertportError, BundleError, MissingDependencyError, PathError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo, RepoFile

__all__ = ["Pushed", "bars", "push"]

IGNORED = ".gitignore"
"""A repository that has one: the Hub leaves out of a commit what it names, without a word."""
UNASKED = frozenset({".gitattributes", CARD})
"""Files that a repository may have before it is anything."""
LONGEST_ANSWER = 400
"""Characters of what the Hub says that are quoted."""
LOGIN = "give a token that may write there, as HF_TOKEN, by hf auth login, or with --token"
UNAUTHORISED = frozenset({401, 403})
CONFLICT = frozenset({409, 412})
"""HTTP statuses of the Hub where the repository is not in the state that the commit expects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """Result of a push: the repository, its commit, and the files sent and removed."""

    repository: str
    """`owner/name`."""
    revision: str
    """The branch."""
    commit: str
    """The commit that holds the bundle."""
    url: str
    """The page of the repository."""
    digest: str
    """The bundle's digest."""
    created: bool
    """Whether the repository was made for it."""
    files: int
    """Number of files of the bundle, its manifest and card included."""
    sent: tuple[str, ...]
    """Files that the repository lacked, or had with other content."""
    sent_bytes: int
    """Their size."""
    removed: tuple[str, ...]
    """Files of the bundle that was there before, which this one does not have."""


def push(  # noqa: PLR0913 — one parameter per option
    path: str | os.PathLike[str],
    repository: str,
    *,
    revision: str | None = None,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
    overwrite: bool = False,
    digest: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Pushed:
    """Push a bundle to a repository of the Hub.

    The repository is made where there is none, and so is the branch. Files that the manifest does not list stay here.
    Of the bundle that the repository held before, what this one lacks is removed in the same commit; every other file
    of the repository is left alone.

    Args:
        path: the bundle's directory.
        repository: `owner/name`.
        revision: the branch; None for the main one.
        private: whether a repository that is made is private; one that is there and public is refused then.
        token: of the Hub; None for what huggingface_hub finds: HF_TOKEN, or its login.
        message: of the commit; None for one that names the bundle and its digest.
        overwrite: whether a repository may be pushed to that holds files and no bundle, or a card that was written
            or edited there.
        digest: the digest that the bundle must have; None for any.
        progress: told what is done, before it is.

    Raises:
        UsageError: for what is no `owner/name`, an empty revision, what is no token, or a public repository that was to
            be private.
        PathError: when there is no such bundle, when the Hub cannot be reached or refuses, and when the card there was
            written or edited there.
        BundleError: when the bundle does not verify, and when the Hub's commit is not the bundle.
        MissingDependencyError: without huggingface_hub.
    """
    if not HUB_ID.fullmatch(repository):
        raise UsageError(f"{repository!r} is not a repository of the Hub: write it as owner/name")
    refuse_empty(revision)
    refuse_no_token(token)
    tell = progress or (lambda _: None)
    bundle = Bundle.open(path, digest=digest)
    target = _Target(repository=repository, revision=revision, token=token)  # what it lacks is said at once
    tell("checking files")
    bundle.verify()
    content = _contents(bundle, target)
    tell(f"asking {target.api.endpoint}")
    with target.errors():
        head, created = target.prepare(private=private)
        there = target.files(head)
        old = _refuse_other(target, head, there, overwrite=overwrite)
        if CARD in there and not (overwrite or content[CARD].is_there(there[CARD])):
            _refuse_edited(bundle, target, target.read(CARD, head), content[CARD])
        new = {name: entry for name, entry in content.items() if not entry.is_there(there.get(name))}
        removed = tuple(sorted((old - set(content)) & set(there)))
        size = sum(entry.size for entry in new.values())
        if new or removed:
            tell(f"sending {len(new)} of {len(content)} files, {size / 1e6:,.1f} MB")
            said = message or f"Push {' '.join(bundle.manifest.name.split())}, {bundle.digest}"
            head = target.commit(new, removed, message=said, parent=head)
            _check(bundle, target, content, head)
    return Pushed(
        repository=repository,
        revision=target.branch,
        commit=head,
        url=f"{target.api.endpoint}/{repository}",
        digest=bundle.digest,
        created=created,
        files=len(content),
        sent=tuple(new),
        sent_bytes=size,
        removed=removed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A file to be in the repository."""

    size: int
    sha256: str
    source: Any
    """Its path, or its content."""
    git: str | None
    """The name that git gives the content; None for a file that is too large for the Hub to keep in git."""

    def is_there(self, file: RepoFile | None) -> bool:
        """Return whether a file of the repository is this one."""
        if file is None or file.size != self.size:
            return False
        return bool(file.lfs.sha256 == self.sha256) if file.lfs else file.blob_id == self.git


LARGEST_IN_GIT = 32 << 20
"""Bytes of a file whose content is hashed as git does; the Hub keeps none of more than 10 MB so."""


def _contents(bundle: Bundle, target: _Target) -> dict[str, _Entry]:
    """Return what the repository is to hold, by name: the listed files, the manifest as it was read, and the card."""
    entries = {}
    for name, entry in bundle.manifest.files.items():
        content = bundle.read(name) if entry.size <= LARGEST_IN_GIT else None
        entries[name] = _Entry(
            size=entry.size,
            sha256=entry.sha256,
            source=bundle.file(name),
            git=None if content is None else _git_name(content),
        )
    for name, content in ((MANIFEST, _manifest(bundle)), (CARD, _card(bundle, target).encode())):
        entries[name] = _Entry(
            size=len(content), sha256=hashlib.sha256(content).hexdigest(), source=content, git=_git_name(content)
        )
    return entries


def _git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def _manifest(bundle: Bundle) -> bytes:
    """Return the bytes of the manifest, which have to be those of the digest that was read."""
    content = manifest_content(bundle.path)
    if read_manifest(content).digest != bundle.digest:
        raise BundleError(f"{bundle.path} was changed while it was pushed: push it again")
    return content


def _card(bundle: Bundle, target: _Target) -> str:
    try:
        content = read_card(bundle.path)
        text = None if content is None else content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{bundle.path / CARD} cannot be read ({error}): write it in UTF-8, or remove it") from error
    return hub_card(bundle, text, target.repository, revision=target.revision)


def _refuse_other(target: _Target, head: str, there: dict[str, RepoFile], *, overwrite: bool) -> set[str]:
    """Return the files of the bundle that a repository holds, if it does.

    Raises:
        PathError: where it holds something else, unless it may be written into, or the Hub would leave out files.
    """
    if IGNORED in there:
        raise PathError(
            f"{target.title} has a {IGNORED}, which makes the Hub leave files out of a commit: remove it there first"
        )
    if MANIFEST in there:
        try:
            return set(read_manifest(target.read(MANIFEST, head)).manifest.files)
        except BundleError:
            pass
    others = sorted(set(there) - UNASKED)
    if others and not overwrite:
        raise PathError(
            f"{target.title} holds {others[0]}{f' and {len(others) - 1} other files' if len(others) > 1 else ''}, and "
            "no bundle: choose another name, or --overwrite to put the bundle beside them"
        )
    return set()


def _refuse_edited(bundle: Bundle, target: _Target, there: bytes, card: _Entry) -> None:
    """Refuse to replace a card that was written or edited on the Hub, unless the bundle's says the same.

    Raises:
        PathError: for such a card.
    """
    text = there.decode("utf-8", errors="replace")
    if not was_edited(text) or states_all(text, card.source.decode()):
        return
    try:
        same = hub_card(bundle, text, target.repository, revision=target.revision).encode() == card.source
    except BundleError:  # metadata that cannot be read: there, and not in the bundle
        same = False
    if not same:
        raise PathError(
            f"the {CARD} of {target.title} was written or edited there, and would be replaced: copy what is to be kept "
            f"into {bundle.path / CARD}, and push with --overwrite"
        )


def _check(bundle: Bundle, target: _Target, content: dict[str, _Entry], head: str) -> None:
    there = target.files(head)
    for name, entry in content.items():
        if not entry.is_there(there.get(name)):
            raise BundleError(
                f"{target.title} has {'another' if name in there else 'no'} {name} after the commit {head}, unlike "
                f"the bundle at {bundle.path}: push it again"
            )


@contextmanager
def bars(*, shown: bool) -> Iterator[None]:
    """Hide huggingface_hub's own bars in a block unless they are to be shown: elsewhere than on a terminal."""
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
    except ModuleNotFoundError:  # which `push` says
        yield
        return
    if shown or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:  # the user's own choice
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


class _Target:
    """A branch of a repository.

    Args:
        repository: `owner/name`.
        revision: the branch; None for the main one.
        token: None for what huggingface_hub finds.

    Raises:
        MissingDependencyError: without huggingface_hub.
    """

    def __init__(self, *, repository: str, revision: str | None, token: str | None) -> None:
        try:
            from huggingface_hub import HfApi, constants
        except ModuleNotFoundError as error:
            raise MissingDependencyError("push", error.name or "huggingface_hub", "hub") from error
        self.repository = repository
        self.revision = revision
        self.branch = revision or constants.DEFAULT_REVISION
        self.title = repository if revision is None else f"{repository}@{revision}"
        self.api: HfApi = HfApi(token=token, library_name="bertport")
        if constants.HF_HUB_OFFLINE:
            raise PathError(f"cannot push to {self.title} while offline mode is on: unset HF_HUB_OFFLINE")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Make one sentence of what the Hub or the way to it says."""
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        refused = f"cannot push to {self.title}:"
        try:
            yield
        except BertportError:
            raise
        except HfHubHTTPError as error:
            self._refused(error)
        except (HFValidationError, ValueError) as error:  # the card's metadata, which the Hub looks at first
            raise PathError(f"{refused} {_one_line(error)}") from error
        except Exception as error:  # the error's class is that of the HTTP library, which changed twice
            cause = error.__cause__ if isinstance(error, RuntimeError) else None  # of a thread that sends a file
            if isinstance(cause, HfHubHTTPError):
                self._refused(cause)
            if isinstance(error, OSError) and error.filename:
                raise PathError(f"{refused} {error.filename} cannot be read ({error.strerror})") from error
            raise PathError(
                f"{refused} the Hub cannot be reached ({reason_of(error)}): try again; what arrived is kept"
            ) from error

    def _refused(self, error: HfHubHTTPError) -> NoReturn:
        status = getattr(error.response, "status_code", None)
        advice = "look at the repository's page"
        if status in UNAUTHORISED:
            advice = LOGIN
        elif status in CONFLICT:
            advice = "somebody else has changed it meanwhile: push again"
        raise PathError(f"cannot push to {self.title}: the Hub answered: {_one_line(error)}: {advice}") from error

    def prepare(self, *, private: bool) -> tuple[str, bool]:
        """Return the commit at the head of the branch, and whether the repository was made for it.

        Raises:
            UsageError: for a public one that was to be private.
        """
        known = self._known()
        created = known is None
        if known is None:
            self.api.create_repo(self.repository, private=private, exist_ok=True)
            known = self.api.model_info(self.repository)
        if private and not known.private:
            raise UsageError(
                f"{self.repository} is there already and public: make it private on the Hub first, or leave --private "
                "out"
            )
        if self.revision is not None:
            known = self._known(self.revision)
            if known is None:
                self.api.create_branch(self.repository, branch=self.revision)
                known = self.api.model_info(self.repository, revision=self.revision)
        return str(known.sha), created

    def _known(self, revision: str | None = None) -> ModelInfo | None:
        """Return what the Hub says of the repository, or of a branch of it; None where there is none.

        Nothing is made while that error is handled: a later one would seem to come of it.
        """
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:  # what is asked with a timeout is not asked again
            return self.api.model_info(self.repository, revision=revision, timeout=patience())
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None

    def files(self, commit: str) -> dict[str, RepoFile]:
        """Return what a commit holds, by name."""
        from huggingface_hub.hf_api import RepoFile

        tree = self.api.list_repo_tree(self.repository, recursive=True, revision=commit)
        return {file.path: file for file in tree if isinstance(file, RepoFile)}

    def read(self, name: str, commit: str) -> bytes:
        """Return the content of a file of a commit."""
        return Path(self.api.hf_hub_download(self.repository, name, revision=commit)).read_bytes()

    def commit(self, new: dict[str, _Entry], removed: tuple[str, ...], *, message: str, parent: str) -> str:
        """Send files, and return the commit in which they are; nothing changes where another one came first."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations: list[Any] = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=entry.source) for name, entry in new.items()
        ]
        operations += [CommitOperationDelete(path_in_repo=name, is_folder=False) for name in removed]
        done = self.api.create_commit(
            self.repository, operations, commit_message=message, revision=self.branch, parent_commit=parent
        )
        return str(done.oid)


def _one_line(error: Exception) -> str:
    """Return what the Hub said: the last line of an error, which is its own."""
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip()]
    return lines[-1][:LONGEST_ANSWER].rstrip(".") if lines else type(error).__name__
