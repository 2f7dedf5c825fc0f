"""A plugin that the user names: every command that takes a provider takes its library too, and says what is wrong."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from bertport.compare.entries import make_entries, open_bundles
from bertport.runtime import cli
from bertport.runtime.errors import UsageError
from bertport.runtime.providers.table import AUTO


def test_every_command_that_takes_a_provider_takes_its_library():
    context = click.Context(cli.app)
    taken = {}
    for name in cli.app.list_commands(context):
        options = {option for parameter in cli.app.get_command(context, name).params for option in parameter.opts}
        taken[name] = options & {"--provider", "--provider-library"}
    assert {name for name, options in taken.items() if len(options) == 1} == set()
    assert {"fill-mask", "predict", "serve", "compare", "evaluate"} <= {name for name in taken if taken[name]}


@pytest.mark.parametrize(
    "command",
    [
        ("fill-mask", "a [MASK].", "--model", "BUNDLE"),
        ("verify", "--golden", "--variant", "fp32"),
        ("serve", "BUNDLE", "--port", "0"),
        ("compare", "BUNDLE", "--output", "OUT", "--quick"),
        ("evaluate", "BUNDLE", "--data", "DATA"),
    ],
    ids=lambda command: command[0],
)
def test_a_file_that_is_no_library_is_one_sentence(command, tiny_bundle, tmp_path):
    library, data = tmp_path / "libnone.so", tmp_path / "data.csv"
    library.write_text("no library")
    data.write_text("text,label\na,0\n")
    places = {"BUNDLE": str(tiny_bundle), "OUT": str(tmp_path / "out"), "DATA": str(data)}
    done = CliRunner().invoke(cli.app, [*(places.get(word, word) for word in command), "--provider-library", library])
    assert done.exit_code == 1
    assert "libnone.so does not register with ONNX Runtime" in done.stderr


def test_a_library_holds_no_provider_that_comes_with_onnx_runtime(tiny_bundle, tmp_path):
    with pytest.raises(UsageError, match=r"no plugin holds cpu, which come with ONNX Runtime: leave out the library"):
        make_entries(open_bundles([tiny_bundle]), providers=["cpu"], library=tmp_path / "libnone.so")
    done = CliRunner().invoke(cli.app, ["serve", str(tiny_bundle), "--provider", "none"])
    assert done.exit_code == 2
    assert AUTO in done.stderr
