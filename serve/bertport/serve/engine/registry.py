"""The bundles that are served: loaded, warmed up, found by name, and replaced while requests go on."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BertportError, BundleError, ProviderError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.memory import resident_memory, return_freed, too_little
from bertport.serve.engine.slots import DeviceSlots
from bertport.serve.engine.warm_up import warm_up
from bertport.serve.engine.worker import ModelWorker
from bertport.serve.errors import Conflict, Failed, Loading, NotFound
from bertport.serve.settings import for_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bertport.runtime import Model
    from bertport.runtime.bundle.manifest import Manifest
    from bertport.serve.engine.worker import Batch
    from bertport.serve.settings import Settings

__all__ = ["ALL", "Registry", "ServedModel", "find_bundles"]

_LOG = logging.getLogger(__name__)

EMBEDDED = "the embedded bundle"
"""Name of the embedded bundle in the message that it cannot be opened."""
ALL = "all"
"""In place of a variant's name: every variant that runs here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A bundle that is served."""

    name: str
    """Name for clients."""
    manifest: Manifest
    """Its contract."""
    digest: str
    """Digest of all of it."""
    default: str
    """The variant of requests that name none."""
    workers: Mapping[str, ModelWorker]
    """By variant."""
    tasks: tuple[str, ...]
    """The runtime's tasks that the bundle has the heads for."""

    @property
    def _labels(self) -> list[str] | None:
        """The labels of the first head that has some; None where none has."""
        return next((list(head.labels) for head in self.manifest.heads.values() if head.labels), None)

    @property
    def _embedding(self) -> dict[str, Any] | None:
        """Facts on the vectors of texts for clients; None where the bundle was not trained to make any."""
        facts = next((head.embedding for head in self.manifest.heads.values() if head.embedding), None)
        if facts is None:
            return None
        return {
            "dimension": facts.size,
            "similarity": facts.similarity,
            "prompts": list(facts.prompts),
            "default_prompt": facts.default_prompt,
        }

    def describe(self, tasks: list[str]) -> dict[str, Any]:
        """Return what it is and where it runs as JSON values, without paths of this machine.

        Args:
            tasks: its tasks, as clients name them.
        """
        variants = []
        for name, worker in self.workers.items():
            told = worker.model.describe()
            entry = self.manifest.variants[name]
            variants.append(
                {key: told[key] for key in ("variant", "recipe", "provider", "threads", "streams", "memory")}
                | {"batch_tokens": worker.budget, "default": name == self.default, "isa": entry.requires.isa}
            )
        return {
            "name": self.name,
            "digest": self.digest,
            "source": {"name": self.manifest.source.name, "revision": self.manifest.source.revision},
            "licence": self.manifest.licence,
            "heads": list(self.manifest.heads),
            "tasks": tasks,
            "max_length": self.manifest.max_length,
            "hidden_size": self.manifest.architecture.hidden_size,
            "vocab_size": self.manifest.architecture.vocab_size,
            "mask_token": self.workers[self.default].model.mask_token,
            "labels": self._labels,
            "head_labels": {name: list(head.labels) for name, head in self.manifest.heads.items() if head.labels},
            "embedding": self._embedding,
            "variants": variants,
        }


def find_bundles(settings: Settings, failed: dict[str, BertportError] | None = None) -> dict[str, Bundle | None]:
    """Open the manifests of the bundles to serve, by the names that clients will use; no graph is loaded.

    Args:
        settings: of the server.
        failed: takes the errors of directories that are no bundles, by name; None to raise the first.

    Returns:
        By name, the default one first; None for those that failed.

    Raises:
        PathError, BundleError: for a directory that is no bundle.
        UsageError: for two bundles of one name.
    """
    bundles: dict[str, Bundle | None] = {}
    for name, path, digest in settings.bundles:
        try:
            bundle = Bundle.open(default_bundle() if path is None else path, digest=digest)
        except Exception as error:  # noqa: BLE001 — it is told, by name
            known = name or (Path(path).resolve().name if path else EMBEDDED)
            if known in bundles:  # of another, which it must not take the place of
                known = str(path)
            named = _named(known, error)
            if failed is None:
                raise named from named.__cause__
            failed[known] = named
            bundles[known] = None
            continue
        chosen = name or bundle.manifest.name
        if chosen in bundles:
            other = bundles[chosen]
            raise UsageError(
                f"two bundles are called {chosen!r} ({other.path if other else 'one that failed'} and {bundle.path}): "
                "give one of them another name, with NAME=BUNDLE"
            )
        bundles[chosen] = bundle
        for variant in settings.variants:
            if variant != ALL and variant not in bundle.manifest.variants:
                raise UnknownNameError("variant", variant, (*bundle.manifest.variants, ALL))
    return bundles


