"""Directories of sentence-transformers: the encoder and the modules behind it are found in them, or refused by name."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from bertport.export import export
from bertport.export.checkpoint.embedding import longest_input, read_modules
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.sentence_transformers import encoder_of
from bertport.export.checkpoint.source import locate
from bertport.runtime.errors import CheckpointError
from tests.hub_cache import COMMIT, serving
from tests.sentence_models import EVERY_KIND, PROMPTS, sentence_model

OLD = "sentence_transformers.models."
MODULES = [("", f"{OLD}Transformer"), ("1_Pooling", f"{OLD}Pooling"), ("2_Normalize", f"{OLD}Normalize")]


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
    (top / "1_Pooling").mkdir()
    (top / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 32, "pooling_mode_max_tokens": true}')
    settings = {"max_seq_length": 20, "do_lower_case": True, "query_length": 7}
    (top / request.param / "sentence_bert_config.json").write_text(json.dumps(settings))
    (top / "README.md").write_text("---\nlicense: mit\n---\n")
    return top


def test_its_encoder_and_modules_are_exported(directory, tmp_path):
    notes = []
    bundle = export(directory, tmp_path / "out", progress=lambda event: notes.append(event.text))
    assert list(bundle.manifest.heads) == ["mlm", "nsp", "embedding", "pooler"]
    facts = bundle.manifest.heads["embedding"].embedding
    assert [(module.kind, module.modes) for module in facts.modules] == [("pooling", ("max",)), ("normalize", None)]
    assert (facts.dimension, facts.normalized, facts.similarity, facts.prompts) == (32, True, "cosine", {})
    assert (bundle.manifest.name, bundle.manifest.licence, bundle.manifest.max_length) == ("model", "mit", 20)
    assert "left out: 'query_length' of sentence_bert_config.json" in notes


def modules_of(path):
    return read_checkpoint(encoder_of(locate(str(path)))).modules


def test_a_folder_of_a_repository_is_fetched(tiny_checkpoint, tmp_path):
    files = {f"0_Transformer/{path.name}": path.read_bytes() for path in tiny_checkpoint.iterdir()}
    rows = listed(("0_Transformer", f"{OLD}Transformer"), ("1_Pooling", f"{OLD}Pooling"), ("2_Dense", f"{OLD}Dense"))
    top = {"modules.json": rows.encode(), "README.md": b"card", "config_sentence_transformers.json": b"{}"}
    top |= {"1_Pooling/config.json": b"[]", "2_Dense/config.json": b"[1]", "2_Dense/pytorch_model.bin": b"weights"}
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
    revision, folder = done.stdout.split()
    assert revision == COMMIT
    assert set(asked) == files.keys() | top.keys()
    assert {path.name for path in (tmp_path / folder).iterdir()} == {path.name for path in tiny_checkpoint.iterdir()}


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


def test_what_the_library_writes_is_read(tiny_checkpoint, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling, Transformer

    parts = [Transformer(str(tiny_checkpoint)), Pooling(32, ("max", "cls")), Dense(64, 8), LayerNorm(8), Normalize()]
    model = library.SentenceTransformer(modules=parts, prompts={"query": "q: "}, similarity_fn_name="dot", device="cpu")
    model.save(str(tmp_path / "model"))
    modules = modules_of(tmp_path / "model")
    assert [module.kind for module in modules.facts.modules] == ["pooling", "dense", "layer-norm", "normalize"]
    assert (modules.facts.modules[0].modes, modules.facts.modules[1].activation) == (("max", "cls"), "Tanh")
    assert (modules.facts.dimension, modules.facts.similarity) == (8, "dot")
    assert modules.facts.prompts == {"query": "q: ", "document": ""}
    assert modules.tensors()["embedding.1.linear.weight"].equal(parts[2].linear.weight)
    assert modules.notes == ()


def test_a_cross_encoder_has_no_vectors(tiny_checkpoint, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    library.CrossEncoder(str(tiny_checkpoint), device="cpu").save(str(tmp_path / "model"))
    located = encoder_of(locate(str(tmp_path / "model")))
    assert len(located.parts) == 1
    assert read_modules(located, hidden_size=32) is None


ENCODER_SETTINGS, WHOLE = "sentence_bert_config.json", "config_sentence_transformers.json"
POOLING, DENSE = "1_Pooling/config.json", "2_Dense/config.json"
NOT_TAKEN = {
    "another pooling": (POOLING, {"pooling_mode": "attention"}, "the pooling is 'attention', and cls, max, mean, "),
    "poolings in lists": (POOLING, {"pooling_mode": [["cls"]]}, r"the pooling is \['cls'\], and cls, max, mean"),
    "no pooling mode": (POOLING, {"pooling_mode": []}, r"the pooling is \[\], and cls"),
    "another width": (POOLING, {"word_embedding_dimension": 64}, "states have 64 numbers and the encoder's have 32"),
    "left-out prompts": (POOLING, {"include_prompt": False}, "has prompts whose tokens its pooling leaves out"),
    "another activation": (DENSE, {"activation_function": "os.system"}, "the activation is 'os.system', and PyTor"),
    "a name of PyTorch's": (DENSE, {"activation_function": "acme.Tanh"}, "the activation is 'acme.Tanh', and PyTo"),
    "a layer of torch": (DENSE, {"activation_function": "torch.nn.Linear"}, "the activation is 'torch.nn.Linear'"),
    "a residual": (DENSE, {"use_residual": True}, "adds a dense layer's input to its output .use_residual., which"),
    "of tokens": (DENSE, {"module_input_name": "token_embeddings"}, "has module_input_name 'token_embeddings'"),
    "of a list": (DENSE, {"module_output_name": ["a"]}, r"has module_output_name \['a'\]"),
    "too wide": (DENSE, {"in_features": 7}, "makes vectors of 32 numbers out of 7, and those before it have 64"),
    "more rows": (DENSE, {"out_features": 9}, r"linear.bias of the shape \[32\] and config.json beside it says \[9\]"),
    "no bias": (DENSE, {"bias": False}, r"linear.bias of the shape \[32\] and config.json beside it says none"),
    "sparse": (WHOLE, {"model_type": "SparseEncoder"}, "is a 'SparseEncoder' of sentence-transformers, which canno"),
    "another similarity": (WHOLE, {"similarity_fn_name": "maxsim"}, "similarity_fn_name is 'maxsim' and should be"),
    "no prompt": (WHOLE, {"default_prompt_name": "a"}, "is 'a', which is none of its prompts .'query', 'document'"),
    "prompts": (WHOLE, {"prompts": {"query": 1}}, "prompts is {'query': 1} and should give each name a text"),
    "half a character": (WHOLE, {"prompts": {"query": "\ud800"}}, "and should give each name a text"),
    "no dimension": (WHOLE, {"truncate_dim": 0}, "truncate_dim is 0 and should be a number from 1 to 12"),
    "another task": (ENCODER_SETTINGS, {"transformer_task": "fill-mask"}, "asks for 'fill-mask', as 'token_embedd"),
    "another modality": (ENCODER_SETTINGS, {"modality_config": {"text": ["forward"]}}, "by {'text': .'forward'.}, wh"),
    "no length": (ENCODER_SETTINGS, {"max_seq_length": "256"}, "max_seq_length is '256' and should be a number of tok"),
}


@pytest.fixture
def whole(tiny_checkpoint, tmp_path):
    """A model with a module of each kind."""
    return sentence_model(tmp_path / "whole", tiny_checkpoint, EVERY_KIND, prompts=PROMPTS)


@pytest.mark.parametrize("kind", NOT_TAKEN)
def test_what_cannot_be_taken_is_refused_by_name(whole, kind):
    file, changes, said = NOT_TAKEN[kind]
    stated = json.loads((whole / file).read_text())
    (whole / file).write_text(json.dumps(stated | changes))
    with pytest.raises(CheckpointError, match=said):
        export(whole, whole.with_name("out"))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            f"{OLD}WordWeights",
            r"has the module 'sentence_transformers.models.WordWeights' \(modules.json\), which",
        ),
        ("pylate.models.Dense.Dense", "has the module 'pylate.models.Dense.Dense'"),
        (f"{OLD}Pooling", "has Pooling as module 2 behind its encoder"),
    ],
)
def test_modules_that_are_not_known_are_refused_with_what_can_be_taken(whole, module, said):
    rows = json.loads((whole / "modules.json").read_text())
    rows[2]["type"] = module
    (whole / "modules.json").write_text(json.dumps(rows))
    with pytest.raises(CheckpointError, match=f"{said}.*--as features"):
        modules_of(whole)


def test_a_thousand_modules_are_refused_before_any_is_read(whole):
    rows = json.loads((whole / "modules.json").read_text())
    (whole / "modules.json").write_text(json.dumps(rows + rows[2:3] * 1000))
    with pytest.raises(CheckpointError, match="has 1,004 modules behind its encoder, which cannot"):
        modules_of(whole)


def test_the_settings_that_the_library_reads_of_several_are_followed(whole):
    (whole / "sentence_albert_config.json").write_text('{"max_seq_length": 9}')
    assert longest_input(whole) == 64
    (whole / "sentence_bert_config.json").unlink()
    assert longest_input(whole) == 9


def test_settings_that_would_change_the_encoder_are_named(whole):
    """sentence-transformers gives config_kwargs to the config of the encoder, and model_args to its loading."""
    path = whole / ENCODER_SETTINGS
    further = {"config_kwargs": {"hidden_act": "relu"}, "model_args": {"attn_implementation": "eager"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | further))
    assert modules_of(whole).notes == ("left out: 'config_kwargs' of sentence_bert_config.json",)


def test_an_encoder_alone_and_one_of_another_package_are_refused(whole):
    rows = json.loads((whole / "modules.json").read_text())
    (whole / "modules.json").write_text(json.dumps(rows[:1]))
    with pytest.raises(CheckpointError, match="has no Pooling behind its encoder"):
        modules_of(whole)
    rows[0]["type"] = "custom_st.Transformer"
    (whole / "modules.json").write_text(json.dumps(rows))
    with pytest.raises(CheckpointError, match=r"is a 'custom_st.Transformer'"):
        modules_of(whole)


def test_dense_layers_in_a_pickle_of_tensors_are_read_and_others_are_not(whole):
    import torch
    from safetensors.torch import load_file

    place = whole / "2_Dense"
    tensors = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    torch.save(tensors, place / "pytorch_model.bin")
    assert modules_of(whole).tensors()["embedding.1.linear.weight"].equal(tensors["linear.weight"])
    torch.save({"linear.weight": place}, place / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"objects other than tensors|damaged"):
        modules_of(whole)


def test_lower_case_of_an_encoder_alone_is_left_to_the_caller(make_checkpoint, tmp_path):
    model = sentence_model(tmp_path / "model", make_checkpoint(tmp_path / "encoder", cased=True))
    (model / ENCODER_SETTINGS).write_text('{"max_seq_length": 64, "do_lower_case": true}')
    notes = []
    bundle = export(model, tmp_path / "out", as_features=True, progress=lambda event: notes.append(event.text))
    assert bundle.manifest.lowercase is False
    [note] = [note for note in notes if "do_lower_case" in note]
    assert note.endswith("of sentence-transformers; give the encoder texts in lower case")
