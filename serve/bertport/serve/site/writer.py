"""Writing a site: the page's files, a packed bundle, onnxruntime-web, and the list of all of them with their hashes."""

from __future__ import annotations

import hashlib
import html
import json
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.packing import pack
from bertport.runtime.bundle.siblings import real
from bertport.runtime.bundle.writer import Kind, describe_files, new_directory, refuse_existing, refuse_replacing
from bertport.runtime.errors import PathError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import EMBEDDING
from bertport.runtime.tasks import embeddings
from bertport.runtime.tasks.table import answerable
from bertport.runtime.text.tokenizer import TOKENIZER, Tokens

if TYPE_CHECKING:
    from collections.abc import Collection
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import Manifest, Variant
    from bertport.serve.site.web_runtime import WebRuntime

__all__ = ["LISTING", "chosen", "heading", "left_to_python", "needs_gpu", "obstacle", "refuse_output", "write_site"]

LISTING = "site.json"
WORKER = "service-worker.js"
SHARED = ("page.css", "tasks.js", "views.js")
"""Files that the site shares with the server's page."""
SITE = Kind(name="a site", marks=(LISTING, WORKER))
NO_JEKYLL = ".nojekyll"
"""An empty file, without which GitHub Pages turns README.md into a page of HTML, and has no model card to link to."""
UNLISTED = frozenset({LISTING, WORKER, "_headers", NO_JEKYLL})
DOMAINS = frozenset({"ai.onnx", "com.microsoft"})
PRECISIONS = frozenset({"fp32", "int8-dynamic", "int8-static", "int8-weight-only", "int4-weight-only"})
"""Precisions that onnxruntime-web computes on a CPU, as js/src/graph.ts says."""
ANYWHERE = frozenset({None, "avx2", "avx512"})
"""Instruction sets whose INT8 weights are right on every CPU, as js/src/model.ts says."""
SIMILARITY = "sentence-similarity"
"""Answered from every bundle, as by the server: without an embedding head from the means over hidden states."""
OF_PROMPTS = frozenset({"embeddings", SIMILARITY})
"""Tasks whose texts begin with the model's default prompt."""
LEFT_OUT = frozenset({"zero-shot-classification"})
"""Tasks that the package for JavaScript leaves to Python."""
OF_PLACES = frozenset({"question-answering", "replaced-tokens", "token-classification"})
"""Tasks that need the place of each token, which that package tells for WordPiece tokenizers of BERT alone."""
ON_GPU = "fp32"
"""The precision that WebGPU takes: it has no kernels for INT8's operators."""
LARGEST = 2**31
"""Bytes of a variant: WebAssembly has 4 GB, and holds weights beside what it makes of them."""
LONGEST_TITLE = 200
"""Characters of the page's heading, at most."""


def obstacle(variant: Variant) -> str | None:
    """Return why onnxruntime-web cannot run a variant; None where it can."""
    unknown = sorted(set(variant.requires.operator_domains) - DOMAINS)
    if unknown:
        return f"has operators that onnxruntime-web does not know (of {', '.join(unknown)})"
    precision = variant.requires.precision
    return None if precision in PRECISIONS else f"is computed in {precision}, which is for other devices"


def chosen(manifest: Manifest, asked: Collection[str]) -> list[str]:
    """Return the variants of a site, the first of which is loaded when the page opens.

    Args:
        manifest: of the bundle.
        asked: those asked for; where there are none, `int8-dynamic` if its weights are right on every CPU, or else
            `portable`, or else any that asks for no CPU of its own.

    Raises:
        UnknownNameError: for an unknown variant.
        UsageError: for one that no browser runs.
    """
    variants = manifest.variants
    usable = [name for name, variant in variants.items() if obstacle(variant) is None]
    for name in asked:
        if name not in variants:
            raise UnknownNameError("variant", name, variants)
        if reason := obstacle(variants[name]):
            raise UsageError(f"variant {name!r} {reason}: choose {' or '.join(usable) or 'another bundle'}")
    names = list(dict.fromkeys(asked))
    if not names:
        int8 = [name for name in usable if name == "int8-dynamic" and variants[name].requires.isa in ANYWHERE]
        fp32 = [name for name in usable if name == "portable"]
        names = [*int8, *fp32, *(name for name in usable if variants[name].requires.isa is None)][:1]
    if not names:
        reasons = (f"{name} {obstacle(variant) or 'is made for some CPUs'}" for name, variant in variants.items())
        raise UsageError(
            f"the bundle {manifest.name} has no variant that browsers run ({'; '.join(reasons)}): use another bundle"
        )
    for name in names:
        size = _bytes_of(manifest, name)
        if size > LARGEST:
            raise UsageError(
                f"variant {name!r} has {size:,} bytes, and a browser opens {LARGEST:,} at most: choose a smaller one"
            )
    return names


def needs_gpu(manifest: Manifest, names: Collection[str]) -> bool:
    """Return whether one of these variants runs on WebGPU, so that the site needs its files."""
    return any(manifest.variants[name].requires.precision == ON_GPU for name in names)


