"""Memory: what this process may use, what a model needs, and the plan that keeps to a bound.

A bound is on the resident memory of the whole process. What it holds before a model's first run is measured, the
model's sessions included: they depend on how ONNX Runtime packs each recipe's weights. What a run adds is
estimated for the worst inputs, from the manifest and the factors below (`bench/memory.py` compares the estimate with
measurements).
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.control_groups import GROUPS, ROOT, limit_files
from bertport.runtime.errors import UsageError
from bertport.runtime.heads import LABEL, SEQUENCE, decoded_outputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bertport.runtime.bundle.manifest import Manifest

__all__ = [
    "MemoryPlan",
    "check_usable",
    "make_room",
    "opening",
    "parse_memory",
    "plan_memory",
    "release_pages",
    "resident_memory",
    "return_freed",
    "running",
    "score_copies",
    "too_little",
    "usable_memory",
    "use_one_heap",
    "written",
]

MIB = 1 << 20
UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
"""Powers of two: a container's `512M` is 512 x 2**20 bytes."""
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)

PART = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s*(/.*)?")
"""First line of a part of the address space: where it begins and ends, what may be done with it, and its file."""

POSITIONS = (256, 128, 64, 32, 16)
"""Numbers of positions that are tried under a bound. With few, a batch of many masks is encoded several times over:
such batches are rare, and slow is better than refused."""
FEWEST_POSITIONS = 64
"""Fewest positions of a plan with several streams or a large batch: with fewer, a batch of text of which 15% is masked
takes several runs, and the streams gain nothing."""

FLOAT = 4
"""Bytes of a float32."""
COPIES = {"int8-dynamic": (1, 5), "int8": (3, 5), "": (3, 3)}
"""Copies of attention's scores `[rows, heads, length, length]` and logits `[positions, vocabulary]` in memory, by the
prefix of the recipe: a fused operator of the first recipe keeps the scores once; products in 8 bits are kept as whole
numbers, as floating point, and scaled and biased."""
OF_SCORES = {"Softmax": 3, "GatherElements": 1}
"""Copies of attention's scores, in any recipe, for operators of attention that is not fused: its own, and what gathers
scores by the distance of two tokens (6 x 512 tokens took 493 MB with it and 249 without, of two layers of width 384
with 12 heads)."""
INNER = 4
"""Copies of the feed-forward layer's `[tokens, intermediate]`: before and after its activation, and quantized."""
OUTER = 8
"""Copies of hidden states `[tokens, hidden]`: query, key and value, the residuals, the output and its copies."""
SLACK = 1.4
"""Factor for what the heap loses to fragmentation."""
RUN = 24 * MIB
"""Bytes that any run needs: at the first code pages of the kernels, then threads' buffers and Python's objects."""
OPENING = 1.0
"""Bytes resident for each byte of the weights as stored, at least, once a session is open."""
LARGE = 8 * MIB
"""Blocks from which on each is given back when it is freed. From 4 MiB on, long texts in 8 bits took up to twice the
time; from 32 MiB on, where glibc may come to by itself, runs of fp32 took 290 MB in place of 75."""
KEPT = 64 * MIB
"""Free at the end of the heap before it is given back: less is given back and taken again by each run."""
SHARE_OF_ANSWERS = 1 / 16
"""Share of the bound for the answers of one window of inputs, vectors or labels of tokens, which wait to be handed out
together."""
LABELLED = 600
"""Bytes of a row of a token, its label included: six Python objects and what holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Plan that keeps to a bound of memory."""

    memory: int
    """The bound, in bytes of resident memory of the process."""
    expected: int
    """Bytes that are expected at most."""
    streams: int
    """Batches at once."""
    batch_tokens: int
    """Most tokens in a batch, padding included; a longer text is a batch of its own."""
    positions: int
    """Most positions decoded in one run of the graph."""
    characters: int
    """Most characters of inputs looked at together."""
    full: int
    """Bytes held from which on what is free is given back before a run: there would not be room for its peak."""


