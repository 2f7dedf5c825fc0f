"""Loading: from a bundle's directory to a model on a provider, with files that are as exported and no others."""

from __future__ import annotations

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.hub import place_of
from bertport.runtime.bundle.manifest import encoder_inputs
from bertport.runtime.bundle.measured_elsewhere import warn_if_measured_elsewhere
from bertport.runtime.bundle.select import CPU, choices, reason, suits
from bertport.runtime.bundle.stamps import MovedError
from bertport.runtime.errors import BundleError, ProviderError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import POSITIONS, decoded_outputs, top_k_output
from bertport.runtime.installation import upgrade_advice
from bertport.runtime.memory import (
    check_usable,
    opening,
    parse_memory,
    plan_memory,
    release_pages,
    resident_memory,
    return_freed,
    running,
    score_copies,
    too_little,
    use_one_heap,
)
from bertport.runtime.model import Model
from bertport.runtime.providers import plugins, tensorrt_engines
from bertport.runtime.providers.checks import obstacle, refusal
from bertport.runtime.providers.options import checked
from bertport.runtime.providers.table import AUTO, PROVIDERS, candidates, onnxruntime
from bertport.runtime.session import open_graph
from bertport.runtime.text.tokenizer import Tokens
from bertport.runtime.threads import streams_for
from bertport.runtime.top_k import top_k_head

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from bertport.runtime.bundle.hub import Place
    from bertport.runtime.providers.table import Provider
    from bertport.runtime.session import Graph

__all__ = ["load"]

PAUSES = (0.02, 0.1, 0.3, 1.0)
"""Seconds between attempts to read a bundle that a writer changes each time while it is read."""
KNOWN_INPUTS = frozenset({*encoder_inputs(), POSITIONS})
"""Inputs that a graph is given, as far as it has them."""


