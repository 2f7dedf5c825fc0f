"""Changes to a bundle: files are made in a workspace beside it, which takes long, and committed under its lock.

A commit reads the manifest again under the lock and changes what is there then, so that of two at once none is lost.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.bundle.cards import CARD, read_card
from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.bundle.exchange import sync_directory, sync_file
from bertport.runtime.bundle.golden import FILE as GOLDEN
from bertport.runtime.bundle.golden import listing, read_golden, with_variant
from bertport.runtime.bundle.manifest import FORMAT_VERSION, FileEntry, Manifest, Variant
from bertport.runtime.bundle.recovery import (
    remove_unlisted,
    write_placing,
    writing,
)
from bertport.runtime.bundle.siblings import real, workspaces
from bertport.runtime.bundle.workspace import Workspace, explained, refuse_leaving
from bertport.runtime.bundle.writer import replace_file, write_manifest
from bertport.runtime.errors import BertportError, BundleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bertport.runtime.bundle.golden import Golden, GoldenVariant

__all__ = [
    "add_files",
    "add_variant",
    "change_manifest",
    "files_of",
    "listed",
    "refuse_another",
    "replace_figures",
    "replace_golden",
    "rewrite_card",
    "tidy",
    "upgrade",
]

REFERENCE = "fp32"
"""The variant that others are made of and measured against."""


def tidy(path: str | os.PathLike[str], *, write: bool = True) -> None:
    """Recover a bundle whose writer died: restore it, or remove what is left beside it.

    Args:
        path: The bundle's directory, which may be missing.
        write: Whether to see that the bundle can be written, too, before minutes are spent on a change.

    Raises:
        PathError: when it cannot be written.
        BundleError: when a link leads out of it where files are added to it.
    """
    target = real(Path(path))
    if not workspaces(target) and not (write and target.is_dir()):
        return
    with explained(Path(path)), writing(target):
        if write and target.is_dir() and not os.access(target, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if write and target.is_dir():
            refuse_leaving(Path(path))


def upgrade(path: str | os.PathLike[str]) -> tuple[Bundle, Bundle]:
    """Write a bundle's manifest anew in the format of this version, and no other file.

    Args:
        path: The bundle's directory.

    Returns:
        The bundle as it was and as it is; one is the other where it has that format already.

    Raises:
        PathError: when there is no such bundle, or it cannot be written; it is as it was.
        BundleError: when a file is not as it was exported: a digest would vouch for it.
    """
    tidy(path)
    before = Bundle.open(path)
    if before.format_version == FORMAT_VERSION:
        return before, before

    def checked(now: Bundle) -> Manifest:
        now.verify()
        return now.manifest

    return before, change_manifest(before.path, checked)


def change_manifest(path: Path, change: Callable[[Bundle], Manifest]) -> Bundle:
    """Commit a change to the manifest alone, of the bundle that is there once no other process writes it.

    Args:
        path: The bundle's directory.
        change: Makes the new manifest from the bundle as it is now.

    Returns:
        The bundle as it was committed.

    Raises:
        PathError: when it cannot be written; it is as it was.
    """
    with explained(path), writing(real(path)):
        manifest = change(Bundle.open(path))
        write_manifest(path, manifest)
        return Bundle.open(path)


def add_variant(  # noqa: PLR0913 — what a variant is made of, by keyword
    work: Workspace,
    name: str,
    variant: Variant,
    files: Mapping[str, Path],
    *,
    overwrite: bool = False,
    default: Callable[[Bundle], str | None] | None = None,
    golden: GoldenVariant | None = None,
) -> Bundle:
    """Move files into a bundle and commit them by its manifest.

    A file that replaces a listed one gets a name of its own, so that an interruption at any point leaves the old
    manifest with the old files, or the new one with the new. What golden vectors say of a variant of that name goes
    with it.

    Args:
        work: The workspace that they were made in.
        name: Of the variant.
        variant: Its entry.
        files: Where each file is now, by the path it is to have inside the bundle.
        overwrite: Whether a variant of that name may be replaced.
        default: Chooses the variant to make the default, of the bundle as it is then; None of it to leave it.
        golden: Golden vectors of the variant, which a bundle that has golden vectors is given; None for none.

    Returns:
        The bundle as it was committed.

    Raises:
        UsageError: when the variant is there, and may not be replaced.
        BundleError: when the bundle is another model by now.
        PathError: when there is no room; the bundle is as it was.
    """

    def committed(now: Bundle, entries: dict[str, FileEntry], names: Mapping[str, str]) -> Manifest:
        if name in now.manifest.variants and not overwrite:
            raise UsageError(
                f"another process has added the variant {name!r} to the bundle at {now.path} meanwhile: pass "
                "--overwrite to replace that variant; nothing was changed"
            )
        named = dataclasses.replace(
            variant,
            file=names.get(variant.file, variant.file),
            external_data=tuple(names.get(name, name) for name in variant.external_data),
        )
        changed = _with(now.manifest, name, named, entries, superseded=set(files) | files_of(now.manifest, name))
        chosen = default(now) if default else None
        return dataclasses.replace(changed, default_variant=chosen or changed.default_variant)

    def vectors(now: Bundle) -> Golden | None:
        old = read_golden(now)
        new = with_variant(old, name, golden) if old else None
        return None if new == old else new

    return _commit(work, files, committed, vectors)


def replace_golden(bundle: Bundle, golden: Golden) -> Bundle:
    """Add golden vectors to a bundle, in place of those that it has.

    Args:
        bundle: As it was when they were made.
        golden: The vectors; those of a variant that another process has made again meanwhile are left out. What that
            process has written of it, or of a new one, stays if it is of the same batches.

    Raises:
        BundleError: when the bundle is another model by now.
        PathError: when the bundle cannot be written; it is as it was.
    """

    def vectors(now: Bundle) -> Golden:
        same = {
            name
            for name in now.manifest.variants.keys() & bundle.manifest.variants.keys()
            if now.manifest.hashes_of(name) == bundle.manifest.hashes_of(name)
        }
        made = golden.of(same)
        with suppress(BundleError):  # what cannot be read goes
            known = read_golden(now)
            if known and (known.texts, known.batches) == (golden.texts, golden.batches):
                others = known.of(now.manifest.variants.keys() - same)
                return dataclasses.replace(made, variants=others.variants | made.variants)
        return made

    with Workspace.beside(bundle) as work:
        return _commit(work, {}, lambda now, _entries, _names: now.manifest, vectors)


def replace_figures(bundle: Bundle, name: str, variant: Variant, *, default: Callable[[Bundle], str]) -> Bundle:
    """Commit new figures of a variant whose files stay as they are.

    Figures on labelled data that another process has recorded meanwhile stay.

    Args:
        bundle: As it was when the variant was measured.
        name: Of the variant.
        variant: Its entry.
        default: Chooses the variant to make the default, of the bundle as it is then.

    Raises:
        BundleError: when the variant, or the whole bundle, is another by now.
        PathError: when the bundle cannot be written; it is as it was.
    """

    def change(now: Bundle) -> Manifest:
        refuse_another(bundle, now)
        then = bundle.manifest.variants[name]
        measured = (then.file, *then.external_data)
        if name not in now.manifest.variants or _entries(bundle, measured) != _entries(now, measured):
            raise BundleError(
                f"another process has replaced the variant {name!r} of the bundle at {now.path} during the "
                "measurement: measure the variant again; nothing was changed"
            )
        known, recorded = then.task_metrics, now.manifest.variants[name].task_metrics
        on_tasks = {data: entry for data, entry in variant.task_metrics.items() if known.get(data) != entry}
        merged = dataclasses.replace(variant, task_metrics=recorded | on_tasks)
        return dataclasses.replace(
            now.manifest, variants=now.manifest.variants | {name: merged}, default_variant=default(now)
        )

    return change_manifest(bundle.path, change)


def add_files(bundle: Bundle, write: Callable[[Path], Mapping[str, Path]]) -> Bundle:
    """Add files that belong to no variant's graph; `write` makes them in a directory it is given.

    Those that another process has added meanwhile stay as they are.

    Raises:
        BundleError: when the bundle is another model by now.
        PathError: when the bundle cannot be written; it is as it was.
    """

    def committed(now: Bundle, entries: dict[str, FileEntry], names: Mapping[str, str]) -> Manifest:
        added = {_stem(name) for name in set(now.manifest.files) - set(bundle.manifest.files)}
        entries = {names[path]: entries[names[path]] for path in names if _stem(path) not in added}
        stems = {_stem(name) for name in entries}
        kept = {path: entry for path, entry in now.manifest.files.items() if _stem(path) not in stems}
        return dataclasses.replace(now.manifest, files=dict(sorted((kept | entries).items())))

    with Workspace.beside(bundle) as work:
        with explained(bundle.path):
            made = write(work.directory)
        return _commit(work, made, committed)


def listed(manifest: Manifest, path: str) -> str | None:
    """Return the name of a listed file that was added as `path`: that, or one with a number; None where none was."""
    return next((name for name in manifest.files if path in (name, _stem(name))), None)


def rewrite_card(path: Path, rewrite: Callable[[str, Manifest], str]) -> None:
    """Rewrite README.md from what it says and the manifest of now.

    The card is not part of what the manifest vouches for, so that a failure here is no failure of the change.
    """
    with suppress(OSError, ValueError, MemoryError, BertportError), writing(real(path)):
        old = (read_card(path) or b"").decode()
        replace_file(path, CARD, rewrite(old, Bundle.open(path).manifest).encode())


def _commit(
    work: Workspace,
    files: Mapping[str, Path],
    committed: Callable[[Bundle, dict[str, FileEntry], Mapping[str, str]], Manifest],
    vectors: Callable[[Bundle], Golden | None] = lambda _: None,
) -> Bundle:
    """Move files into the bundle and write its manifest, or leave it as it is.

    Args:
        work: The workspace.
        files: Where each file is now, by the path it is to have inside the bundle.
        committed: Makes the manifest of the bundle as it is then, the files' entries and their names in the bundle.
        vectors: Makes its golden vectors, of the bundle as it is then; None of it to leave them.
    """
    path = work.bundle.path
    with explained(path):
        # Hashed and on the disk before the lock is taken, which others wait for.
        sources = {name: FileEntry(size=file.stat().st_size, sha256=file_sha256(file)) for name, file in files.items()}
        for file in files.values():
            sync_file(file)
        with writing(real(path)):
            now = Bundle.open(path)
            refuse_another(work.bundle, now)
            names = work.names(files, now.manifest)
            entries = {names[name]: entry for name, entry in sources.items()}
            manifest = committed(now, entries, names)
            placed = {names[name]: file for name, file in files.items()}
            if golden := vectors(now):  # some thousand bytes, of what the lock keeps as it is
                name, file = work.names([GOLDEN], now.manifest)[GOLDEN], work.directory / GOLDEN
                file.write_bytes(golden.to_bytes())
                sync_file(file)
                entries[name] = FileEntry(size=file.stat().st_size, sha256=file_sha256(file))
                placed[name] = file
                manifest = listing(manifest, name, entries[name])
            _place(work, placed, entries, now.manifest, manifest)
            return Bundle.open(path)


def _place(
    work: Workspace, files: Mapping[str, Path], entries: Mapping[str, FileEntry], old: Manifest, manifest: Manifest
) -> None:
    """Move files into the bundle, write the manifest, and remove what it does not list any more.

    The files that come and those that go are noted before: after a failure, or when this process is killed, those
    that the manifest of then does not list are removed.
    """
    path = work.bundle.path
    going = {name: entry for name, entry in old.files.items() if name not in manifest.files}
    refuse_leaving(path, {str(PurePosixPath(name).parent) for name in files})
    write_placing(work.working.path, {**entries, **going})
    try:
        for name, source in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            source.replace(path / name)
        for folder in {(path / name).parent for name in files}:
            sync_directory(folder)
        write_manifest(path, manifest)
        for name in going:
            with suppress(OSError):  # it only takes up room
                (path / name).unlink(missing_ok=True)
    finally:
        remove_unlisted(path, work.working.path)


def refuse_another(then: Bundle, now: Bundle) -> None:
    """Refuse a bundle in which another export has taken the place of the one that was measured.

    Raises:
        BundleError: when its fp32 graph, or a text beside it such as the tokenizer, differs.
    """
    reference, golden = then.manifest.variants.get(REFERENCE), then.manifest.golden_vectors
    graph = (reference.file, *reference.external_data) if reference else ()
    texts = {name for name in then.manifest.files if "/" not in name}
    names = {*graph, *texts} - ({golden.file} if golden else set())  # which say something of every variant
    if _entries(then, names) != _entries(now, names):
        raise BundleError(
            f"another process has put another model at {now.path} meanwhile: start again; nothing was changed"
        )


def _entries(bundle: Bundle, names: Iterable[str]) -> dict[str, FileEntry | None]:
    return {name: bundle.manifest.files.get(name) for name in names}


def files_of(manifest: Manifest, name: str) -> set[str]:
    """Return the files of the variant of this name: its graph, its weights, and the tables of how it was made."""
    if name not in manifest.variants:
        return set()
    tables = {path for path in manifest.files if _stem(path).startswith(f"quantization/{name}.")}
    return {manifest.variants[name].file, *manifest.variants[name].external_data, *tables}


def _with(
    manifest: Manifest, name: str, variant: Variant, entries: Mapping[str, FileEntry], *, superseded: set[str]
) -> Manifest:
    stems = {_stem(path) for path in superseded}
    others = {
        path for key, other in manifest.variants.items() if key != name for path in (other.file, *other.external_data)
    }
    kept = {
        path: entry
        for path, entry in manifest.files.items()
        if _stem(path) not in stems or path in entries or path in others
    }
    return dataclasses.replace(
        manifest, variants=manifest.variants | {name: variant}, files=dict(sorted((kept | dict(entries)).items()))
    )


def _stem(path: str) -> str:
    """Return a path without the number that `Workspace.reserve` gave it."""
    pure = PurePosixPath(path)
    stem, dash, number = pure.stem.rpartition("-")
    return str(pure.with_name(f"{stem}{pure.suffix}")) if dash and number.isdigit() else path