def parse_memory(value: str | int) -> int:
    """Return the bytes that a size names: `512M`, `512MB`, `512MiB` and `1.5G` in powers of two, or bytes as they are.

    Raises:
        UsageError: for what is no size.
    """
    match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        size = int(float(match[1]) * 2 ** UNITS[match[2].upper()])
    else:
        size = value if isinstance(value, int) and not isinstance(value, bool) else 0
    if size < 1:
        raise UsageError(f"memory is a size such as 512M, 1.5G or a number of bytes, not {value!r:.60}")
    return size


def written(size: int) -> str:
    """Return a size for people, in MB of 2**20 bytes, rounded up."""
    return f"{-(-size // MIB)} MB"


def resident_memory() -> int | None:
    """Return the bytes of this process that are in memory; None where the operating system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the nearest that macOS tells
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def check_usable(size: int) -> None:
    """Check that this process may use a number of bytes.

    Raises:
        UsageError: where it may not, so that the kernel would end it before the bound is reached.
    """
    usable = usable_memory()
    if usable is not None and size > usable:
        raise UsageError(
            f"memory is bounded to {written(size)} and this process may use {written(usable)}: ask for less"
        )


def usable_memory(groups: Path = GROUPS, root: Path = ROOT) -> int | None:
    """Return the bytes that this process may use: the machine's, or the least of its control groups' limits.

    Args:
        groups: the control groups of the process.
        root: where control groups are mounted.

    Returns:
        Bytes; None where the operating system does not say.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    limits = [memory]
    for file in limit_files("memory", "memory.max", "memory.limit_in_bytes", groups=groups, root=root):
        with suppress(OSError, ValueError):  # there is no such group here, or it has no limit ("max")
            limits.append(int(file.read_text(encoding="ascii")))
    return min(limits)


def opening(manifest: Manifest, variant: str) -> int:
    """Return the bytes that a session of a variant holds at least, by the size of its files."""
    entry = manifest.variants[variant]
    stored = sum(manifest.files[name].size for name in (entry.file, *entry.external_data) if name in manifest.files)
    return int(OPENING * stored)


def score_copies(operators: Collection[str]) -> int:
    """Return the copies of attention's scores that a graph keeps at least, by its operators; 1 where it is fused."""
    return max(1, sum(copies for name, copies in OF_SCORES.items() if name in operators))


def running(manifest: Manifest, variant: str, *, tokens: int, positions: int, scores: int = 1) -> int:
    """Return the bytes that one batch needs at most beside the session.

    Args:
        manifest: the bundle's contract.
        variant: whose graph runs.
        tokens: of the batch, padding included; no less than the longest text is reckoned.
        positions: decoded in one run.
        scores: copies of attention's scores that the graph keeps at least.
    """
    shape, entry = manifest.architecture, manifest.variants[variant]
    tokens = max(tokens, manifest.max_length)
    scored, decoded = next(copies for prefix, copies in COPIES.items() if entry.recipe.startswith(prefix))
    attention = max(scored, scores) * shape.attention_heads * manifest.max_length
    encoder = tokens * (attention + INNER * shape.intermediate_size + OUTER * shape.hidden_size)
    decoder = 0
    if decoded_outputs(entry.outputs):
        if entry.kind != "serving":  # it decodes every position
            positions = tokens
        # The decoder runs after the encoder has let go of its own, but for the hidden states.
        decoder = decoded * positions * shape.vocab_size + OUTER * tokens * shape.hidden_size
    return RUN + int(SLACK * FLOAT * max(encoder, decoder))


