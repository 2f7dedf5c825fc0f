"""The bars of bench.performance: what speed is wanted on which class of CPU, and whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.performance.classes import CLASSES, class_of
from bench.performance.ratios import compare, exactly, times

if TYPE_CHECKING:
    from bertport.measure.statistics import Estimate

__all__ = ["BARS", "NAMES", "SHAPE_BARS", "Bar", "ShapeBar", "bars"]

NAMES = {"default": "Default model", "base": "BERT-base with seeded random weights", "tiny": "Tiny model, for trying"}
OVERHEAD, SHARE_OF_PEAK = 1.15, 0.8
"""Time over that of the bare tokenizer and session, and the share of the matmul peak at 1x128."""
WITHOUT_AMX = ("avx2", "vnni")
OPENVINO = (
    "openvino",
    "openvino streams",
    "openvino int8",
    "openvino int8 streams",
    "openvino plugin",
    "optimum-intel",
    "optimum-intel int8",
)
"""Every way in which people run OpenVINO."""
INT8 = ("bertport int8", "bertport int8-static-cpu", "bertport int8-dynamic")
"""Its 8-bit variants: the one that `load` takes on the CPU provider, and others."""
OURS = (*INT8, "bertport bf16", "bertport int8 streams")
"""Groups of variants that `load` may take within the budget, with one stream or several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row: a speed that is to be reached in fill-mask on real lengths."""

    model: str
    """The model."""
    ours: tuple[str, ...]
    """Groups of bertport's rows, of which the fastest row counts."""
    than: tuple[str, ...]
    """Groups of other rows, of which the fastest row counts."""
    called: str
    """Name of the comparison on the page."""
    least: float
    """Least ratio of speeds that meets the bar."""
    aim: float | None = None
    """Ratio that is aimed at, where that is more."""
    classes: tuple[str, ...] = tuple(CLASSES)
    """The classes of CPU that it is for."""


BARS = (
    *(
        Bar(model=model, ours=(f"bertport {ours}",), than=(than,), called=f"{ours} against {than}", least=least)
        for model, ours, than, least in (
            ("base", "fp32", "transformers", 2.6),
            ("base", "fp32", "optimum fp32", 1.5),
            ("default", "int8", "transformers", 6.0),
            ("default", "fp32", "transformers", 4.0),
        )
    ),
    *(
        Bar(
            model="base",
            ours=("bertport int8",),
            than=(than,),
            called=f"int8 against {than}",
            least=least,
            classes=WITHOUT_AMX,
        )
        for than, least in (("transformers", 5.0), ("optimum int8", 2.1))
    ),
    *(
        Bar(
            model=model,
            ours=OURS,
            than=OPENVINO,
            called="the fastest variant against the fastest of OpenVINO's set-ups",
            least=1.2,
            aim=1.5,
            classes=("amx",),
        )
        for model in ("base", "default")
    ),
)
"""Bars of fill-mask; the best size of batch of each peer counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeBar:
    """One row: how many times as fast as its own fp32 a graph alone is to be, at a fixed shape."""

    model: str
    """The model."""
    ours: tuple[str, ...]
    """Groups of which the fastest counts."""
    shape: tuple[int, int]
    """Rows and tokens."""
    least: float
    """Least ratio of speeds that meets the bar."""
    classes: tuple[str, ...]
    """The classes of CPU that it is for."""


SHAPE_BARS = tuple(
    ShapeBar(model=model, ours=ours, shape=shape, least=least, classes=("amx",))
    for model, ours, wanted in (
        ("default", ("bertport bf16",), {(1, 128): 2.3, (8, 128): 2.3, (1, 512): 2.3}),
        ("default", OURS, {(1, 16): 1.6}),
        ("default", INT8, {(1, 128): 1.7}),
        ("base", OURS, {(1, 16): 1.6, (1, 128): 2.1, (8, 128): 3.0, (1, 512): 3.0}),
    )
    for shape, least in wanted.items()
)
"""Bars of fixed shapes."""


def bars(result: dict[str, Any], figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each bar of this class of CPU, what was wanted and measured, and whether it is met."""
    name = class_of(result["machine"]["instruction_set"]).name
    return [
        *(_of_texts(bar, result["models"]) for bar in BARS if name in bar.classes),
        *(_of_shape(bar, figures["shapes"]) for bar in SHAPE_BARS if name in bar.classes),
        *_of_overhead(figures["ratios"]),
        *_of_peak(figures["shapes"]),
    ]


def _said(bar: str, wanted: str, measured: str | None, *, met: bool) -> dict[str, Any]:
    return {"bar": bar, "wanted": wanted, "found": measured or "not measured", "met": met and measured is not None}


def _of_texts(bar: Bar, models: dict[str, Any]) -> dict[str, Any]:
    rows = [row for row in models.get(bar.model, {"rows": ()})["rows"] if row["task"] == "fill-mask"]
    compared = compare(rows, bar.ours, bar.than)
    aim = f", aim {bar.aim}x" if bar.aim else ""
    wanted, text = f"at least {bar.least}x{aim}", f"{NAMES[bar.model]}: {bar.called}"
    if compared is None:
        return _said(text, wanted, None, met=False)
    estimate: Estimate = compared.times
    return _said(text, wanted, times(estimate, bar.least), met=estimate.value >= bar.least)


def _of_shape(bar: ShapeBar, shapes: list[dict[str, Any]]) -> dict[str, Any]:
    ms = {
        shape["group"]: shape["ms"]
        for shape in shapes
        if (shape["model"], tuple(shape["shape"])) == (bar.model, bar.shape)
    }
    ours = min((ms[group] for group in bar.ours if group in ms), default=None)
    text = f"{NAMES[bar.model]}: {_fastest(bar.ours)} against fp32 on the CPU provider at {bar.shape[0]}x{bar.shape[1]}"
    if ours is None or "bertport fp32" not in ms:
        return _said(text, f"at least {bar.least}x", None, met=False)
    ratio = ms["bertport fp32"] / ours
    return _said(text, f"at least {bar.least}x", f"{exactly(ratio, bar.least)}x", met=ratio >= bar.least)


def _fastest(groups: tuple[str, ...]) -> str:
    names = [group.removeprefix("bertport ") for group in groups if not group.endswith("streams")]
    return names[0] if len(names) == 1 else f"the fastest of {', '.join(names[:-1])} and {names[-1]}"


def _of_overhead(ratios: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        _said(
            f"{NAMES['default']}: {ratio['subject']}, time over that of its tokenizer and session alone",
            f"at most {OVERHEAD:.2f}",
            exactly(1 / ratio["times"][0], OVERHEAD),
            met=1 / ratio["times"][0] <= OVERHEAD,
        )
        for ratio in ratios
        if (ratio["model"], ratio["task"]) == ("default", "fill-mask") and ratio["than"].startswith("bare")
    ]


def _of_peak(shapes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        _said(
            f"{NAMES[shape['model']]}: fp32 at 1x128, share of the matmul peak",
            f"at least {SHARE_OF_PEAK:.0%}",
            f"{exactly(100 * shape['share_of_peak'], 100 * SHARE_OF_PEAK, 0)}%",
            met=shape["share_of_peak"] >= SHARE_OF_PEAK,
        )
        for shape in shapes
        if shape["shape"] == [1, 128] and shape["group"] == "bertport fp32" and shape["model"] != "tiny"
    ]
