"""The output directory of a comparison: one comparison at a time writes there."""

import pytest
from click.testing import CliRunner

from bertport.compare.resume import Journal, exclusive_output
from bertport.runtime.cli import app
from bertport.runtime.errors import PathError
from tests.compare.report.test_document import GOLDEN


def test_a_second_comparison_into_the_same_directory_is_refused(tmp_path):
    out = tmp_path / "out"
    command = ["compare", "--from", str(GOLDEN["default"]), "--output", str(out)]
    with exclusive_output(out):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2
        assert done.stderr == (
            f"bertport: error: another comparison writes into {out}: wait for it to end, or choose another --output\n"
        )
    assert not out.exists()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert {path.name for path in out.iterdir()} == {f"report.{suffix}" for suffix in ("html", "md", "json", "csv")}


def test_a_directory_that_was_made_for_nothing_goes_again(tmp_path):
    out = tmp_path / "out"
    arguments = ["compare", "--quick", "--resume", "--output", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "holds no unfinished comparison" in done.stderr
    assert not out.exists()


def test_a_directory_that_nobody_can_make_is_said(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(PathError, match="choose another --output"), exclusive_output(tmp_path / "file" / "out"):
        pass


@pytest.mark.parametrize("damaged", [b"\xff\xfe\x00", b"\0" * 100, b'{"step": "b\xff", "value": 2}', b"[" * 100_000])
def test_a_journal_is_gone_on_with_up_to_what_is_damaged(tmp_path, damaged):
    path = tmp_path / "unfinished.jsonl"
    path.write_bytes(b'{"settings": {"seed": 1}}\n{"step": "a", "value": 1}\n' + damaged + b"\n")
    assert Journal(path, {"seed": 1}, resume=True).steps() == ["a"]