def left_to_python(bundle: Bundle) -> dict[str, str]:
    """Return the tasks of a bundle that its site leaves to Python, as js/src says, each with the reason.

    Raises:
        BundleError: when its tokenizer is missing or changed.
    """
    tokens, left = Tokens.read(bundle), set(LEFT_OUT)
    names = answerable(tokens, bundle.manifest)
    tokenizer = json.loads(bundle.read(TOKENIZER))
    normalizer, prefix = tokenizer.get("normalizer") or {}, tokenizer["model"].get("continuing_subword_prefix")
    if normalizer.get("type") != "BertNormalizer" or not isinstance(prefix, str):
        left |= OF_PLACES
    elif tokens.pads_left:
        left.add("question-answering")
    reasons = {name: "which JavaScript does not answer from this bundle" for name in names if name in left}
    if refused := _refused_prompt(bundle.manifest):
        reason = f"whose texts begin with the model's prompt, and {refused}"
        reasons |= {name: reason for name in names if name in OF_PROMPTS}
    return reasons


def _refused_prompt(manifest: Manifest) -> str | None:
    """Return how the model's default prompt is refused, which a caller can replace and the page cannot."""
    head = manifest.heads.get(EMBEDDING)
    if head is None or head.embedding is None:  # vectors are means over hidden states then
        return None
    try:
        embeddings.beginning(embeddings.Shared(), manifest)
    except UsageError as error:
        return error.message.partition(": ")[0]
    return None


def heading(name: str, title: str | None) -> str:
    """Return the heading of the page: the title asked for, or the bundle's name.

    Raises:
        UsageError: for one that is no line.
    """
    shown = " ".join((name if title is None else title).split())
    if shown and len(shown) <= LONGEST_TITLE and shown.isprintable():
        return shown
    line = f"a line of 1 to {LONGEST_TITLE} characters"
    if title is None:
        raise UsageError(
            f"the bundle's name, {excerpt(name)}, is no heading of a page, which is {line}: give one by --title"
        )
    raise UsageError(f"--title is {line}, not {excerpt(title)}: give one, or leave it out")


def refuse_output(path: Path, output: Path, *, overwrite: bool) -> None:
    """Raise PathError where the site of the bundle at a path may not be written.

    Only a site that does not hold the bundle, or an empty directory, is replaced, and nothing is written into a bundle.
    """
    refuse_existing(output, overwrite=overwrite, kind=SITE)
    if real(output).is_relative_to(real(path)):
        raise PathError(f"{output} is inside the bundle: choose a place outside of {path}")
    refuse_replacing(output, path)


def write_site(  # noqa: PLR0913 — what a site is made of
    path: Path,
    output: Path,
    variants: Collection[str],
    runtime: WebRuntime,
    *,
    title: str | None = None,
    overwrite: bool = False,
    digest: str | None = None,
) -> dict[str, Any]:
    """Write the site of a bundle; it appears at `output` when it is whole.

    Args:
        path: the bundle's directory.
        output: directory of the site.
        variants: names of variants, as `chosen` gives them.
        runtime: the files of onnxruntime-web.
        title: the heading of the page; the bundle's name where there is none.
        overwrite: whether a site at `output` may be replaced.
        digest: the digest that the bundle must have; None for any.

    Returns:
        What its site.json says.

    Raises:
        PathError: when the output exists, is inside the bundle, holds it, or cannot be written.
        BundleError: when a file of the bundle is missing or changed.
        UsageError: for a title that is none.
    """
    refuse_output(path, output, overwrite=overwrite)
    with new_directory(output, overwrite=overwrite, kind=SITE) as new:
        bundle = pack(path, new / "bundle", variants, digest=digest)
        return _fill(new, bundle, list(variants), runtime, heading(bundle.manifest.name, title))


def _fill(new: Path, bundle: Bundle, variants: list[str], runtime: WebRuntime, shown: str) -> dict[str, Any]:
    """Put everything beside the packed bundle, and return the listing, which is written last."""
    manifest = bundle.manifest
    _copy(files("bertport.serve.site") / "files", new)
    (new / NO_JEKYLL).touch()
    for name in SHARED:
        (new / name).write_bytes((files("bertport.serve.api") / "page" / name).read_bytes())
    for name, content in runtime.files.items():
        # Servers know .js; not each knows .mjs, and a browser takes no module of another type.
        (new / "runtime" / name.replace(".mjs", ".js")).write_bytes(content)
    _fill_in(new / "index.html", "@title@", html.escape(shown))
    entries = {name: asdict(entry) for name, entry in describe_files(new).items() if name not in UNLISTED}
    tokens, left = Tokens.read(bundle), left_to_python(bundle)
    listing: dict[str, Any] = {
        "version": "",
        "title": shown,
        "name": manifest.name,
        "digest": bundle.digest,
        "licence": manifest.licence,
        "runtime": runtime.version,
        "tasks": [name for name in dict.fromkeys([*answerable(tokens, manifest), SIMILARITY]) if name not in left],
        "heads": list(manifest.heads),
        "mask_token": None if tokens.mask_id is None else tokens.mask_token,
        "variants": [
            {
                "name": name,
                "bytes": _bytes_of(manifest, name) + entries["bundle/manifest.json"]["size"],
                "webgpu": manifest.variants[name].requires.precision == ON_GPU,
            }
            for name in variants
        ],
        "files": entries,
    }
    seal = hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()
    listing["version"] = f"{bundle.digest.removeprefix('sha256:')[:16]}-{seal[:16]}"
    _fill_in(new / WORKER, "@version@", listing["version"])
    (new / LISTING).write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    return listing


def _bytes_of(manifest: Manifest, name: str) -> int:
    """Return how many bytes of the bundle's files the page reads before a variant answers, the manifest apart."""
    variant = manifest.variants[name]
    read = {variant.file, *variant.external_data}
    read |= {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    return sum(entry.size for path, entry in manifest.files.items() if path in read)


def _copy(source: Traversable, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _copy(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())


def _fill_in(path: Path, place: str, value: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(place, value), encoding="utf-8")