class Registry:
    """All bundles that are served.

    Args:
        settings: of the server.
        ran: told of each batch: bundle, variant, batch.
        introduce: told of each variant before it serves: bundle, variant.
        died: told the reason, from any thread, when no variant is left that can answer.
    """

    def __init__(
        self,
        settings: Settings,
        ran: Callable[[str, str, Batch], None],
        introduce: Callable[[str, str], None],
        died: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.served: dict[str, ServedModel] = {}
        self.failed: dict[str, BertportError] = {}
        self._first = ""
        self.progress = "starting"
        self._ran = ran
        self._introduce = introduce
        self._died = died
        self._busy = False
        self._closed = False
        self._loading: asyncio.Future[None] | None = None
        self._streams, self._run = settings.streams, 0
        self._slots: dict[tuple[str, int], DeviceSlots] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether real predictions were made with every variant."""
        return bool(self.served)

    @property
    def failure(self) -> str | None:
        """Reason why a variant that was loaded can answer no more; None while all can."""
        return next((worker.failure for _, worker in self.workers() if worker.failure is not None), None)

    def workers(self) -> Iterator[tuple[str, ModelWorker]]:
        """Yield each worker with the name of its bundle."""
        for served in self.served.values():
            for worker in served.workers.values():
                yield served.name, worker

    def check_loaded(self) -> None:
        """Refuse requests until bundles are loaded; those that failed to load do not count.

        Raises:
            Loading: before anything is loaded.
        """
        if not self.served:
            raise Loading(f"the bundles are being loaded: {self.progress}")

    def find(self, name: str | None, variant: str | None) -> tuple[ServedModel, ModelWorker]:
        """Return a bundle and a variant by name; the defaults for None.

        Raises:
            Loading: before anything is loaded.
            Failed: for a bundle that could not be loaded.
            NotFound: for an unknown name.
        """
        self.check_loaded()
        if name is None:
            name = self._first if self._first in self.failed else next(iter(self.served))
        served = self.served.get(name)
        if served is None and name in self.failed:
            raise Failed(f"the bundle {name!r} could not be loaded: the server's log says why")
        if served is None:
            raise NotFound(str(UnknownNameError("bundle", str(name)[:100], self.served)))
        worker = served.workers.get(served.default if variant is None else variant)
        if worker is None:
            raise NotFound(str(UnknownNameError(f"variant of {served.name}", str(variant)[:100], served.workers)))
        return served, worker

    def first(self, able: Callable[[ServedModel], bool]) -> str | None:
        """Return the name of the first bundle that is able; None where none is, or the first bundle failed."""
        if self._first in self.failed:
            return None
        return next((name for name, served in self.served.items() if able(served)), None)

    def ahead(self, worker: ModelWorker) -> float:
        """Return the seconds of work that wait in the other workers of a worker's device."""
        return sum(other.wait for _, other in self.workers() if other is not worker and other.slots is worker.slots)

    @property
    def busy(self) -> bool:
        """Whether bundles are being loaded."""
        return self._loading is not None and not self._loading.done()

    async def settle(self) -> None:
        """Wait until the bundles that are being loaded are loaded, or have failed."""
        if self.busy and self._loading is not None:
            await asyncio.wait([self._loading])

    async def load(self) -> None:
        """Load everything anew, and only then let it take the place of what there was.

        Requests that are under way finish on the old variants, which are let go afterwards. Where the settings say to
        keep going, the first load leaves out bundles that fail, and names them in `failed`.

        Raises:
            Conflict: when that is under way already, or the server is stopping.
            BertportError: when a bundle cannot be loaded, for whatever reason; what there was goes on.
        """
        if self._busy:
            raise Conflict("the bundles are being loaded already: ask again when that is done")
        self._busy = True
        self._loading = asyncio.ensure_future(self._exchange())
        await asyncio.shield(self._loading)  # what a thread has begun to load, it loads: nobody would close it

    async def _exchange(self) -> None:
        """Load everything anew, and put it in the place of what there was."""
        failed: dict[str, BertportError] | None = {} if self.settings.keep_going and not self.served else None
        try:
            fresh = await asyncio.to_thread(self._load_all, failed)
        finally:
            self._busy = False
        for served in fresh.values():
            for variant in served.workers:
                self._introduce(served.name, variant)
        old, self.served, self.failed = self.served, fresh, failed or {}
        for served in old.values():
            for worker in served.workers.values():
                task = asyncio.create_task(_retire(worker))
                self._retiring.add(task)
                task.add_done_callback(self._retired)

    def stop_loading(self) -> None:
        """Stop loading at its next stage."""
        self._closed = True

    async def close(self) -> None:
        """Close every worker once its queue is empty."""
        self.stop_loading()
        await self.settle()
        await asyncio.gather(*(asyncio.to_thread(worker.close) for _, worker in self.workers()), *self._retiring)

    def _load_all(self, failed: dict[str, BertportError] | None) -> dict[str, ServedModel]:
        fresh: dict[str, ServedModel] = {}
        opened: list[ModelWorker] = []
        self._streams, self._run = self.settings.streams, 0
        try:
            bundles = find_bundles(self.settings, failed)
            for name, bundle in bundles.items():
                if bundle is not None:
                    fresh.update(self._loaded(name, bundle, opened, failed))
        except BaseException:
            while opened:
                opened.pop().close()
            fresh.clear()  # or the error would hold it
            raise
        for name, left_out in (failed or {}).items():
            if not fresh:
                raise left_out
            _LOG.error("%s", left_out.message, extra={"fields": {"bundle": name}})
        self._first = next(iter(bundles))  # and not before: a load that fails leaves what there was
        return fresh

    def _loaded(
        self, name: str, bundle: Bundle, opened: list[ModelWorker], failed: dict[str, BertportError] | None
    ) -> dict[str, ServedModel]:
        """Load a bundle, and return it by its name; nothing where it failed and that is noted in `failed`."""
        before = len(opened)
        try:
            return {name: self._load(name, bundle, opened)}
        except Conflict:  # the server is stopping
            raise
        except BaseException as error:  # noqa: BLE001 — it is told, by name; a package's panic too
            named = _named(name, error)
            _let_go(named)
            if failed is None:
                raise named from named.__cause__
            failed[name] = named
            while len(opened) > before:
                opened.pop().close()
            return {}

    def _load(self, name: str, bundle: Bundle, opened: list[ModelWorker]) -> ServedModel:
        models = list(self._models(name, bundle))
        workers: dict[str, ModelWorker] = {}
        for model in models:
            slots = self._slots.setdefault((model.graph.provider.name, model.streams), DeviceSlots(model.streams))
            worker = ModelWorker(model, slots, self.settings.limits, self._watcher(name), self._worker_died)
            opened.append(worker)
            workers[model.variant] = worker
            for stage in warm_up(worker, every_bucket=self.settings.warm_up):
                self._say(f"warming up {name}, {model.variant}: {stage}")
        return ServedModel(
            name=name,
            manifest=bundle.manifest,
            digest=bundle.digest,
            default=models[0].variant,
            workers=workers,
            tasks=tuple(models[0].describe()["tasks"]),
        )

    def _models(self, name: str, bundle: Bundle) -> Iterator[Model]:
        """Load the variants asked for, the default one first."""
        settings, manifest = self.settings, bundle.manifest
        asked = [variant for variant in dict.fromkeys(settings.variants) if variant != ALL]
        self._say(f"loading {name}")
        if asked and ALL not in settings.variants:
            if manifest.default_variant in asked:
                asked.sort(key=lambda variant: variant != manifest.default_variant)
            for variant in asked:
                yield self._opened(bundle, variant)
            return
        first = self._opened(bundle)
        yield first
        if settings.memory is not None and ALL not in settings.variants:
            left = [name for name in manifest.variants if not manifest.repeats(name)]
            _LOG.info("with --memory, of the variants %s only %s is served", ", ".join(left), first.variant)
            return
        for variant in manifest.variants:
            if variant == first.variant or (manifest.repeats(variant) and ALL not in settings.variants):
                continue
            self._say(f"loading {name}, {variant}")
            try:
                yield self._opened(bundle, variant)
            except ProviderError as error:
                _LOG.warning("variant %s of %s is not served: %s", variant, name, error.message)

    def _opened(self, bundle: Bundle, variant: str | None = None) -> Model:
        """Load a variant; under a bound of memory, as many streams for each as the first was given."""
        settings = self.settings
        model = load(
            bundle.path,
            variant=variant,
            provider=settings.provider,
            provider_library=settings.provider_library,
            threads=settings.threads,
            streams=self._streams,
            memory=None if settings.memory is None else for_models(settings.memory),
            digest=bundle.digest if bundle.pinned else None,
        )
        if variant is None:
            chosen = {"variant": model.variant, "provider": model.graph.provider.name, "chosen": model.chosen}
            _LOG.info("variant", extra={"fields": {"model": bundle.manifest.name, **chosen}})
        if model.bound is not None:
            self._streams = model.streams  # what runs at once is bounded for all variants together
            self._run = max(self._run, model.bound.memory - model.bound.full)
            return_freed()
            least = (resident_memory() or 0) + self._run
            if least > model.bound.memory:
                raise too_little(model.bound.memory, model.variant, least, model.streams)
            most = settings.limits.max_batch_tokens
            if most > model.batch_tokens:
                raise UsageError(
                    f"--max-batch-tokens is {most} and the bound of memory leaves {model.batch_tokens} for variant "
                    f"{model.variant!r}: lower the one or raise --memory"
                )
            told = {"variant": model.variant, "streams": model.streams, **model.describe()["memory"]}
            _LOG.info("memory", extra={"fields": {**told, "batch_tokens": model.batch_tokens}})
        return model

    def _watcher(self, name: str) -> Callable[[ModelWorker, Batch], None]:
        return lambda worker, batch: self._ran(name, worker.variant, batch)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("an old variant could not be closed", exc_info=error)

    def _worker_died(self, worker: ModelWorker, reason: str) -> None:  # noqa: ARG002 — what a worker tells
        workers = [worker for _, worker in self.workers()]
        if workers and all(worker.failure is not None for worker in workers):
            self._died(reason)

    def _say(self, text: str) -> None:
        if self._closed:
            raise Conflict("the server is stopping")
        self.progress = text
        _LOG.info("%s", text)


def _named(name: str, error: BaseException) -> BertportError:
    """Return an error that names the bundle that cannot be served, unless an option is at fault.

    An unexpected error is logged as it is.
    """
    if isinstance(error, BertportError):
        if name not in error.message and not isinstance(error, UsageError):
            error.message = f"bundle {name!r}: {error.message}"
        return error
    _LOG.error("bundle %r cannot be served", name, exc_info=error)
    reason = excerpt(one_line(error), 200)
    named = BundleError(f"bundle {name!r} cannot be served ({type(error).__name__}: {reason}): export it again")
    named.__cause__ = error
    return named


def _let_go(error: BaseException | None) -> None:
    """Let an error, and those behind it, hold no frames: what was loaded is in them, and the error may be kept."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


async def _retire(worker: ModelWorker) -> None:
    """Close a worker when no request holds it any more."""
    while worker.users:  # noqa: ASYNC110 — an event would cost every request, for what happens once in a reload
        await asyncio.sleep(0.05)
    await asyncio.to_thread(worker.close)
