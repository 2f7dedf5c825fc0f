"""What the page says of a GPU is what its program writes, measured or not."""

from __future__ import annotations

from bench.checkout import ROOT
from bench.gpu.page import NEVER, page

PAGE = ROOT / "docs" / "research" / "gpu.md"
MEASURED = {
    "tests_passed": True,
    "rows": [
        {
            "row": "bertport:fp16:cuda",
            "gpu": ["a GPU"],
            "peak_gflops": 100.0,
            "shapes": {"1x16": {"ms": 1.0, "gflops": 50.0}},
            "fidelity": {"top1_agreement": 0.99, "kl": 1e-4, "nsp_flips": 0.0},
        },
        {"row": "bertport:fp16:tensorrt", "failed": "no such library"},
    ],
}


def test_the_page_is_what_the_program_writes():
    assert PAGE.read_text(encoding="utf-8") == page(None)


def test_what_has_run_is_no_more_among_what_never_has():
    text = page(MEASURED)
    assert "| bertport:fp16:cuda | 1.00 (50%) | 99.0% | 0.0001 | 0.0% |" in text
    assert "bertport:fp16:tensorrt did not run: no such library" in text
    never = {name for name, _ in NEVER if f"\n| {name} | " in text}
    assert never == {"TensorRT", "arm64"}


def test_what_ran_emulated_is_not_denied():
    assert (PAGE.parent / "arm64.md").is_file()
    assert "[emulated](arm64.md)" in dict(NEVER)["arm64"]
