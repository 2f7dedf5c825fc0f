"""A comparison from beginning to end: what takes part, the steps, and what they measured."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.compare.codec import decode, encode_object
from bertport.compare.entries import VARIANT, baseline_entries, make_entries, open_bundles
from bertport.compare.labelled import LabelledBench, data_info, data_notes, read_data
from bertport.compare.measurements import (
    AnswersStep,
    BiasStep,
    LabelBiasStep,
    LabelledStep,
    LayerTable,
    Measurements,
    QualityStep,
    SampleCounts,
    TimingStep,
)
from bertport.compare.presets import QUICK
from bertport.compare.quality import QualityBench, samples_for
from bertport.compare.recorded import recorded
from bertport.compare.resume import JOURNAL, Journal
from bertport.compare.workloads import (
    COLD_START,
    labelled_inputs,
    make_inputs,
    scenario,
    server_name,
    shapes,
)
from bertport.measure.budget import UNDECIDED, applicable, default_budget, judge_all, parse_budget, refuse_idle
from bertport.measure.interrupts import stoppable
from bertport.measure.machine import Machine, awaited, describe_machine, installed_versions, matmul_peak
from bertport.measure.quality.bias import probe, read_label_probe, read_probe
from bertport.measure.quality.heads import measured_rows
from bertport.measure.quality.label_bias import probe_labels
from bertport.measure.quality.model import read_sample_tokenizer, read_tokenizer
from bertport.measure.quality.samples import TASK_KINDS, TEXTS, refuse_unread
from bertport.measure.speed.baselines import BASELINES, check_task, prepare_baseline
from bertport.measure.speed.process import Worker, WorkerError
from bertport.measure.speed.tasks import TIMED
from bertport.measure.speed.timing import interleave
from bertport.measure.speed.workload import OFFLINE, SERVER, SINGLE_STREAM
from bertport.measure.text import fingerprint, read_texts, sample_path
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.commands.progress import Progress
from bertport.runtime.errors import BertportError, BundleError, PathError
from bertport.runtime.excerpts import as_unicode
from bertport.runtime.heads import MLM, SEQUENCE_CLASSIFICATION
from bertport.runtime.providers.cpu import cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.compare.codec import JSON
    from bertport.compare.entries import ComparedBundle, Entry
    from bertport.compare.measurements import Recorded
    from bertport.compare.options import Options
    from bertport.compare.quality import Samples
    from bertport.measure.quality.bias import Probe
    from bertport.measure.speed.timing import Run
    from bertport.measure.speed.workload import Workload

__all__ = ["Comparison"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a comparison."""

    key: str
    """Its name in the journal."""
    label: str
    """Description of the step for people."""
    weight: float
    """Expected duration, up to a factor that all steps share."""
    run: Callable[[], Machine | LabelledStep | QualityStep | BiasStep | LabelBiasStep | AnswersStep | TimingStep]
    """Measures."""


PEAK, ANSWERS, LABELLED, QUALITY = "peak", "answers", "labelled/", "quality/"
BIAS, LABEL_BIAS, TIME = "bias/", "label bias/", "time/"
"""Names of steps, and beginnings of names."""


