"""The engine of Ray: an actor a group of cores or a device, each of which makes whole parts.

Ray Data carries the parts' descriptions, not their rows: an actor reads its part, answers it and writes it. So nothing
large passes through Ray's object store, an actor that dies costs the part that it was making, and there is no reader
beside the actors that could wait for a CPU which they hold: reading has its share of each actor's own CPUs.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import socket
import tarfile
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from bertport.batch.job import Part
from bertport.batch.worker import Worker, bundle_directory
from bertport.runtime import errors
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.bundle.files import open_regular
from bertport.runtime.bundle.select import without_gpu
from bertport.runtime.errors import BertportError, MissingDependencyError, PathError, ProviderError, UsageError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.threads import intra_op_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bertport.batch.job import Carriers, Job

__all__ = ["Answering", "make_parts"]

STORE = 200 << 20
"""Bytes of the object store of a cluster that is started here: descriptions of parts pass through it alone."""
PATIENCE = 5.0
"""Seconds in which a cluster's address has to answer."""
DEATHS = 2
"""Actors in a row that may die before they begin: where each does, a machine lacks something."""
RETRIES = 20
"""Retries of a part after its actor died: a machine that is taken away is no fault of the part, and a part that kills
each actor must not go on for ever."""
NODE_DIGITS = 8
"""Digits of a node's id that tell it from others of its host name."""


class Answering:
    """An actor: a worker of one job. Made on each machine by Ray Data, once for all the parts that it makes.

    Args:
        job: what is asked.
        shipped: the bundle as a reference to a tar archive in Ray's object store; None where a path leads to it.
    """

    def __init__(self, job: Job, shipped: Any = None) -> None:  # noqa: ANN401 — Ray's reference
        self._job = job
        self._shipped = shipped
        self._worker: Worker | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Make parts, given as JSON, and return as JSON what was counted, or why one cannot be made."""
        return {"outcome": [json.dumps(self._outcome(Part.listed(*json.loads(text)))) for text in batch["part"]]}

    def _outcome(self, part: Part) -> dict[str, Any]:
        try:
            if self._worker is None:
                self._worker = Worker(self._job, bundle=self._bundle(), node=_node())
            stats = self._worker.make(part)
        except BertportError as error:
            # A value, not an exception: Ray would wrap it, and may begin the actor again.
            return {"failed": error.message, "kind": type(error).__name__, "node": platform.node()}
        return stats

    def _bundle(self) -> str | None:
        """Return where the bundle is on this machine; None for where the job says."""
        if self._shipped is None:
            return None
        import ray

        self._folder = _unpacked(ray.get(self._shipped))
        return self._folder.name


def _node() -> str:
    """Return the name of this node: the host's, and as several nodes may share one, Ray's id in short."""
    import ray

    return f"{platform.node()} ({ray.get_runtime_context().get_node_id()[:NODE_DIGITS]})"


def make_parts(job: Job, parts: Sequence[Part], carriers: Carriers) -> Iterator[dict[str, Any]]:
    """Make parts on a cluster, and yield what was counted of each as it is done.

    Raises:
        MissingDependencyError: without Ray.
        UsageError: where no cluster is, or none of its machines is large enough for a worker.
        BertportError: what a worker met: the first one ends the run.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before Ray is imported: its own statistics are on by default
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingDependencyError("batch --engine ray", "ray", "ray") from error
    job = _for_workers(job)
    asked = _resources(job)
    with _cluster(carriers.address):
        workers = min(_room(asked), carriers.workers or len(parts), len(parts))
        shipped = ray.put(_packed(job)) if carriers.ship else None
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # An actor that is not yet there when the last part is done is cancelled, which Ray counts as a death of it.
        context.max_consecutive_actor_init_deaths = workers + DEATHS
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what ends a run is raised, and said in a sentence
        described = [{"part": json.dumps([part.number, part.row])} for part in parts]
        with warnings.catch_warnings():
            # Only this way can an actor's retries be bounded and its place be spread in 2.60; it goes in 2.64.
            warnings.simplefilter("ignore", DeprecationWarning)
            outcomes = ray.data.from_items(described, override_num_blocks=len(described)).map_batches(
                Answering,
                fn_constructor_args=(job, shipped),
                batch_size=1,
                # It begins with the first actor that is ready, and keeps to those that are left when a machine goes.
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1
                ),
                ray_remote_args_fn=_how_actors_live,
                **asked,
            )
        try:
            for row in outcomes.iter_rows():
                outcome = json.loads(row["outcome"])
                if "failed" in outcome:
                    raise _raised(outcome)
                yield outcome
        except ray.exceptions.RayError as error:
            raise _explained(error) from error


def _raised(outcome: dict[str, Any]) -> BertportError:
    """Return the error that a worker met, of its own class where one sentence makes it."""
    kind = getattr(errors, outcome["kind"], BertportError)
    if kind not in {UsageError, PathError, errors.BundleError, errors.InputTextError, ProviderError}:
        kind = BertportError
    message = outcome["failed"]
    return kind(message if outcome["node"] in message else f"{outcome['node']}: {message}")


