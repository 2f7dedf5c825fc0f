"""Every example in the README and in docs/ runs, and prints what the page shows."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bertport.runtime.bundle import default
from tests.docs import examples
from tests.hub_stand_in import TOKEN, stand_in
from tests.sentence_models import PROMPTS, sentence_model

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "models" / "default"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUNED = [
    ROOT / "docs" / name
    for name in (
        "guide/fine-tuned.md",
        "how-to/from-sentence-transformers.md",
        "how-to/from-transformers.md",
        "how-to/measure-on-your-task.md",
    )
]
"""The pages that also have the checkpoints of docs/small_models.py."""
LONG = [
    ROOT / "docs" / name
    for name in (
        "guide/embeddings.md",
        "guide/export.md",
        "guide/install.md",
        "guide/serve.md",
        "how-to/add-your-own-head.md",
        "how-to/measure-your-model.md",
        "how-to/scikit-learn.md",
        "how-to/small-device.md",
        "how-to/triton.md",
        "reference/export.md",
        "reference/golden.md",
        "reference/http.md",
    )
]
"""The pages whose examples export, serve or compare several models, install, or search with one: the longest."""
PRINTED = {"measure-on-your-task.md": ("bertport evaluate mybundle --data reviews.csv", "  difference in points")}
"""Pages that show below a command what it prints, in a block of its own since the numbers are those of a model that is
trained anew: the command's beginning, and that of the first line that depends on them."""
REWRITE = os.environ.get("BERTPORT_REWRITE_DOCS") == "1"
"""Set by `dev.py docs`: write what the commands print into the pages, instead of comparing."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A seeded BERT with both heads, small enough to export in seconds, with the default bundle's tokenizer."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    directory = tmp_path_factory.mktemp("source") / "checkpoint"
    torch.manual_seed(7)
    config = BertConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=64)
    BertForPreTraining(config).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(DEFAULT / name, directory / name)
    return directory


@pytest.fixture(scope="module")
def small_models(tmp_path_factory):
    """The directory of the checkpoints that docs/small_models.py trains."""
    directory = tmp_path_factory.mktemp("small")
    program = [sys.executable, str(ROOT / "docs" / "small_models.py"), str(directory)]
    subprocess.run(program, check=True, capture_output=True)
    return directory


@pytest.fixture
def place(tmp_path, checkpoint):
    """A directory as the pages assume it: `bundle` is the default bundle, the others are small checkpoints."""
    shutil.copytree(DEFAULT, tmp_path / "bundle")
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    sentence_model(tmp_path / "sentences", checkpoint, prompts=PROMPTS)
    yield tmp_path
    started = tmp_path / "serve.pid"  # a server that a page starts and, where it fails midway, does not end
    with contextlib.suppress(OSError):
        pid = int(started.read_text(encoding="ascii"))
        if Path(f"/proc/{pid}/cwd").readlink() == tmp_path:  # the number may be another's by now
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The bundle that an installation embeds, and a folder with a command `bertport` that has it, as one has."""
    from bertport.runtime.bundle.packing import pack

    place = tmp_path_factory.mktemp("installed")
    pack(DEFAULT, place / "default", variants=["int8-dynamic"])
    command = place / "bin" / "bertport"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\n"
        "from pathlib import Path\n"
        "from bertport.runtime.bundle import default\n"
        f"default.PLACES = (Path({str(place / 'default')!r}),)\n"
        "from bertport.runtime.cli import main\n"
        "main()\n"
    )
    command.chmod(0o755)
    return place


@pytest.fixture
def hub_of_commands(tmp_path, monkeypatch):
    """Have commands ask a Hub of our own, which is empty, with a token that may write."""
    with stand_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def marked(page):
    """A page as a parameter; those with checkpoints of their own, or that train heads or compare, take long."""
    marks = [pytest.mark.slow, pytest.mark.timeout(900)] if page in (*TUNED, *LONG) else []
    return pytest.param(page, id=page.relative_to(ROOT).as_posix(), marks=marks)


WITH_EXAMPLES = [page for page in PAGES if any(examples.examples(page.read_text(encoding="utf-8")))]
"""The others need no directory that is made for them."""


@pytest.mark.parametrize("page", [marked(page) for page in WITH_EXAMPLES])
def test_examples_of(page, place, embedded, request, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(default, "PLACES", (embedded / "default",))
    if page in TUNED:
        shutil.copytree(request.getfixturevalue("small_models"), place, dirs_exist_ok=True)
    if page.name == "export.md":
        request.getfixturevalue("hub_of_commands")
    if page.name == "quantize.md":
        shutil.copytree(DEFAULT, "mybundle")  # as the page's commands leave it: fp32 and int8-dynamic
    programs = os.pathsep.join(map(str, (embedded / "bin", Path(sys.executable).parent)))
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"}
    text = page.read_text(encoding="utf-8")
    namespace, outputs = {"__name__": "__main__"}, {}
    for example in examples.examples(text):
        where = f"{page.relative_to(ROOT)}:{example.line}"
        if example.language == "python":
            examples.run_python(example, namespace, where)
            continue
        printed = text_of = ""
        for command, expected in examples.commands(example):
            try:
                printed = examples.run_command(command, place, environment)
            except subprocess.CalledProcessError as error:
                pytest.fail(f"{where}: {command}\nexit code {error.returncode}\n{error.stdout}{error.stderr}")
            outputs.setdefault(command, printed)
            same = not expected or examples.same_output(expected, printed)
            assert same or REWRITE, f"{where}: {command}\nshown:\n{expected}\nprinted:\n{printed}"
            continuation = command.replace("\n", "\n> ")
            text_of += f"$ {continuation}\n{expected if same else printed}"
        text = text.replace(example.text, text_of) if REWRITE else text
    if page.name in PRINTED:
        beginning, end = PRINTED[page.name]
        printed = next(output for command, output in outputs.items() if command.startswith(beginning))
        wanted = next(block.text for block in examples.blocks(text) if f"\n{end}" in block.text)
        wanted, printed = (each.partition(f"\n{end}")[0] for each in (wanted, printed))
        assert examples.same_but_for_numbers(wanted, printed), f"shown:\n{wanted}\nprinted:\n{printed}"
    if REWRITE:
        page.write_text(text, encoding="utf-8")


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        if page.name != "README.md":
            assert f"]({page.relative_to(ROOT / 'docs').as_posix()})" in index


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
