"""Location of a checkpoint: a local directory, or a Hub repository in huggingface_hub's cache."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.files import open_regular, read_bounded
from bertport.runtime.bundle.hub import reason_of, refuse_empty
from bertport.runtime.errors import BundleError, CheckpointError, PathError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "UNMATCHED",
    "Located",
    "Part",
    "copy_small_files",
    "fetch_below",
    "locate",
    "parsed",
    "read_json",
    "read_part",
    "read_whole",
]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
SMALL_FILES = (
    "config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "README.md",
    "adapter_config.json",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
)
"""Patterns of a checkpoint's files beside its weights."""
WEIGHT_PATTERNS = (
    ("model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"),
    ("pytorch_model*.bin*", "adapter_model.bin"),
)
"""Patterns of weight files to fetch, in order of preference: the second is asked for only where the first does not give
one of `SAFE`. An adapter is fetched so that the folder of an error about it can be given to `--adapter`."""
SAFE = ("model.safetensors", "model.safetensors.index.json")
"""Files one of which is there where the weights are in safetensors; `model.fp16.safetensors` alone is not read."""

LARGEST = 256 * 2**20
"""Bytes of a file that is read whole; the largest tokenizer.json has some 30 MB."""
REMEDY = "restore the checkpoint's file"
UNMATCHED = "the two do not belong together; copy both from one checkpoint"
"""End of an error on files that contradict each other, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One module of a model of sentence-transformers, as modules.json lists it."""

    type: str
    """Its class, with the package that the class is in."""
    directory: Path
    """Directory of its files."""

    @property
    def kind(self) -> str:
        """The name of its class."""
        return self.type.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A checkpoint directory on this machine."""

    directory: Path
    """Directory of its files."""
    name: str
    """Hub id, or the name of the local directory."""
    revision: str | None
    """Commit of the Hub repository; None for a local directory."""
    origins: tuple[Path, ...] = ()
    """Files that the weights come from, where they are not those of the directory."""
    notes: tuple[str, ...] = ()
    """Sentences on what was left out on the way to the directory."""
    title: str | None = None
    """Name of the bundle where none is given; None where `name` is to be taken."""
    card: Path | None = None
    """Path of the README.md, where it is in another directory."""
    parts: tuple[Part, ...] = ()
    """The modules of a model of sentence-transformers, the encoder first; none for another checkpoint."""
    tokenizer: Any = None
    """The tokenizer of a model in memory, as it was given; None where the directory's files are what there is."""