def _explained(error: Exception) -> BertportError:
    """Return the error of a run that Ray ended."""
    said = one_line(error)
    if "No module named 'bertport" in said:
        return UsageError(
            "a machine of the cluster lacks bertport: install the same version there, with the extras cpu and ray"
        )
    return BertportError(
        f"Ray ended the run ({excerpt(said[-400:], 400)}): run the same command again to go on; what is done is kept"
    )


def _for_workers(job: Job) -> Job:
    """Return the job with as many threads and batches at once as an actor has unless asked, and on what it asks for."""
    runs = job.runs
    return replace(
        job,
        runs=replace(
            runs,
            provider=without_gpu(runs.provider, runs.provider_library),
            threads=1 if runs.threads is None else runs.threads,
            streams=1 if runs.streams is None else runs.streams,
        ),
    )


def _how_actors_live() -> dict[str, Any]:
    """Return Ray's settings of an actor: begun anew wherever there is room, as often as it dies."""
    return {"max_restarts": -1, "max_task_retries": RETRIES, "scheduling_strategy": "SPREAD"}


def _resources(job: Job) -> dict[str, float]:
    """Return what an actor asks Ray for: its CPUs, and a GPU for a provider that runs on one.

    Raises:
        UsageError: for a number of threads that cannot be.
    """
    asked: dict[str, float] = {"num_cpus": intra_op_threads(job.runs.threads) or 1}
    provider = PROVIDERS.get(job.runs.provider)
    if provider is not None and not provider.on_cpu:
        asked["num_gpus"] = 1
    return asked


def _room(asked: dict[str, float]) -> int:
    """Return how many workers the cluster carries; UsageError where it carries none."""
    import ray

    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(names[name], 0) // count) for name, count in asked.items()) for node in nodes)
    if room < 1:
        wanted = " and ".join(f"{count:g} {names[name]}{'s'[: count != 1]}" for name, count in asked.items())
        largest = ", ".join(
            f"{max((node.get(name, 0) for node in nodes), default=0):g} {name}s" for name in names.values()
        )
        raise UsageError(
            f"a worker asks for {wanted}, and the largest machine of the cluster has {largest}: take fewer --threads, "
            "another provider, or add a machine"
        )
    return room


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Join a cluster of Ray, or start one here; leave it at the end, unless the caller had joined it."""
    import ray

    if ray.is_initialized():
        yield
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {"object_store_memory": STORE, "include_dashboard": False}
    elif address != "auto":
        _answers(address)
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        said = one_line(error)
        raise _no_cluster(address, "none runs here" if "Could not find any running Ray" in said else said) from error
    try:
        yield
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Raise UsageError where nothing listens at an address: Ray itself would try for a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port, re.ASCII):
        raise UsageError(f"{excerpt(address, 100)} is not an address of Ray: give HOST:PORT, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError, UnicodeError) as error:  # the last for a name that is none
        raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from error


def _no_cluster(address: str, reason: str) -> UsageError:
    return UsageError(
        f"no cluster of Ray is found at {address} ({excerpt(reason, 200)}): start one (ray start --head), name its "
        "--address, or take --address local for one on this machine"
    )


def _packed(job: Job) -> bytes:
    """Return a bundle as a tar archive, which has the files that links lead to in their place, as in the Hub's cache.

    Raises:
        PathError: where one cannot be read.
        BundleError: for one that leads out of the bundle, or is no regular file.
    """
    directory = bundle_directory(job.runs.bundle, digest=job.runs.digest)
    bundle = Bundle.open(default_bundle() if directory is None else directory, digest=job.runs.digest)
    held = BytesIO()
    with tarfile.open(fileobj=held, mode="w", dereference=True) as archive:
        for name in (MANIFEST, *bundle.manifest.files):
            path = bundle.path / MANIFEST if name == MANIFEST else bundle.file(name)
            try:
                with open_regular(path) as file:
                    archive.addfile(archive.gettarinfo(arcname=name, fileobj=file), file)
            except OSError as error:
                raise PathError(
                    f"{name} of the bundle at {bundle.path} cannot be sent ({error.strerror or error}): see that every "
                    "file of it is there, by bertport verify"
                ) from error
    return held.getvalue()


def _unpacked(archive: bytes) -> tempfile.TemporaryDirectory[str]:
    """Return a folder with the bundle of a tar archive, which goes with it.

    Raises:
        PathError: where it cannot be written.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="bertport-bundle-")
        try:
            with tarfile.open(fileobj=BytesIO(archive)) as files:
                files.extractall(folder.name, filter="data")
        except BaseException:
            folder.cleanup()
            raise
    except (OSError, tarfile.TarError) as error:
        raise PathError(
            f"{platform.node()} cannot write the bundle that was sent to it "
            f"({getattr(error, 'strerror', None) or error}): free some space in its folder for temporary files, or "
            "name another there by TMPDIR"
        ) from error
    return folder
