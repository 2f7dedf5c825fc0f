"""Directories of sentence-transformers: the encoder is found in them, and what is left out is said."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from bertport.export import export
from bertport.export.checkpoint.sentence_transformers import encoder_of
from bertport.export.checkpoint.source import locate
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import CheckpointError
from tests.hub_cache import COMMIT, serving

OLD = "sentence_transformers.models."
MODULES = [("", f"{OLD}Transformer"), ("1_Pooling", f"{OLD}Pooling"), ("2_Normalize", f"{OLD}Normalize")]
LEFT = (
    "left out: Pooling, Normalize of the sentence-transformers model: the bundle gives the vectors of tokens, pooled "
    "as `features` is asked to"
)


def listed(*modules):
    rows = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(modules)]
    return json.dumps(rows)


def encoder_at(path):
    return listed((path, f"{OLD}Transformer"))


@pytest.fixture(params=["", "0_Transformer"])
def directory(request, tiny_checkpoint, tmp_path):
    """A model of sentence-transformers, its encoder at the top as today, or in a folder as once."""
    top = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, top / request.param)
    (top / "modules.json").write_text(listed((request.param, MODULES[0][1]), *MODULES[1:]))
    settings = {"max_seq_length": 20, "do_lower_case": True}
    (top / request.param / "sentence_bert_config.json").write_text(json.dumps(settings))
    (top / "README.md").write_text("---\nlicense: mit\n---\n")
    return top


def test_its_encoder_is_exported(directory, tiny_bundle, tmp_path):
    notes = []
    bundle = export(directory, tmp_path / "out", progress=lambda event: notes.append(event.text))
    assert bundle.manifest.hashes_of("portable") == Bundle.open(tiny_bundle).manifest.hashes_of("portable")
    assert (bundle.manifest.name, bundle.manifest.licence) == ("model", "mit")
    assert LEFT in notes
    assert "left out: the 20 tokens at which sentence_bert_config.json cuts texts" in notes
    assert any(note.startswith("left out: do_lower_case of sentence_bert_config.json, which lower-") for note in notes)


def test_what_the_library_writes_is_read(tiny_checkpoint, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    parts = [Transformer(str(tiny_checkpoint)), Pooling(32), Normalize()]
    sentence_transformers.SentenceTransformer(modules=parts).save(str(tmp_path / "model"))
    found = encoder_of(locate(str(tmp_path / "model")))
    assert found.directory == tmp_path / "model"
    assert found.notes[0] == LEFT


def test_a_folder_of_a_repository_is_fetched(tiny_checkpoint, tmp_path):
    files = {f"0_Transformer/{path.name}": path.read_bytes() for path in tiny_checkpoint.iterdir()}
    top = {"modules.json": encoder_at("0_Transformer").encode(), "README.md": b"card"}
    code = (
        "import sys; from bertport.export.checkpoint.source import locate\n"
        "from bertport.export.checkpoint.sentence_transformers import encoder_of\n"
        "found = encoder_of(locate('acme/tiny')); print(found.revision, found.directory)"
    )
    with serving({"acme/tiny": files | top | {"0_Transformer/tf_model.h5": b"large"}}) as (endpoint, asked):
        place = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | place, capture_output=True, text=True, check=True
        )
    revision, found = done.stdout.split()
    assert revision == COMMIT
    assert set(asked) == files.keys() | top.keys()
    assert {path.name for path in (tmp_path / found).iterdir()} == {path.name for path in tiny_checkpoint.iterdir()}


WRONG = {
    "no JSON": ("", r"modules.json cannot be read as JSON"),
    "no list": ("{}", r"modules.json should be a list of modules with their types and paths"),
    "empty": ("[]", r"modules.json should be a list of modules"),
    "no paths": ('[{"type": "Transformer"}]', r"modules.json should be a list of modules"),
    "another beginning": (listed(("", f"{OLD}BoW")), r"begins with 'BoW' \(modules.json\); one that begins with Trans"),
    "elsewhere": (encoder_at("../other"), r"names '../other', which is not a directory"),
    "at the root": (encoder_at("/etc"), r"names '/etc', which is not a directory"),
    "a link away": (encoder_at("link"), r"names 'link', which is not a directory"),
    "missing": (encoder_at("0_T"), r"lacks the directory 0_T that modules.json names"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_lists_of_modules_that_are_wrong(checkpoint, tmp_path, kind):
    content, said = WRONG[kind]
    (checkpoint / "modules.json").write_text(content)
    (checkpoint / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(CheckpointError, match=said):
        encoder_of(locate(str(checkpoint)))
