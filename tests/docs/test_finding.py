"""The finder of examples finds them, runs them and notices when one is wrong."""

import subprocess

import pytest

from tests.docs import examples

PAGE = """
```console
$ echo one
one
$ printf '%s\\n' 0.7341 two
0.7339 two
```
```text
$ not run
```
```python
value = 3
```
```python
>>> value * 2
6
```
"""


def test_only_marked_blocks_are_found():
    found = list(examples.examples(PAGE))
    assert [(each.language, each.line) for each in found] == [("console", 3), ("python", 12), ("python", 15)]
    assert examples.commands(found[0]) == [("echo one", "one\n"), ("printf '%s\\n' 0.7341 two", "0.7339 two\n")]


def test_commands_and_outputs(tmp_path):
    for command, expected in examples.commands(next(examples.examples(PAGE))):
        assert examples.same_output(expected, examples.run_command(command, tmp_path, {"PATH": "/usr/bin:/bin"}))


def test_a_failing_command_is_noticed(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        examples.run_command("false | true", tmp_path, {"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("score 0.73", "score 0.79"), ("capital 0.73", "centre 0.73"), ("1 word", "2 words"), ("5", "6"), ("a", "")],
)
def test_a_different_output_is_noticed(shown, printed):
    assert not examples.same_output(shown, printed)


def test_python_blocks_share_a_namespace_and_a_wrong_one_is_noticed():
    namespace = {}
    _, first, second = examples.examples(PAGE)
    examples.run_python(first, namespace, "page")
    examples.run_python(second, namespace, "page")
    namespace["value"] = 4
    with pytest.raises(AssertionError, match="Got"):
        examples.run_python(second, namespace, "page")