def plan_memory(  # noqa: PLR0913 — what the choice depends on, by keyword
    memory: int,
    manifest: Manifest,
    variant: str,
    *,
    held: int,
    session: int,
    batch_tokens: int,
    streams: Sequence[int],
    scores: int = 1,
) -> MemoryPlan:
    """Return the fastest plan under a bound: streams come before large batches, these before many positions at once.

    Args:
        memory: the bound, in bytes.
        manifest: the bundle's contract.
        variant: that runs.
        held: bytes that the process holds, one session included.
        session: bytes that each further session adds.
        batch_tokens: most tokens in a batch where memory is no matter.
        streams: numbers of streams that may be chosen, best first.
        scores: copies of attention's scores that the graph keeps at least.

    Raises:
        UsageError: when the least of these choices needs more.
    """
    window = int(SHARE_OF_ANSWERS * memory)
    labels = any({SEQUENCE, LABEL} <= set(head.axes) for head in manifest.heads.values())
    token = max(FLOAT * manifest.architecture.hidden_size, LABELLED if labels else 0)
    characters = max(manifest.max_length, window // token)

    def needed(many: int, tokens: int, positions: int) -> int:
        runs = many * running(manifest, variant, tokens=tokens, positions=positions, scores=scores)
        return held + window + (session if many > 1 else 0) + runs

    sizes = [max(1, batch_tokens)]
    while sizes[-1] // 2 >= manifest.max_length:
        sizes.append(sizes[-1] // 2)
    choices = [
        (many, tokens, positions)
        for many in streams
        for tokens in sizes
        for positions in POSITIONS
        if positions >= FEWEST_POSITIONS or (many, tokens) == (streams[-1], sizes[-1])
    ]
    for many, tokens, positions in choices:
        expected = needed(many, tokens, positions)
        if expected <= memory:
            return MemoryPlan(
                memory=memory,
                expected=expected,
                streams=many,
                batch_tokens=tokens,
                positions=positions,
                characters=characters,
                full=memory - many * running(manifest, variant, tokens=tokens, positions=positions, scores=scores),
            )
    least = needed(*choices[-1])
    raise too_little(memory, variant, least, streams[-1])


def too_little(memory: int, variant: str, least: int, streams: int = 1) -> UsageError:
    """Return the error for a bound that a model cannot keep to."""
    several = f" with {streams} streams" if streams > 1 else ""
    return UsageError(
        f"memory is bounded to {written(memory)} and variant {variant!r}{several} needs about {written(least)}, with "
        f"what the process already holds: give more{', fewer streams' if several else ''}, or a smaller model"
    )


def use_one_heap() -> None:
    """Limit what glibc's malloc keeps unused: one heap for the threads to come, and large blocks apart from it.

    With a heap each, every thread keeps its own peak. Blocks as large as attention's scores leave holes in a heap that
    smaller ones then break: a run of fp32 was seen to take four times what it uses. Beside the heap they cost the
    zeroing of their pages each time, which long texts alone notice.
    """
    _glibc("mallopt", -8, 1)  # M_ARENA_MAX
    _glibc("mallopt", -3, LARGE)  # M_MMAP_THRESHOLD
    _glibc("mallopt", -1, KEPT)  # M_TRIM_THRESHOLD, which the one before sets to far less


def make_room(full: int) -> None:
    """Give free memory back to the system above a number of resident bytes: each time costs a tenth of a run."""
    if (resident_memory() or 0) > full:
        return_freed()


def return_freed() -> None:
    """Give back to the operating system what glibc's malloc holds unused."""
    _glibc("malloc_trim", 0)


def release_pages(maps: Path = Path("/proc/self/smaps")) -> None:
    """Give back to the operating system what the heap holds unused, and pages of files that can be read again.

    Importing and opening run code that answering never does, and the pages of it stay. What is needed again comes back
    out of the cache of files. Pages are left alone that the process may write, or of which it has a copy of its own.
    Nothing but the heap's, where the operating system is not Linux.

    Args:
        maps: what Linux tells of each part of the address space of this process.
    """
    return_freed()
    with suppress(OSError):
        for start, size in _clean_parts(maps.read_text(encoding="utf-8", errors="surrogateescape")):
            _glibc("madvise", ctypes.c_void_p(start), ctypes.c_size_t(size), 4)  # MADV_DONTNEED


def _clean_parts(told: str) -> Iterable[tuple[int, int]]:
    """Return start and size of each part of the address space that a file holds, unchanged and not to be changed.

    A part of which nothing is in memory is left out: an emulator (QEMU's) reports every number as 0.
    """
    start = size = 0
    for line in told.splitlines():
        if part := PART.match(line):
            start, end = int(part[1], 16), int(part[2], 16)
            size = end - start if part[3].startswith("r-") and part[4] else 0
        elif line.startswith("Rss:") and line.split()[1] == "0":
            size = 0
        elif size and line.startswith("Anonymous:") and line.split()[1] == "0":
            yield start, size


def _glibc(name: str, *arguments: object) -> None:
    """Call a function of glibc; nothing where another library is the C library."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            getattr(ctypes.CDLL(None), name)(*arguments)
