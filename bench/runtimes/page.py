"""Tables of docs/reference/runtimes.md, from the data files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, read_data, wrapped
from bench.plugins.bundles import DEFAULT
from bertport.runtime.heads import HEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

__all__ = ["DATA", "PAGE", "Result", "cell", "missing", "results", "section"]

FOLDER = ROOT / "docs" / "data"
DATA = FOLDER / "runtimes.json"
PAGE = ROOT / "docs" / "reference" / "runtimes.md"
EQUAL = 1e-4
"""Difference up to which values count as equal: what float32 is allowed (docs/reference/golden.md)."""
ENCODER = "encoder"
OF_OUTPUT = {head.output: name for name, head in HEADS.items()}
"""Heads by the names of their outputs; an output without one is the encoder's."""
VARIANTS = (
    "portable",
    "fp32",
    "int8-dynamic",
    "int8-static-cpu",
    "int8-static",
    "int8-weight-only",
    "int4-weight-only",
)
"""Variants that have a table, in its order."""
NOT_RUN = {
    "TensorRT": "needs an NVIDIA GPU; above is what its rules say of `int8-static`",
    "CoreML": "needs macOS",
    "QNN": "needs Qualcomm's hardware, or its SDK",
    "DirectML, Windows ML": "need Windows",
    "MIGraphX": "needs an AMD GPU",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of a runtime for one output of a variant of a bundle."""

    runtime: str
    """Its name and version, and what it ran on."""
    bundle: str
    """Name of the bundle."""
    variant: str
    """The variant's name."""
    head: str | None
    """The head whose output it is, or `encoder`; None for every one, where a graph was refused or only built."""
    difference: float | None = None
    """Largest difference from what is expected; None where it did not run, had another shape, or gave no finite
    numbers."""
    tolerance: float | None = None
    """Largest difference allowed; None where it did not run."""
    refused: str | None = None
    """Message with which it was refused; None where it was not."""
    no_answer: float | None = None
    """Seconds in which no answer came; None where one did."""
    built: bool = False
    """Whether the graph was compiled and not run."""


def cell(listed: Collection[Result]) -> str:
    """Return what a table says of some results: equal, within (how far, of what is allowed), refused, and so on."""
    bundles = {each.bundle for each in listed}
    refused = [each for each in listed if each.refused is not None]
    silent = [each for each in listed if each.no_answer is not None]
    ran = [each for each in listed if each not in refused and each not in silent]
    said = [_ran(ran)] if ran else []
    for word, some in (("refused", refused), ("no answer", silent)):
        if some:
            all_of_them = len(some) == len(listed)
            said.append(word if all_of_them else f"{len({each.bundle for each in some})} of {len(bundles)} {word}")
    return "; ".join(said)


def _ran(listed: Sequence[Result]) -> str:
    if all(each.built for each in listed):
        return "built"
    worst = 0.0
    for each in listed:
        if each.difference is None or each.tolerance is None or not each.difference <= each.tolerance:
            return "**differs**"
        if each.difference > EQUAL:
            worst = max(worst, each.difference / each.tolerance)
    return f"within {max(worst, 0.01):.0%}" if worst else "equal"


def results() -> list[Result]:
    """Return what all data files have."""
    return [each for name, (_, read) in SOURCES.items() for each in read(_data(name))]


def section() -> str:
    """Return the part of the page that the data give."""
    listed = results()
    runtimes = list(dict.fromkeys(each.runtime for each in listed))
    order = [*HEADS, ENCODER]
    has: dict[str, set[str]] = {}
    for each in listed:
        if each.head is not None:
            has.setdefault(each.bundle, set()).add(each.head)
    lines: list[str] = []
    for variant in VARIANTS:
        of_variant = [each for each in listed if each.variant == variant]
        heads = [head for head in order if any(head in has.get(each.bundle, {ENCODER}) for each in of_variant)]
        lines += [f"### `{variant}`", ""]
        lines += ["| runtime | bundles | " + " | ".join(heads) + " |", "|---|---:|" + "---|" * len(heads)]
        for runtime in runtimes:
            own = [each for each in of_variant if each.runtime == runtime]
            if not own:
                continue
            shown = [
                cell(
                    [
                        each
                        for each in own
                        if each.head == head or (each.head is None and head in has.get(each.bundle, {ENCODER}))
                    ]
                )
                for head in heads
            ]
            lines.append(f"| {runtime} | {len({each.bundle for each in own})} | " + " | ".join(shown) + " |")
        lacking = [
            runtime
            for runtime in runtimes
            if not any(each.runtime == runtime for each in of_variant) and not runtime.endswith(FORM)
        ]
        lines += ["", *([f"Not run: {'; '.join(lacking)}.", ""] if lacking else [])]
    parts = (lines, _words(listed), _silent(listed), _rules(_data("runtimes")), _not_run(listed), _sources())
    return "\n".join(line for part in parts for line in part)


def missing(listed: Collection[Result]) -> tuple[list[str], list[str]]:
    """Return the heads, and the titles of the families, that no runtime has answered from."""
    from bertport.export.checkpoint.families import BERT, FAMILIES

    answered = [each for each in listed if each.tolerance is not None]
    heads = {each.head for each in answered}
    # Such as "tiny electra, replaced tokens"; the default model and the small ones of the documentation are BERTs.
    families = {BERT, *(each.bundle.removeprefix("tiny ").partition(",")[0] for each in answered)}
    return (
        [name for name in HEADS if name not in heads],
        [family.title for name, family in FAMILIES.items() if name not in families],
    )


def _data(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    return read_data(path, SOURCES[name][0]) if path.is_file() else {}


TITLES = {
    "onnxruntime": "ONNX Runtime {version}, x86-64",
    "onnxruntime oldest": "ONNX Runtime {version}, x86-64",
    "openvino": "OpenVINO {version}, its own API",
    "onnx.reference": "ONNX {version}'s reference evaluator",
    "onnxruntime-node": "onnxruntime-node {version}",
    "onnxruntime-web": "onnxruntime-web {version}, WebAssembly in Node.js",
}


def _proven(data: Mapping[str, Any]) -> Iterator[Result]:
    for name, found in data.get("runtimes", {}).items():
        runtime = TITLES[name].format(version=found["version"])
        for bundle, variants in found["bundles"].items():
            for variant, told in variants.items():
                yield from _told(told, runtime=runtime, bundle=bundle, variant=variant)


def _told(told: Mapping[str, Any], **place: Any) -> Iterator[Result]:  # noqa: ANN401 — fields of Result
    if "refused" in told:
        yield Result(**place, head=None, refused=told["refused"])
    if "no_answer_seconds" in told:
        yield Result(**place, head=None, no_answer=told["no_answer_seconds"])
    for row in told.get("outputs", {}).values():
        difference = None if "said" in row else row["difference"]
        yield Result(**place, head=row["head"], difference=difference, tolerance=row["tolerance"])


def _arm64(data: Mapping[str, Any]) -> Iterator[Result]:
    for row in data.get("rows", ()):
        version = data["guests"][row["cpu"]]["onnxruntime"]
        place = {"runtime": f"ONNX Runtime {version}, arm64 `{row['cpu']}`", "bundle": row["bundle"]}
        if row["result"] == "refused":
            yield Result(**place, variant=row["variant"], head=None, refused=row["said"])
        else:
            head = row["head"] or (ENCODER if row["output"] else None)
            within = {"difference": row["difference"], "tolerance": row["tolerance"] or 0.0}
            yield Result(**place, variant=row["variant"], head=head, **within)


def _site(data: Mapping[str, Any]) -> Iterator[Result]:
    on = {"cpu": "WebAssembly", "gpu": "WebGPU by SwiftShader"}
    for row in data.get("rows", ()):
        versions = data["versions"]
        chromium = versions["chromium"].partition(".")[0]
        runtime = f"onnxruntime-web {versions['onnxruntime-web']}, {on[row['device']]} in Chromium {chromium}"
        for output, found in row["golden"]["outputs"].items():
            held = found["worst"] if row["golden"]["holds"] else None
            place = {"runtime": runtime, "bundle": DEFAULT, "variant": row["variant"]}
            yield Result(**place, head=OF_OUTPUT.get(output, ENCODER), difference=held, tolerance=found["tolerance"])


def _transformers_js(data: Mapping[str, Any]) -> Iterator[Result]:
    """Yield what pipelines answered: probabilities and vectors, which float32 gives as far as it gives logits."""
    if "heads" not in data:
        return
    runtime = f"transformers.js {data['versions']['@huggingface/transformers']}, its pipelines"
    theirs = data["transformers_js"]
    for variant, words in {"portable": theirs["fill-mask"], **theirs["variants"]}.items():
        default: dict[str, Any] = {"runtime": runtime, "bundle": DEFAULT, "variant": variant}
        if "fails" in words:
            yield Result(**default, head=None, refused=words["fails"])
        else:
            far = words["largest_difference"] if words["equal"] + words["ties"] == words["texts"] else None
            yield Result(**default, head="mlm", difference=far, tolerance=EQUAL)
    place: dict[str, Any] = {"runtime": runtime, "variant": "portable"}
    far = theirs["features"]["largest_difference"]
    yield Result(**place, bundle=DEFAULT, head=ENCODER, difference=far, tolerance=EQUAL)
    for row in data["heads"]:
        said = row["transformers_js"]
        if said is None or isinstance(said, str):  # it has no pipeline, or the data are of before
            continue
        place_of = {**place, "bundle": row["bundle"], "head": row["head"]}
        if "fails" in said:
            yield Result(**place_of, refused=said["fails"])
        else:
            yield Result(**place_of, difference=said["largest_difference"], tolerance=EQUAL)
    yield from _transformers_js_forms(data, runtime.replace("its pipelines", FORM))


def _transformers_js_forms(data: Mapping[str, Any], runtime: str) -> Iterator[Result]:
    """Yield what pipelines answered from INT8 variants in portable form."""
    for variant, said in data["transformers_js"].get("forms", {}).items():
        place: dict[str, Any] = {"runtime": runtime, "bundle": DEFAULT, "variant": variant}
        if "fails" in said:
            yield Result(**place, head=None, refused=said["fails"])
            continue
        words = said["fill-mask"]
        far = words["largest_difference"] if words["equal"] + words["ties"] == words["texts"] else None
        yield Result(**place, head="mlm", difference=far, tolerance=EQUAL)
        yield Result(**place, head=ENCODER, difference=said["features"]["largest_difference"], tolerance=EQUAL)
    for row in data["heads"]:
        int8 = row.get("transformers_js_int8")
        if int8 is None:
            continue
        place = {"runtime": runtime, "variant": "int8-dynamic", "bundle": row["bundle"], "head": row["head"]}
        if "fails" in int8:
            yield Result(**place, refused=int8["fails"])
        else:
            yield Result(**place, difference=int8["largest_difference"], tolerance=EQUAL)


def _webgpu(data: Mapping[str, Any]) -> Iterator[Result]:
    for bundle, variants in data.get("bundles", {}).items():
        runtime = f"WebGPU's plugin {data['versions']['onnxruntime-ep-webgpu']}, SwiftShader"
        for variant, told in variants.items():
            place = {"runtime": runtime, "bundle": bundle, "variant": variant}
            if "refused" in told:
                yield Result(**place, head=None, refused=told["words"] or told["refused"])
            for output, difference in told.get("differences", {}).items():
                yield Result(**place, head=OF_OUTPUT.get(output, ENCODER), difference=difference, tolerance=EQUAL)


def _rtx(data: Mapping[str, Any]) -> Iterator[Result]:
    for bundle, variants in data.get("bundles", {}).items():
        for variant, told in variants.items():
            runtime = f"TensorRT for RTX {data['version']}, engines"
            place = {"runtime": runtime, "bundle": bundle, "variant": variant}
            yield Result(**place, head=None, refused=told.get("refused"), built="refused" not in told)


FORM = "portable form"
"""The end of the name of a runtime that was given variants in this form, which not every variant needs."""
LONGEST_WORDS = 240
OURS = re.compile(r"variant ['\"]")
"""The beginning of sentences of bertport's, in Python and JavaScript; no runtime's begin so."""
REFUSED_BY_US = (
    "Where bertport refuses a variant, the runtime did not see it: the manifest states the precision that a variant is "
    "computed in, and the table of providers which precisions are right where. So `int8-static` is for GPUs. ONNX "
    "Runtime's CPU provider does compute it if it is asked directly, as in the first rows of its table. But it makes "
    "the signed products unsigned, and on CPUs with AVX2 alone these may overflow. The golden values of the variant "
    "were computed on such a CPU in the same way, so they cannot show the overflow. `int8-static-cpu` is safe there."
)


def _words(listed: Sequence[Result]) -> list[str]:
    """Return who refuses what, in its own words."""
    said: dict[tuple[str, str, str], set[str]] = {}
    for each in listed:
        if each.refused is not None and each.variant in VARIANTS:
            said.setdefault((each.runtime, each.variant, _short(each.refused)), set()).add(each.bundle)
    lines = [
        "### Who refuses what",
        "",
        "| runtime | variant | bundles | refused by | message |",
        "|---|---|---|---|---|",
    ]
    rows = sorted(said.items(), key=lambda item: (item[0][0], VARIANTS.index(item[0][1]), item[0][2]))
    shown: set[tuple[str, str]] = set()
    for (runtime, variant, words), bundles in rows:
        if (runtime, variant) in shown:  # the same reason, of another operator of the graph
            continue
        shown.add((runtime, variant))
        every = {name for (other, of, _), names in said.items() if (other, of) == (runtime, variant) for name in names}
        first = min(bundles)
        more = "" if len(every) == 1 else f" and {len(every) - 1} more"
        who = "bertport" if OURS.match(words) else "the runtime"
        lines.append(f"| {runtime} | `{variant}` | {first}{more} | {who} | {words} |")
    return [*lines, "", *wrapped(REFUSED_BY_US), ""]


def _silent(listed: Sequence[Result]) -> list[str]:
    """Return who gave no answer, and after what time the process was ended."""
    found: dict[tuple[float, str, str], list[str]] = {}
    for each in listed:
        if each.no_answer is not None:
            found.setdefault((each.no_answer, each.runtime, each.variant), []).append(each.bundle)
    said = [
        f"{runtime}, `{variant}` of {', '.join(bundles)} (in {seconds / 60:.0f} minutes)"
        for (seconds, runtime, variant), bundles in found.items()
    ]
    return [*wrapped(f"**No answer**: {'; '.join(said)}."), ""] if said else []


def _short(words: str) -> str:
    plain = words.replace("|", "/").replace("`", "'").replace("<", "(").replace(">", ")")
    return plain if len(plain) <= LONGEST_WORDS else f"{plain[:LONGEST_WORDS].rstrip()}…"


def _rules(data: Mapping[str, Any]) -> list[str]:
    """Return what TensorRT's rules for 8-bit graphs say of each variant."""
    lines = ["### TensorRT's rules, without TensorRT", "", "| variant | follows them | breaks them |", "|---|---:|---|"]
    found = data.get("tensorrt_rules", {})
    for variant in VARIANTS:
        told = {bundle: variants[variant] for bundle, variants in found.items() if variant in variants}
        broken = {bundle: phrases for bundle, phrases in told.items() if phrases}
        if not told:
            continue
        words = "; ".join(f"{bundle}: {_short(phrases[0])}" for bundle, phrases in list(broken.items())[:1])
        lines.append(f"| `{variant}` | {len(told) - len(broken)} of {len(told)} | {words} |")
    return [*lines, ""]


def _not_run(listed: Sequence[Result]) -> list[str]:
    heads, families = missing(listed)
    left = [
        *([f"heads: {', '.join(f'`{name}`' for name in heads)}"] if heads else []),
        *([f"families: {', '.join(families)}"] if families else []),
    ]
    lines = ["### Not run", "", "| runtime | why |", "|---|---|"]
    lines += [*(f"| {name} | {why} |" for name, why in NOT_RUN.items()), ""]
    return (
        [*lines, *wrapped(f"No runtime has answered so far from these {'; and from these '.join(left)}."), ""]
        if left
        else lines
    )


SOURCES: dict[str, tuple[str, Callable[[Mapping[str, Any]], Iterator[Result]]]] = {
    "runtimes": ("bench.runtimes run", _proven),
    "runtimes-arm64": ("bench.arm64 run", _arm64),
    "site": ("bench.site", _site),
    "node": ("bench.node", _transformers_js),
    "webgpu": ("bench.plugins webgpu", _webgpu),
    "tensorrt-rtx": ("bench.plugins engines", _rtx),
}
"""By the name of a data file, in the order of the tables: the program that writes it, and what reads its results."""


def _sources() -> list[str]:
    lines = [
        "### Where the figures are from",
        "",
        "| data | by `python -m` | commit | date | CPU |",
        "|---|---|---|---|---|",
    ]
    for name, (program, _) in SOURCES.items():
        data = _data(name)
        if data:
            machine = f"{data['machine']['cpu']}, {data['machine']['instruction_set']}"
            lines.append(
                f"| [{name}.json](../data/{name}.json) | `{program}` | {data['commit'][:10]} | {data['date'][:10]} | "
                f"{machine} |"
            )
    return [*lines, ""]
