"""A comparison from beginning to end: what takes part, the steps, and the report's document."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.compare.entries import baseline_contenders, enter, open_bundles
from bertport.compare.quality import QualityBench, samples_for
from bertport.compare.recorded import recorded
from bertport.compare.report.document import assemble
from bertport.compare.resume import JOURNAL, Journal
from bertport.compare.speed import read_run
from bertport.compare.workloads import make_inputs, scenario, shapes
from bertport.measure.budget import UNDECIDED, applicable, default_budget, judge_all, parse_budget, refuse_idle
from bertport.measure.interrupts import stoppable
from bertport.measure.machine import describe_machine, matmul_peak
from bertport.measure.quality.bias import probe, read_probe
from bertport.measure.quality.bundled import read_tokenizer
from bertport.measure.quality.samples import refuse_unread
from bertport.measure.speed.baselines import prepare_baseline
from bertport.measure.speed.process import Worker, WorkerError
from bertport.measure.speed.timing import interleave
from bertport.measure.text import fingerprint, read_texts, sample_path
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.commands.progress import Progress
from bertport.runtime.errors import BertportError, PathError
from bertport.runtime.providers.cpu import cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.compare.entries import Contender, Entrant
    from bertport.compare.options import Options
    from bertport.measure.speed.timing import Run
    from bertport.measure.speed.workload import Workload

__all__ = ["Comparison"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    key: str
    label: str
    weight: float
    run: Callable[[], Any]


class Comparison:
    """Reads and checks everything on construction, so that a mistake costs no measurement.

    Args:
        options: What to compare, and how.
        progress: Where to show how far it is.

    Raises:
        BertportError: of the kind that says what is wrong with the bundles, the text, the templates, the names of
            variants and providers, or the output directory.
    """

    def __init__(self, options: Options, progress: Progress | None = None) -> None:
        self.options, self.effort = options, options.sizes
        self.progress = progress or Progress(None)
        self.bounds = parse_budget(options.budget)
        self.entrants = open_bundles(options.bundles or (default_bundle(),))
        if options.budget != default_budget():
            refuse_idle(self.bounds, {head for each in self.entrants for head in each.bundle.manifest.heads})
        variants, self.left_out = enter(
            self.entrants, variants=options.variants, providers=options.providers, threads=options.threads
        )
        self.contenders: list[Contender] = variants
        source = sample_path("evaluation") if options.text is None else Path(options.text)
        self.texts = read_texts(source)
        self.text_name, self.text_sha256 = source.name, fingerprint(self.texts)
        if not options.random_weights:
            for each in self.entrants:
                tokenizer = read_tokenizer(each.bundle)
                refuse_unread(self.texts, tokenizer, source.name, shipped=options.text is None, option="--text")
        self.probe = read_probe(options.templates)
        self.inputs = make_inputs(self.entrants, self.texts, self.effort.inputs, options.seed)
        self.shapes = shapes(self.entrants, self.effort)
        self.samples = {each.label: samples_for(each, self.texts, self.effort, options.seed) for each in self.entrants}
        self.failed: dict[str, str] = {}
        self.interrupted = False
        self.seconds = 0.0
        path = writable(Path(options.output)) / JOURNAL
        if path.exists() and not options.resume:
            self.progress.say(f"{path.parent} holds an unfinished comparison, which is begun anew (--resume goes on)")
        self.journal = Journal(path, self._settings(), resume=options.resume)

    def run(self) -> dict[str, Any]:
        """Measure, and give the report's document; an interruption ends with what there is."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bertport-compare-") as scratch:
            try:
                with stoppable():
                    self._prepare_baselines(Path(scratch))
                    self._measure()
            except KeyboardInterrupt:
                self.interrupted = True
            finally:
                self.progress.close()
            self.seconds = time.monotonic() - began
            return assemble(self)

    @property
    def steps(self) -> dict[str, Any]:
        """What each finished step gave."""
        return self.journal.steps

    def present(self) -> list[Contender]:
        """Return the rows that have not failed."""
        return [each for each in self.contenders if each.name not in self.failed]

    def runs(self, workload: str) -> dict[str, Run]:
        """Return what every row took for a workload, by name of the row; those that finished it."""
        steps = [value for key, value in self.steps.items() if key.startswith("time/")]
        runs = [read_run(each) for step in steps for each in step["runs"] if each["workload"] == workload]
        return {run.subject: run for run in runs if run.rounds}

    def reference_of(self, entrant: Entrant) -> Contender | None:
        """Return the row that a bundle's others are compared with; None where it does not take part."""
        rows = [each for each in self.contenders if each.bundle == entrant.label and each.variant == entrant.reference]
        return rows[0] if rows else None

    def _settings(self) -> dict[str, Any]:
        options = self.options
        return {
            "bundles": [
                {name: each.sha256 for name, each in entrant.bundle.manifest.files.items()} for entrant in self.entrants
            ],
            "text": self.text_sha256,
            "templates": self.probe.to_json(),
            "effort": dataclasses.asdict(self.effort),
            "variants and providers": [each.name for each in self.contenders],
            "baselines": list(options.baselines),
            "threads": options.threads,
            "seed": options.seed,
            "budget": self.bounds,
            "machine": describe_machine().cpu,
        }

    def _prepare_baselines(self, scratch: Path) -> None:
        directories: dict[tuple[str, str], Path] = {}
        for entrant in self.entrants:
            for name in self.options.baselines:
                self.progress.say(f"making the model of {name} from {entrant.label} …")
                place = scratch / str(self.entrants.index(entrant))
                place.mkdir(exist_ok=True)
                directories[entrant.label, name] = prepare_baseline(name, entrant.bundle, place)
        self.contenders += baseline_contenders(self.options.baselines, self.entrants, directories, self.options.threads)

    def _measure(self) -> None:
        steps = self._quality_steps() + self._speed_steps()
        todo = [each for each in steps if each.key not in self.steps]
        if self.options.resume:
            self.progress.say(f"{len(steps) - len(todo)} of {len(steps)} steps were there already")
        self.progress.plan({each.key: each.weight for each in todo})
        for each in steps:
            if each.key not in self.steps:
                self.progress.begin(each.key, each.label)
                self.journal.add(each.key, each.run())
                self.progress.finish()
            self._note_failures(each.key)

    def _note_failures(self, key: str) -> None:
        value = self.steps[key]
        if isinstance(value, dict):
            self.failed |= value.get("failed", {})

    def _quality_steps(self) -> list[_Step]:
        found = []
        for entrant in self.entrants:
            reference = self.reference_of(entrant)
            if reference is None:
                continue
            samples = self.samples[entrant.label]
            bench = QualityBench(
                entrant, reference, samples, self.effort, seed=self.options.seed, bounds=self._bounds_of(entrant)
            )
            rows = [each for each in self.contenders if each.bundle == entrant.label and each.kind == "variant"]
            rows.sort(key=lambda each, reference=reference: each != reference)  # type: ignore[misc]
            found += [
                _Step(
                    key=f"quality/{each.name}",
                    label=f"quality of {each.name}",
                    weight=len(samples.first) + 8 * self.effort.stability,
                    run=lambda bench=bench, each=each, reference=reference: self._quality(bench, each, reference),  # type: ignore[misc]
                )
                for each in rows
            ]
            if "mlm" in entrant.bundle.manifest.heads and not self.options.random_weights:
                found += [
                    _Step(
                        key=f"bias/{each.name}",
                        label=f"bias probe of {each.name}",
                        weight=len(self.probe.pairs()) / 4,  # short sentences, two each
                        run=lambda bench=bench, each=each, entrant=entrant: self._bias(bench, each, entrant),  # type: ignore[misc]
                    )
                    for each in rows
                ]
        return found

    def _quality(self, bench: QualityBench, contender: Contender, reference: Contender) -> dict[str, Any]:
        if reference.name in self.failed:  # the others can still be timed
            return {}
        try:
            return bench.quality(contender, self.progress.update, decided=self._decided(contender))
        except BertportError as error:
            return {"failed": {contender.name: str(error)}}

    def _bounds_of(self, entrant: Entrant) -> dict[str, float]:
        """Return the bounds on which a bundle's variants are judged; none where their accuracy means nothing."""
        return {} if self.options.random_weights else applicable(self.bounds, entrant.bundle.manifest.heads)

    def recorded_of(self, contender: Contender) -> dict[str, Any] | None:
        """Return what the manifest records of a variant's accuracy that this comparison can use."""
        [entrant] = [each for each in self.entrants if each.label == contender.bundle]
        entry = entrant.bundle.manifest.variants.get(contender.variant or "")
        if entry is None:
            return None
        here = cpu().instruction_set
        return recorded(entry.fidelity, reference=entrant.reference, provider=contender.provider, here=here)

    def _decided(self, contender: Contender) -> list[str]:
        """Name the bounds on which the manifest's record is a verdict, so that this run need not come to one."""
        found = self.recorded_of(contender) if self.options.text is None else None
        judged = judge_all(self.bounds, found["figures"]) if found else {}
        return [name for name, each in judged.items() if each.verdict != UNDECIDED]

    def _bias(self, bench: QualityBench, contender: Contender, entrant: Entrant) -> dict[str, Any]:
        if contender.name in self.failed:
            return {}
        try:
            return {"pairs": probe(bench.open(contender), read_tokenizer(entrant.bundle), self.probe)}
        except BertportError as error:
            return {"why": str(error)}

    def _speed_steps(self) -> list[_Step]:
        effort, inputs, rows = self.effort, self.inputs, len(self.contenders)
        texts = len(inputs.texts)
        first = dataclasses.replace(scenario("SingleStream", inputs), inputs=inputs.texts[:1])
        workloads: dict[str, tuple[Workload, float]] = {  # each with what one run weighs, in texts of 100 tokens
            "SingleStream": (scenario("SingleStream", inputs), texts),
            "Offline": (scenario("Offline", inputs), texts),
            **{name: (each, each.rows * each.length / 100) for name, each in self.shapes.items()},
        }
        groups = [list(workloads)] if effort.together else [[name] for name in workloads]
        runs = 1 + effort.rounds * effort.passes
        found = [_Step(key="peak", label="matmul peak of the machine", weight=50, run=self._peak)]
        if self.options.baselines:
            weight = rows * (texts + 30)
            found.append(_Step(key="answers", label="answers to the same texts", weight=weight, run=self._answers))
        found.append(
            self._timing(
                {"cold start": first}, weight=rows * effort.starts * 40, rounds=effort.starts, runs=1, fresh=True
            )
        )
        found += [
            self._timing(
                {name: workloads[name][0] for name in group},
                weight=rows * (20 + runs * sum(workloads[name][1] for name in group)),
                rounds=effort.rounds,
                runs=effort.passes,
                warmup=1,
            )
            for group in groups
        ]
        found += [
            _Step(
                key=f"time/Server {share:g}",
                label=f"speed: Server at {share:.0%} of the reference's rate",
                weight=effort.server_rounds * effort.requests * rows / share,
                run=lambda share=share: self._server(share),  # type: ignore[misc]
            )
            for share in effort.server_shares
        ]
        return found

    def _peak(self) -> dict[str, Any]:
        seconds = 0.3 if self.effort.name == "quick" else 1.0
        return dataclasses.asdict(
            describe_machine(matmul_gflops=matmul_peak(threads=self.options.threads, seconds=seconds))
        )

    def _answers(self) -> dict[str, Any]:
        """Ask the references and the baselines for their best answers; those of variants are measured at length."""
        if self.inputs.task != "fill-mask":
            return {}
        found: dict[str, Any] = {"tokens": {}, "failed": {}}
        references = [self.reference_of(each) for each in self.entrants]
        asked = [each for each in self.present() if each.kind != "variant" or each in references]
        for number, each in enumerate(asked):
            try:
                with Worker(each.subject) as worker:
                    answers = worker.answers(scenario("SingleStream", self.inputs))
                found["tokens"][each.name] = [answer["token"] for answer in answers]
            except WorkerError as error:
                found["failed"][each.name] = str(error)
            self.progress.update(number + 1, len(asked))
        return found

    def _timing(self, workloads: Mapping[str, Workload], *, weight: float, **how: Any) -> _Step:  # noqa: ANN401 — for interleave
        names = ", ".join(workloads)
        return _Step(
            key=f"time/{names}", label=f"speed: {names}", weight=weight, run=lambda: self._time(workloads, **how)
        )

    def _time(self, workloads: Mapping[str, Workload], *, warmup: int = 0, **how: Any) -> dict[str, Any]:  # noqa: ANN401 — for interleave
        failed: dict[str, str] = {}
        runs = interleave(
            [each.subject for each in self.present()],
            workloads,
            warmup=warmup,
            failed=lambda subject, error: failed.update({subject.name: str(error)}),
            waiting=lambda: self.progress.say("waiting for whoever else measures or trains on this machine …"),
            progress=self.progress.update,
            **how,
        )
        return {"runs": [dataclasses.asdict(each) for each in runs], "failed": failed}

    def _server(self, share: float) -> dict[str, Any]:
        alone = list(self.runs("SingleStream").values())
        if not alone:
            return {"runs": []}
        seconds = [each for turn in alone[0].rounds for each in turn]
        rate = share * len(seconds) / sum(seconds)
        workload = scenario("Server", self.inputs, rate=rate, requests=self.effort.requests, seed=self.options.seed)
        found = self._time({f"Server {share:g}": workload}, rounds=self.effort.server_rounds, runs=1, warmup=0)
        return {**found, "rate": rate, "reference": alone[0].subject}


def writable(directory: Path) -> Path:
    """Make the output directory, and see that files can be written into it.

    Raises:
        PathError: when they cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as error:
        reason = error.strerror or error
        raise PathError(f"cannot write into {directory} ({reason}): choose another directory with --output") from error
