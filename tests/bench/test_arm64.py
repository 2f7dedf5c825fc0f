"""What the page says of arm64 follows from the data, and what was refused is not called not run."""

from bench.arm64.__main__ import main
from bench.arm64.page import section

ROW = {"cpu": "max", "bundle": "b", "variant": "int8-dynamic", "result": "within", "said": None}
GUEST = {"features": ["sve"], "python": "3", "onnxruntime": "1", "numpy": "2", "tokenizers": "0"}


def test_the_page_is_what_the_data_say():
    main(["page", "--check"])


def test_a_cell_is_the_worst_of_its_rows_refused_or_not_run():
    measured = [{**ROW, "difference": far, "tolerance": 0.5} for far in (0.1, 0.2)]
    refused = {
        **ROW,
        "variant": "int8-static",
        "result": "refused",
        "difference": None,
        "tolerance": None,
        "said": "no",
    }
    rows = [*measured, refused]
    guests = {"max": GUEST, "cortex-a72": {**GUEST, "features": []}}
    text = section({"guests": guests, "rows": rows, "date": "2026-11-29T00:00:00Z", "commit": "0" * 40})
    assert "| int8-dynamic | 40% (1) | not run |" in text
    assert "| int8-static | refused | not run |" in text
    assert "| `max` | no | no | yes | 3 | 0 | 2 | 0 | 1 |" in text
    assert "- int8-static: no" in text