class Comparison:
    """A comparison: everything is read and checked on construction, so that a mistake costs no measurement.

    Args:
        options: What to compare, and how.
        progress: Where to show how far it is.

    Raises:
        BertportError: of the kind that says what is wrong with the bundles, the text, the templates, the names of
            variants and providers, or the output directory.
    """

    def __init__(self, options: Options, progress: Progress | None = None) -> None:
        self.options, self.preset = options, options.sizes
        self.progress = progress or Progress(None)
        self.bounds = parse_budget(options.budget)
        self.bundles = open_bundles(options.bundles or (default_bundle(),))
        heads = {row for compared in self.bundles for row in measured_rows(compared.bundle.manifest.heads)}
        if options.budget == default_budget():
            self.bounds = applicable(self.bounds, heads)
        else:
            refuse_idle(self.bounds, heads)
        self.entries, self.left_out = make_entries(
            self.bundles,
            variants=options.variants,
            providers=options.providers,
            library=options.provider_library,
            threads=options.threads,
        )
        self.data = read_data(options, self.bundles)
        source = sample_path("evaluation") if options.text is None else Path(options.text)
        self.texts = read_texts(source)
        self.text_name, self.text_sha256 = as_unicode(source.name), fingerprint(self.texts)
        if not options.random_weights:
            for compared in self.bundles:
                tokenizer = read_tokenizer(compared.bundle)
                refuse_unread(self.texts, tokenizer, source.name, shipped=options.text is None, option="--text")
        own = {head for compared in self.bundles for head in compared.bundle.manifest.heads}
        classifies = SEQUENCE_CLASSIFICATION in own
        fills = MLM in own or not classifies
        self.probe = read_probe(options.templates if fills else None, mixed=classifies)
        self.label_probe = read_label_probe(options.templates, mixed=fills) if classifies else None
        if self.data:
            first = next(iter(self.data.values()))
            self.inputs = labelled_inputs(self.bundles, first, self.preset.inputs, options.seed)
        else:
            self.inputs = make_inputs(self.bundles, self.texts, self.preset.inputs, options.seed)
        for name in options.baselines:
            check_task(name, self.inputs.task)
        self.shapes = shapes(self.bundles, self.preset)
        self.samples = {
            compared.label: samples_for(compared, self.texts, self.preset, options.seed, whole=options.text is not None)
            for compared in self.bundles
        }
        self.layers = {compared.label: _layer_tables(compared) for compared in self.bundles}
        self.failed: dict[str, str] = {}
        path = writable(Path(options.output)) / JOURNAL
        if path.exists() and not options.resume:
            self.progress.say(f"the unfinished comparison in {path.parent} is dropped, because --resume was not given")
        self.journal = Journal(path, self._settings(), resume=options.resume)
        for note in data_notes(options, self.data):
            self.progress.note(note)

    def run(self) -> Measurements:
        """Measure; an interruption ends with what there is."""
        began, complete = time.monotonic(), True
        with tempfile.TemporaryDirectory(prefix="bertport-compare-") as scratch:
            try:
                with stoppable():
                    self._prepare_baselines(Path(scratch))
                    self._measure()
            except KeyboardInterrupt:
                complete = False
            finally:
                self.progress.close()
            return self._measurements(time.monotonic() - began, complete=complete)

    def present(self) -> list[Entry]:
        """Return the entries that have not failed."""
        return [entry for entry in self.entries if entry.name not in self.failed]

    def runs(self) -> dict[str, dict[str, Run]]:
        """Return what every entry took, by workload and by name; those that finished it."""
        runs: dict[str, dict[str, Run]] = {}
        for name in self.journal.steps():
            step = self.journal.get(TimingStep, name) if name.startswith(TIME) else None
            for run in step.runs if step else ():
                if run.rounds:
                    runs.setdefault(run.workload, {})[run.subject] = run
        return runs

    def _measurements(self, seconds: float, *, complete: bool) -> Measurements:
        options, journal, names = self.options, self.journal, [entry.name for entry in self.entries]
        answers = journal.get(AnswersStep, ANSWERS) or AnswersStep()
        quality = {name: measured for name in names if (measured := journal.get(QualityStep, f"{QUALITY}{name}"))}
        bias = {
            name: asked.pairs for name in names if (asked := journal.get(BiasStep, f"{BIAS}{name}")) and asked.pairs
        }
        label_bias = {
            name: scored.pairs
            for name in names
            if (scored := journal.get(LabelBiasStep, f"{LABEL_BIAS}{name}")) and scored.pairs
        }
        server = {
            share: step
            for share in self.preset.server_shares
            if (step := journal.get(TimingStep, f"{TIME}{server_name(share)}"))
        }
        return Measurements(
            bundles=tuple(self.bundles),
            entries=tuple(self.entries),
            left_out=(*self.left_out, *self._unlabelled(names), *self._unprobed(names)),
            preset=self.preset,
            command=as_unicode(options.command),
            threads=options.threads,
            seed=options.seed,
            budget=self.bounds,
            baselines=options.baselines,
            random_weights=options.random_weights,
            text_name=self.text_name,
            text_sha256=self.text_sha256,
            text_count=len(self.texts),
            text_shipped=options.text is None,
            inputs=self.inputs,
            shapes=self.shapes,
            probe=self.probe,
            label_probe=self.label_probe,
            probe_shipped=options.templates is None,
            samples={label: _count(samples) for label, samples in self.samples.items()},
            layers=self.layers,
            machine=journal.get(Machine, PEAK) or describe_machine(),
            recorded={entry.name: record for entry in self.entries if (record := self._recorded(entry))},
            quality=quality,
            bias=bias,
            label_bias=label_bias,
            data=data_info(options, self.data),
            labelled={name: answered for name in names if (answered := journal.get(LabelledStep, f"{LABELLED}{name}"))},
            answers=answers.answers,
            runs=self.runs(),
            server=server,
            failed=dict(self.failed),
            complete=complete,
            seconds=seconds,
            steps_resumed=journal.resumed,
        )

    def _unlabelled(self, names: list[str]) -> list[str]:
        """Return a sentence for each entry that could not be measured on the labelled data."""
        steps = [(name, self.journal.get(LabelledStep, f"{LABELLED}{name}")) for name in names]
        return [f"{name}, the labelled data: {step.why}" for name, step in steps if step and step.why]

    def _unprobed(self, names: list[str]) -> list[str]:
        """Return a sentence for each entry that could not be asked a bias probe."""
        steps = [
            (name, step)
            for name in names
            for step in (
                self.journal.get(BiasStep, f"{BIAS}{name}"),
                self.journal.get(LabelBiasStep, f"{LABEL_BIAS}{name}"),
            )
        ]
        return [f"{name}, the bias probe: {step.why}" for name, step in steps if step and step.why]

    def _settings(self) -> dict[str, object]:
        options, machine = self.options, describe_machine()
        data = data_info(options, self.data)
        packages = [package for name in options.baselines for package in BASELINES[name].distributions]
        return {
            **({"labelled data": data} if data else {}),
            "bundles": [
                {name: file.sha256 for name, file in compared.bundle.manifest.files.items()}
                for compared in self.bundles
            ],
            "text": self.text_sha256,
            "templates": [self.probe, self.label_probe],
            "effort": self.preset,
            "variants and providers": [f"{entry.name} on {entry.provider}" for entry in self.entries],
            **({"provider library": options.provider_library} if options.provider_library else {}),
            "baselines": options.baselines,
            "threads": options.threads,
            "seed": options.seed,
            "budget": self.bounds,
            "--random-weights": options.random_weights,
            "machine": machine.cpu,
            "version of a package": machine.versions | installed_versions(packages),
        }

    def _prepare_baselines(self, scratch: Path) -> None:
        directories: dict[tuple[str, str], Path] = {}
        for number, compared in enumerate(self.bundles):
            for name in self.options.baselines:
                self.progress.say(f"making the model of {name} from {compared.label} …")
                place = scratch / str(number)
                place.mkdir(exist_ok=True)
                directories[compared.label, name] = prepare_baseline(name, compared.bundle, place, self.inputs.task)
        self.entries += baseline_entries(
            self.options.baselines, self.bundles, directories, self.options.threads, self.inputs.task
        )

    def _measure(self) -> None:
        steps = self._labelled_steps() + self._quality_steps() + self._speed_steps()
        todo = [step for step in steps if step.key not in self.journal]
        if self.options.resume:
            self.progress.say(f"{len(steps) - len(todo)} of {len(steps)} steps were there already")
        self.progress.plan({step.key: step.weight for step in todo})
        for step in steps:
            if step.key not in self.journal:
                self.progress.begin(step.key, step.label)
                self.journal.add(step.key, step.run())
                self.progress.finish()
            self._note_failures(step.key)

    def _note_failures(self, key: str) -> None:
        """Leave entries that failed in a step out of those that follow."""
        if key.startswith(QUALITY):
            step: QualityStep | AnswersStep | TimingStep | None = self.journal.get(QualityStep, key)
        elif key == ANSWERS:
            step = self.journal.get(AnswersStep, key)
        else:
            step = self.journal.get(TimingStep, key) if key.startswith(TIME) else None
        self.failed |= step.failed if step else {}

    def _labelled_steps(self) -> list[Step]:
        """Return the steps that measure on labelled data, each reference before what is compared with it."""
        steps: list[Step] = []
        for compared in self.bundles:
            reference, data = compared.reference_among(self.entries), self.data.get(compared.label)
            if reference is None or data is None:
                continue
            bench = LabelledBench(compared, reference, data, self.options)
            entries = [entry for entry in self.entries if entry.bundle == compared.label]
            entries.sort(key=partial(_is_other, reference))
            steps += [
                Step(
                    key=f"{LABELLED}{entry.name}",
                    label=f"labelled data: {entry.name}",
                    weight=len(data),
                    run=partial(bench.measure, entry, self.progress.update),
                )
                for entry in entries
            ]
        return steps

    def _quality_steps(self) -> list[Step]:
        steps: list[Step] = []
        for compared in self.bundles:
            reference = compared.reference_among(self.entries)
            if reference is None:
                continue
            samples = self.samples[compared.label]
            bench = QualityBench(
                compared, reference, samples, self.preset, seed=self.options.seed, bounds=self._bounds_of(compared)
            )
            entries = [entry for entry in self.entries if entry.bundle == compared.label and entry.kind == VARIANT]
            entries.sort(key=partial(_is_other, reference))
            steps += [
                Step(
                    key=f"{QUALITY}{entry.name}",
                    label=f"quality of {entry.name}",
                    weight=len(samples.first) + 8 * self.preset.stability,
                    run=partial(self._quality, bench, entry, reference),
                )
                for entry in entries
            ]
            steps += self._bias_steps(bench, compared, entries)
        return steps

    def _bias_steps(self, bench: QualityBench, compared: ComparedBundle, entries: list[Entry]) -> list[Step]:
        """Return the steps that ask a bundle's variants the probes of the heads that it has."""
        if self.options.random_weights:
            return []
        heads = compared.bundle.manifest.heads
        asked: list[tuple[str, str, Probe, Callable[..., BiasStep | LabelBiasStep]]] = []
        if MLM in heads and self.probe.templates:
            asked.append((BIAS, "bias probe", self.probe, self._bias))
        if SEQUENCE_CLASSIFICATION in heads and self.label_probe and self.label_probe.templates:
            asked.append((LABEL_BIAS, "bias probe of the labels", self.label_probe, self._label_bias))
        return [
            Step(
                key=f"{key}{entry.name}",
                label=f"{label} of {entry.name}",
                weight=len(sentences.pairs()) / 4,  # a pair is two short sentences
                run=partial(run, bench, entry, compared, sentences),
            )
            for key, label, sentences, run in asked
            for entry in entries
        ]

    def _quality(self, bench: QualityBench, entry: Entry, reference: Entry) -> QualityStep:
        if reference.name in self.failed:  # the others can still be timed
            return QualityStep()
        try:
            return bench.quality(entry, self.progress.update, decided=self._decided(entry))
        except BertportError as error:
            return QualityStep(failed={entry.name: as_unicode(str(error))})

    def _bounds_of(self, compared: ComparedBundle) -> dict[str, float]:
        """Return the bounds on which a bundle's variants are judged; none where their accuracy means nothing."""
        return (
            {}
            if self.options.random_weights
            else applicable(self.bounds, measured_rows(compared.bundle.manifest.heads))
        )

    def _recorded(self, entry: Entry) -> Recorded | None:
        """Return what the manifest records of a variant's accuracy that this comparison can use."""
        [compared] = [bundle for bundle in self.bundles if bundle.label == entry.bundle]
        variant = compared.bundle.manifest.variants.get(entry.variant or "")
        if variant is None:
            return None
        here = cpu().instruction_set
        return recorded(variant.fidelity, reference=compared.reference, provider=entry.provider, here=here)

    def _decided(self, entry: Entry) -> list[str]:
        """Return the bounds on which the manifest's record is a verdict, so that this run need not come to one."""
        record = self._recorded(entry) if self.options.text is None else None
        judged = judge_all(self.bounds, encode_object(record.figures)) if record else {}
        return [name for name, judgement in judged.items() if judgement.verdict != UNDECIDED]

    def _bias(self, bench: QualityBench, entry: Entry, compared: ComparedBundle, sentences: Probe) -> BiasStep:
        if entry.name in self.failed:
            return BiasStep()
        try:
            tokenizer, most = read_sample_tokenizer(compared.bundle), compared.bundle.manifest.max_length
            pairs = probe(bench.open(entry), tokenizer, sentences, max_length=most)
        except BertportError as error:
            return BiasStep(why=as_unicode(str(error)))
        return BiasStep(pairs=tuple(pairs))

    def _label_bias(
        self, bench: QualityBench, entry: Entry, compared: ComparedBundle, sentences: Probe
    ) -> LabelBiasStep:
        if entry.name in self.failed:
            return LabelBiasStep()
        tokenizer = read_sample_tokenizer(compared.bundle)
        try:
            pairs = probe_labels(bench.open(entry), tokenizer, sentences, compared.bundle.manifest)
        except BertportError as error:
            return LabelBiasStep(why=as_unicode(str(error)))
        return LabelBiasStep(pairs=tuple(pairs))

    def _speed_steps(self) -> list[Step]:
        preset, inputs, count = self.preset, self.inputs, len(self.entries)
        texts = len(inputs.texts)
        single_stream = scenario(SINGLE_STREAM, inputs)
        first = dataclasses.replace(single_stream, inputs=inputs.texts[:1])
        workloads: dict[str, tuple[Workload, float]] = {  # each with what one run weighs, in texts of 100 tokens
            SINGLE_STREAM: (single_stream, texts),
            OFFLINE: (scenario(OFFLINE, inputs), texts),
            **{name: (shape, shape.rows * shape.length / 100) for name, shape in self.shapes.items()},
        }
        groups = [list(workloads)] if preset.together else [[name] for name in workloads]
        passes = 1 + preset.rounds * preset.passes
        steps = [Step(key=PEAK, label="matmul peak of the machine", weight=50, run=self._peak)]
        if self.options.baselines:
            weight = count * (texts + 30)
            steps.append(Step(key=ANSWERS, label="answers to the same texts", weight=weight, run=self._answers))
        steps.append(
            Step(
                key=f"{TIME}{COLD_START}",
                label=f"speed: {COLD_START}",
                weight=count * preset.starts * 40,
                run=partial(self._time, {COLD_START: first}, rounds=preset.starts, runs=1, fresh=True),
            )
        )
        for names in groups:
            group = {name: workloads[name][0] for name in names}
            steps.append(
                Step(
                    key=f"{TIME}{', '.join(names)}",
                    label=f"speed: {', '.join(names)}",
                    weight=count * (20 + passes * sum(workloads[name][1] for name in names)),
                    run=partial(self._time, group, rounds=preset.rounds, runs=preset.passes, warmup=1),
                )
            )
        steps += [
            Step(
                key=f"{TIME}{server_name(share)}",
                label=f"speed: {SERVER} at {share:.0%} of the reference's rate",
                weight=count * (texts + preset.server_rounds * preset.requests / share),
                run=partial(self._server, share),
            )
            for share in preset.server_shares
        ]
        return steps

    def _peak(self) -> Machine:
        seconds = 0.3 if self.preset.name == QUICK.name else 1.0
        return describe_machine(matmul_gflops=matmul_peak(threads=self.options.threads, seconds=seconds))

    def _answers(self) -> AnswersStep:
        """Ask the references and the baselines for their best answers; those of variants are measured at length."""
        best = TIMED[self.inputs.task].best
        if best is None:
            return AnswersStep()
        answers, failed = {}, {}
        references = [compared.reference_among(self.entries) for compared in self.bundles]
        asked = [entry for entry in self.present() if entry.kind != VARIANT or entry in references]
        for number, entry in enumerate(asked):
            try:
                with Worker(entry.spec) as worker:
                    answers[entry.name] = tuple(best(worker.answers(scenario(SINGLE_STREAM, self.inputs))))
            except WorkerError as error:
                failed[entry.name] = as_unicode(str(error))
            self.progress.update(number + 1, len(asked))
        return AnswersStep(answers=answers, failed=failed)

    def _time(
        self, workloads: Mapping[str, Workload], *, rounds: int, runs: int, warmup: int = 0, fresh: bool = False
    ) -> TimingStep:
        failed: dict[str, str] = {}
        timed = interleave(
            [entry.spec for entry in self.present()],
            workloads,
            rounds=rounds,
            runs=runs,
            warmup=warmup,
            fresh=fresh,
            failed=lambda spec, error: failed.update({spec.name: as_unicode(str(error))}),
            waiting=lambda: self.progress.say(f"{awaited()} …"),
            progress=self.progress.update,
        )
        return TimingStep(runs=tuple(timed), failed=failed)

    def _server(self, share: float) -> TimingStep:
        alone = next(iter(self.runs().get(SINGLE_STREAM, {}).values()), None)
        if alone is None:
            return TimingStep(runs=())
        seconds = [value for turn in alone.rounds for value in turn]
        rate = share * len(seconds) / sum(seconds)
        workload = scenario(SERVER, self.inputs, rate=rate, requests=self.preset.requests, seed=self.options.seed)
        step = self._time({server_name(share): workload}, rounds=self.preset.server_rounds, runs=1, warmup=1)
        return dataclasses.replace(step, rate=rate, reference=alone.subject)


def _is_other(reference: Entry, entry: Entry) -> bool:
    return entry != reference


def _count(samples: Samples) -> SampleCounts:
    first = samples.first
    return SampleCounts(
        masked_positions=sum(len(sample.positions) for sample in first if sample.kind == TEXTS),
        masked_texts=sum(sample.kind == TEXTS for sample in first),
        pairs=sum(sample.is_pair for sample in first),
        tasks={kind: count for kind in TASK_KINDS if (count := sum(sample.kind == kind for sample in first))} or None,
    )


def _layer_tables(compared: ComparedBundle) -> dict[str, LayerTable]:
    """Read the tables of layers that quantization left in a bundle, by variant.

    Raises:
        BundleError: for one that is none.
    """
    tables = {}
    for name in compared.bundle.manifest.files:
        path = Path(name)
        if path.parent == Path("quantization") and path.suffix == ".json":
            try:
                value: JSON = json.loads(compared.bundle.read(name))
                tables[path.stem] = decode(LayerTable, value, name)
            except ValueError as error:
                raise BundleError(
                    f"{compared.bundle.path}: {name} is not a table of layers ({error}): quantize again"
                ) from error
    return tables


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