def load(  # noqa: PLR0913 — each is one choice, by keyword
    path: str | os.PathLike[str] | None = None,
    *,
    variant: str | None = None,
    provider: str = AUTO,
    threads: int | None = None,
    streams: int | None = 1,
    provider_options: Mapping[str, str | float | bool] | None = None,
    provider_library: str | os.PathLike[str] | None = None,
    allow_fallback: bool = False,
    memory: str | int | None = None,
    low_memory: bool = False,
    digest: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Model:
    """Return a model of a bundle, ready to answer.

    Args:
        path: the bundle's directory, or the id of a repository of the Hub, `owner/name`, where there is no directory of
            that name; None for the embedded default.
        variant: one of the bundle's variants; None for its default, or the best for the provider.
        provider: a row of the table of providers (`cpu`, `cuda`, `openvino`, …), or `auto` for the best that really
            works here.
        threads: threads of the CPU; None for one per physical core.
        streams: batches that run at once under `cpu`, which share the threads: more texts a second from many texts, for
            a second copy of the weights in memory. None for one per thread, or for 1 where there are more than four.
            Other providers run one batch at a time, whatever is asked.
        provider_options: options of the provider, by ONNX Runtime's names, in place of those that are set here.
        provider_library: path of a library that holds the provider, for one that is no row of the table or is in no
            package: ONNX Runtime's plugins. `provider` names one of those that it holds, unless it holds one alone.
        allow_fallback: run on the CPU, with a warning that says why, where the provider does not work.
        memory: what this process may hold in memory, as `512M`, `1.5G` or bytes; None for no bound. Streams, tokens in
            a batch and positions decoded at once are chosen to stay under it, and ONNX Runtime gives memory back after
            each run. It holds for all that the process holds when the model is loaded and for what the model takes;
            answers that are kept, and what else the program takes later, are beside it. On the `cpu` provider only.
        low_memory: hold less memory while the model is loaded and from then on, for some more time: the graph is
            opened before the tokenizer is read, and what only importing and opening needed is given back between the
            steps. It sets the heap of the whole process to give back what is freed. Answers are the same.
        digest: the digest that the bundle must have, as `bertport verify` prints it; None for any. It stands for every
            file of the bundle.
        revision: branch, tag or commit of a Hub repository; None for its main branch.
        token: what a private repository asks for; None for the one that huggingface_hub finds.

    Returns:
        A model, safe to use from several threads.

    Raises:
        PathError: when there is no such directory, repository or library, or no embedded default.
        BundleError: when it is not a bundle, has another digest, or a file that is needed is missing or changed.
        UnknownNameError: for an unknown variant or provider.
        ProviderError: when the provider does not work here; unless `allow_fallback` is given, no other takes its place.
        UsageError: for provider options without a provider, a value that cannot be, or a bound of memory that the
            model cannot keep to.
        MissingDependencyError: when ONNX Runtime is not installed.
    """
    if not isinstance(provider, str):
        raise UnknownNameError("provider", provider, (AUTO, *PROVIDERS), "name one")
    if provider_options and provider == AUTO and provider_library is None:
        raise UsageError(f"provider options need one provider, not {AUTO!r}: name the provider")
    bound = None if memory is None else _memory_bound(memory, provider, provider_library)
    if bound is not None:
        provider = CPU
    given = provider_options or {}
    if provider in PROVIDERS:  # before anything is opened, and fall-back or not
        checked(provider, given, PROVIDERS[provider].allowed)
    place = place_of(path, revision=revision, token=token)
    for pause in (*PAUSES, None):
        bundle = Bundle.open(place.directory, digest=digest)
        try:
            return _open_best(
                place,
                bundle,
                variant,
                provider,
                threads,
                streams,
                given,
                library=provider_library,
                allow_fallback=allow_fallback,
                memory=bound,
                low_memory=low_memory,
            )
        except (BundleError, OSError) as error:
            # A writer that adds a file changes its directory, and one that commits removes what it has replaced.
            if pause is None or not (isinstance(error, MovedError) or bundle.is_replaced()):
                raise
            time.sleep(pause)
    raise AssertionError


def _open_best(  # noqa: PLR0913, PLR0917 — what is asked for
    place: Place,
    bundle: Bundle,
    variant: str | None,
    provider: str,
    threads: int | None,
    streams: int | None,
    given: Mapping[str, str | float | bool],
    *,
    library: str | os.PathLike[str] | None,
    allow_fallback: bool,
    memory: int | None,
    low_memory: bool,
) -> Model:
    """Return the model of the best variant on the best provider among those asked for."""
    passed: list[str] = []
    try:
        rows = plugins.rows(provider, library)
        if library is not None:
            provider = rows[0].name
        asked = (variant, provider)
        *others, last = choices(bundle.manifest, variant, provider, rows)
        for pair in others:  # there are some only under `auto`, which goes on to what works
            why = obstacle(pair[1], bundle.manifest.variants[pair[0]].requires.precision)  # before files are hashed
            if why is not None:
                passed.append(refusal(pair[1], why).message)
                continue
            try:
                told = reason(bundle.manifest, asked, pair, passed)
                return _open(place, bundle, *pair, threads, streams, given, low_memory=low_memory, chosen=told)
            except ProviderError as error:
                passed.append(error.message)
        return _open(
            place,
            bundle,
            *last,
            threads,
            streams,
            given,
            allow_fallback=allow_fallback,
            memory=memory,
            low_memory=low_memory,
            chosen=reason(bundle.manifest, asked, last, passed),
        )
    except ProviderError as error:
        if not allow_fallback or (provider in {AUTO, CPU} and library is None):
            raise
        # The variant may be for the other provider alone; then the bundle has another for the CPU.
        asked_for = bundle.manifest.variants.get(variant) if variant is not None else None
        for_cpu = None if asked_for is not None and not suits(asked_for.requires, CPU) else variant
        [(name, cpu)] = choices(bundle.manifest, for_cpu, CPU, candidates(CPU))
        warnings.warn(f"{error.message}; running variant {name!r} on the CPU instead", UserWarning, stacklevel=3)
        chosen = reason(bundle.manifest, (for_cpu, CPU), (name, cpu), [error.message])
        return _open(
            place, bundle, name, cpu, threads, streams, {}, fallback=error.message, low_memory=low_memory, chosen=chosen
        )


def _memory_bound(memory: str | int, provider: str, library: str | os.PathLike[str] | None) -> int:
    """Return a bound of memory in bytes.

    Raises:
        UsageError: for a bound that is none, or that cannot be kept here.
    """
    size = parse_memory(memory)
    if provider not in {AUTO, CPU} or library is not None:
        other = repr(provider) if library is None else f"one of {library}"
        raise UsageError(
            f"memory bounds only the provider {CPU!r}, not {other}: leave memory or the other provider out"
        )
    if resident_memory() is None:
        raise UsageError("this operating system does not report the memory of a process: leave the bound of memory out")
    check_usable(size)
    return size


def _without_aliases(graph: Graph, bundle: Bundle, variant: str) -> Graph:
    """Return a graph without the outputs that only other runtimes look for, whose names may be another head's here."""
    aliases = {alias for head in bundle.manifest.heads.values() for alias in head.aliases or ()}
    others = aliases.difference(bundle.manifest.variants[variant].outputs)
    return replace(graph, outputs=graph.outputs - others) if others else graph


def _require_known_inputs(graph: Graph, bundle: Bundle, variant: str) -> None:
    """Refuse a graph with an input that is not given to any, as a later version's may have.

    Raises:
        BundleError: naming the first such input.
    """
    unknown = sorted(graph.inputs - KNOWN_INPUTS)
    if unknown:
        raise BundleError(
            f"the graph of variant {variant!r} of {bundle.manifest.name} has the input {excerpt(unknown[0])}, which "
            f"this version of bertport does not know: {upgrade_advice()}, or export again"
        )


def _open(  # noqa: PLR0913, PLR0917 — what a model is made of
    place: Place,
    bundle: Bundle,
    variant: str,
    provider: Provider,
    threads: int | None,
    streams: int | None,
    given: Mapping[str, str | float | bool],
    *,
    chosen: str,
    allow_fallback: bool = False,
    fallback: str | None = None,
    memory: int | None = None,
    low_memory: bool = False,
) -> Model:
    place.fetch_variant(bundle, variant)
    entry = bundle.manifest.variants[variant]
    explicit = streams
    streams, share = streams_for(threads, streams) if provider.splits_cores else (1, 0)
    with ThreadPoolExecutor(1) as beside:  # hashing is a tenth of the time to load, and lets the rest run
        hashing = beside.submit(bundle.check_variant, variant)
        onnxruntime()
        tokens = None if low_memory else Tokens.read(bundle)
    checked = hashing.result()  # before anything of the graph is opened
    warn_if_measured_elsewhere(bundle, variant, provider)
    if low_memory:
        use_one_heap()
        release_pages()
    before = _held_before(bundle, variant, memory) if memory is not None else 0
    cut = top_k_output(entry.outputs) if provider.device is not None and entry.kind == "serving" else None
    with ExitStack() as stack:
        if provider.shapes_cost and obstacle(provider) is None:
            engine = tensorrt_engines.engine_here(
                provider,
                precision=entry.requires.precision,
                hashes=bundle.manifest.hashes_of(variant),
                max_length=bundle.manifest.max_length,
                inputs=bundle.manifest.inputs,
                serving=entry.kind == "serving" and bool(decoded_outputs(entry.outputs)),
                given=given,
            )
            stack.enter_context(tensorrt_engines.announced(engine, variant))
            given = {**engine.options, **given}
        path = stack.enter_context(checked.opening())
        graph = open_graph(
            path,
            provider,
            threads=threads,
            options=given,
            precision=entry.requires.precision,
            external_data=checked.external_data,
            appended=top_k_head(cut) if cut else b"",
            allow_fallback=allow_fallback,
            bounded=memory is not None,
        )
        _require_known_inputs(graph, bundle, variant)
        if tokens is None:
            release_pages()  # what was freed while the graph was opened: the vocabulary takes its place
            tokens = Tokens.read(bundle)
            release_pages()
        graph = _without_aliases(graph, bundle, variant)
        bound = None
        if memory is not None:
            return_freed()
            held = resident_memory() or 0
            bound = plan_memory(
                memory,
                bundle.manifest,
                variant,
                held=held,
                session=held - before,
                batch_tokens=provider.batch_tokens,
                streams=range(streams, 0, -1) if explicit is None else [streams],
                scores=score_copies(graph.operators),
            )
            streams, share = streams_for(threads, bound.streams)
            graph = replace(graph, full=bound.full)
        replica = None
        if streams > 1:
            inner = open_graph(
                path,
                provider,
                threads=share,
                options=given,
                precision=entry.requires.precision,
                external_data=checked.external_data,
                bounded=bound is not None,
            )
            inner = _without_aliases(inner, bundle, variant)
            inner = replace(inner, full=bound.full) if bound else inner
            replica = Model(bundle, variant, inner, tokens, chosen=chosen, fallback=fallback, bound=bound)
        model = Model(
            bundle,
            variant,
            graph,
            tokens,
            chosen=chosen,
            fallback=fallback,
            streams=streams,
            replica=replica,
            bound=bound,
        )
        if provider.shapes_cost:  # the first run builds what is left to be built
            model.run(model.bind("features").prepare([tokens.sample]))  # type: ignore[arg-type]  # it has tokens in any tokenizer
    return model


def _held_before(bundle: Bundle, variant: str, memory: int) -> int:
    """Return the bytes held before a session is opened, and refuse to open one that could never fit."""
    use_one_heap()
    return_freed()
    held = resident_memory() or 0
    least = held + opening(bundle.manifest, variant) + running(bundle.manifest, variant, tokens=1, positions=1)
    if least > memory:
        raise too_little(memory, variant, least)
    return held
