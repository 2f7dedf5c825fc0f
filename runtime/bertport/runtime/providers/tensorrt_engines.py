"""TensorRT's engines: the shapes they are built for, where they are kept, and reports while one is being built.

Building takes minutes, so an engine is kept, in a directory whose name is a hash of everything it depends on: a change
of any leaves the old one alone and builds another.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.batching import buckets
from bertport.runtime.errors import PathError
from bertport.runtime.heads import POSITIONS
from bertport.runtime.providers import native
from bertport.runtime.providers import options as provider_options
from bertport.runtime.providers.table import onnxruntime
from bertport.runtime.user_caches import user_caches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bertport.runtime.providers.table import Provider

__all__ = ["Engine", "announced", "cache_directory", "engine_for", "engine_here", "key", "profile"]

_LOG = logging.getLogger(__name__)
TYPICAL = 128
"""The length of which kernels are chosen to be fastest: paragraphs are near it."""
EVERY = 15.0
"""Seconds between reports of an engine that is being built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Directory of an engine, and the options that make ONNX Runtime use it."""

    directory: Path
    """Holds the engine and the timing cache."""
    options: Mapping[str, str]
    """Provider options: shapes and places."""

    @property
    def cold(self) -> bool:
        """Whether it is still to be built."""
        return not any(self.directory.glob("*.engine"))


def profile(inputs: frozenset[str], *, max_length: int, batch_tokens: int, batch_rows: int) -> dict[str, str]:
    """Return the optimization profile that covers every batch the runtime makes, from the bundle's length buckets.

    One profile from the shortest to the longest bucket, and not one per bucket: ONNX Runtime's TensorRT provider builds
    several but runs only the first (ort#31624).

    Args:
        inputs: names of the graph's inputs.
        max_length: longest input of the bundle, in tokens.
        batch_tokens: most tokens in a batch.
        batch_rows: most inputs in a batch.
    """
    lengths = buckets(max_length)
    longest = lengths[-1]
    typical = min(TYPICAL, longest)
    few = max(1, min(batch_rows, batch_tokens // typical) // 8)
    shapes = {
        "min": (1, 1, 1),
        "opt": (few, typical, few),
        # The corner, all rows at full length, is never run; every token may be one to decode.
        "max": (batch_rows, longest, max(batch_tokens, longest)),
    }
    options = {}
    for name, (count, length, positions) in shapes.items():
        sizes = [f"{given}:{positions}" if given == POSITIONS else f"{given}:{count}x{length}" for given in inputs]
        options[f"trt_profile_{name}_shapes"] = ",".join(sorted(sizes))
    return options


def key(facts: Mapping[str, object]) -> str:
    """Return the name of an engine's directory: a hash of everything that the engine depends on."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_directory() -> Path:
    """Return the directory of the user's caches that engines are kept in (XDG_CACHE_HOME is honoured).

    Raises:
        PathError: for a user without a home directory, as in some containers, where no other place is given.
    """
    return user_caches("TensorRT's engines", "set XDG_CACHE_HOME to a directory that can be written") / "tensorrt"


def engine_for(  # noqa: PLR0913 — each is one thing that the engine depends on
    provider: Provider,
    *,
    precision: str,
    hashes: Mapping[str, str],
    max_length: int,
    inputs: frozenset[str],
    given: Mapping[str, object],
    gpu: str,
    versions: Mapping[str, str],
) -> Engine:
    """Return the engine of a graph: its options, and the directory that it is kept in.

    Args:
        provider: the row of TensorRT.
        precision: how products are to be computed, as manifests call it.
        hashes: SHA-256 of the graph's files, by path.
        max_length: longest input of the bundle, in tokens.
        inputs: names of the graph's inputs.
        given: provider options of the user, which override those made here.
        gpu: name and compute capability of the GPU: an engine runs on no other.
        versions: of TensorRT, ONNX Runtime and whatever else decides what is built.

    Raises:
        UsageError: for an option of the user that has TensorRT compute in another precision.
    """
    options = profile(inputs, max_length=max_length, batch_tokens=provider.batch_tokens, batch_rows=provider.batch_rows)
    settled = provider_options.settle(
        provider.name,
        precision,
        row={**provider.options, **options},
        given=provider_options.checked(provider.name, given, provider.allowed),
        computes=provider.computes.get(precision, {}),
    )
    facts = {"graph": dict(hashes), "options": settled, "gpu": gpu, "versions": dict(versions)}
    directory = cache_directory() / key(facts)
    # The timing cache knows nothing of graphs: it is shared by all engines of one GPU and version.
    timing = cache_directory() / f"timing-{key({'gpu': gpu, 'versions': dict(versions)})}"
    options |= {"trt_engine_cache_path": str(directory), "trt_timing_cache_path": str(timing)}
    return Engine(directory=Path(str(given.get("trt_engine_cache_path", directory))), options=options)


def engine_here(  # noqa: PLR0913 — as `engine_for`
    provider: Provider,
    *,
    precision: str,
    hashes: Mapping[str, str],
    max_length: int,
    inputs: Iterable[str],
    serving: bool,
    given: Mapping[str, object],
) -> Engine:
    """Return the engine of a graph on this machine's GPU; a serving graph has the input `POSITIONS` as well."""
    names = {*inputs, *((POSITIONS,) if serving else ())}
    devices = native.driver().devices
    said = provider_options.checked(provider.name, given, provider.allowed).get("device_id", "0")
    numbered = {str(number): f"{device.name} {device.capability}" for number, device in enumerate(devices)}
    gpu = numbered.get(said, "unknown")  # which ONNX Runtime refuses
    versions = {"onnxruntime": onnxruntime().__version__, **native.library_versions()}
    return engine_for(
        provider,
        precision=precision,
        hashes=hashes,
        max_length=max_length,
        inputs=frozenset(names),
        given=given,
        gpu=gpu,
        versions=versions,
    )


@contextmanager
def announced(engine: Engine, variant: str) -> Iterator[None]:
    """Report on standard error that an engine is being built, for how long it has been, and when it is done.

    Log records and not Python warnings, as for variants that were measured elsewhere: nothing is wrong.

    Raises:
        PathError: when its directory cannot be made.
    """
    if not engine.cold:
        yield
        return
    for place in (engine.directory, Path(engine.options["trt_timing_cache_path"])):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PathError(
                f"the TensorRT engine of variant {variant!r} cannot be kept in {place} ({error.strerror}): set "
                "XDG_CACHE_HOME to a directory that can be written"
            ) from error
    began, done = time.monotonic(), threading.Event()
    _LOG.warning(
        "bertport: building a TensorRT engine for variant %r, which takes minutes, once; kept in %s",
        variant,
        engine.directory,
    )

    def report() -> None:
        while not done.wait(EVERY):
            _LOG.warning("bertport: still building, %.0f s", time.monotonic() - began)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    _LOG.warning("bertport: the engine was built in %.0f s", time.monotonic() - began)