def locate(source: str, revision: str | None = None) -> Located:
    """Find a checkpoint: a directory of that path first, a Hub id otherwise.

    Args:
        source: path of a directory, or a Hub id such as `google-bert/bert-base-uncased`.
        revision: branch, tag or commit of the Hub repository.

    Raises:
        PathError: when there is no such directory and no such repository can be reached.
        UsageError: for a revision of a local directory, and for one that is empty.
        CheckpointError: when the path is a file.
    """
    path = Path(source)
    if path.is_dir():
        if revision is not None:
            raise UsageError(
                f"--revision {revision} was given but {source} is a local directory, which has none: leave it out"
            )
        return Located(directory=path, name=path.resolve().name, revision=None)
    if path.exists():
        raise CheckpointError(f"{source} is a file: give the checkpoint's directory, the one that holds config.json")
    if not HUB_ID.fullmatch(source):
        raise PathError(
            f"no checkpoint at {source}: no such directory, and not the form of a Hub id: give a directory, or "
            "owner/name"
        )
    refuse_empty(revision)
    return _from_hub(source, revision)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: when the file is missing, unreadable or not a JSON object.
    """
    value = parsed(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__} where a JSON object is expected: {REMEDY}")
    return value


def parsed(path: Path) -> Any:  # noqa: ANN401 — whatever JSON holds
    """Return the value that a JSON file holds.

    Raises:
        CheckpointError: when the file is missing, unreadable or not JSON.
    """
    content = read_whole(path)
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}): {REMEDY}") from error


def read_whole(path: Path) -> bytes:
    """Read a regular file of a checkpoint.

    Raises:
        CheckpointError: when it is missing, cannot be read, is no regular file or is larger than any of its kind.
    """
    content = read_part(path, LARGEST)
    if len(content) > LARGEST:
        raise CheckpointError(
            f"{path} has more than {LARGEST:,} bytes, which no file of a tokenizer or config has: {REMEDY}"
        )
    return content


def read_part(path: Path, most: int) -> bytes:
    """Read a regular file of a checkpoint, or `most` bytes and one more where it has more.

    Raises:
        CheckpointError: when it is missing, cannot be read or is no regular file.
    """
    try:
        with open_regular(path) as file:
            return read_bounded(file, most)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is not a checkpoint: it has no {path.name}") from None
    except BundleError as error:
        raise CheckpointError(
            f"{str(error).removesuffix(': copy the bundle again, or export again')}: {REMEDY}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}): {REMEDY}") from error


def copy_small_files(origin: Path, directory: Path, config: Mapping[str, Any], *, without: str | None = None) -> None:
    """Copy the files beside a checkpoint's weights, config.json with other content.

    Args:
        origin: the checkpoint.
        directory: where the copies go.
        config: the content of config.json there.
        without: the name of a file that is not copied; None for none.

    Raises:
        CheckpointError: when a file cannot be read.
    """
    for pattern in SMALL_FILES:
        for path in origin.glob(pattern):
            if path.name != without:
                (directory / path.name).write_bytes(read_whole(path))
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def fetch_below(located: Located, below: str) -> None:
    """Fetch the checkpoint in a folder of a Hub repository.

    Args:
        located: the repository, at its commit.
        below: the folder's path.

    Raises:
        PathError: when the Hub cannot be reached.
    """
    _from_hub(located.name, located.revision, below)


def _from_hub(name: str, revision: str | None, below: str = "") -> Located:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    asked = f"{name}@{revision}" if revision else name
    directory = Path()
    try:
        for patterns in WEIGHT_PATTERNS:
            wanted = [str(PurePosixPath(below, pattern)) for pattern in (*SMALL_FILES, *patterns)]
            directory = Path(snapshot_download(name, revision=revision, allow_patterns=wanted, tqdm_class=_bar()))
            if any((directory / below / file).is_file() for file in SAFE):
                break
    except LocalEntryNotFoundError as error:
        why = (
            "offline mode is on and it is not in the cache" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        )
        raise PathError(
            f"no checkpoint {asked}: there is no directory of that name, and {why}: give a local directory"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise PathError(
            f"no checkpoint {asked}: there is no directory of that name, and the Hub answered: {reason}"
        ) from error
    except Exception as error:  # the disk's, the HTTP library's and Xet's, such as that of a connection that is reset
        raise PathError(
            f"no checkpoint {asked}: there is no directory of that name, and the Hub cannot be read "
            f"({reason_of(error)}): try again, or give a local directory"
        ) from error
    # A snapshot's directory is named after its commit.
    return Located(directory=directory, name=name, revision=directory.name)


def _bar() -> type[Any]:
    """Return the class of a download's progress bar, which leaves the line after it to whatever is said next.

    huggingface_hub before 1.0 draws its own on pipes and files too; and where a file fails, the threads of the others
    draw theirs again once it is closed, so that a message would follow on its line.
    """
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        ended = False

        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 — whatever tqdm takes
            options.setdefault("disable", None)  # None: only on a terminal
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]  # it says no types

        def close(self) -> None:
            with self.get_lock():
                super().close()
                self.ended = True

        def display(self, *args: Any, **options: Any) -> bool:  # noqa: ANN401 — whatever tqdm takes
            return not self.ended and bool(super().display(*args, **options))

    return Bar
