"""Bundles pushed to a Hub of our own by the real client, and read back from it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi, ModelCard, constants

from bertport.runtime import cli, load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.hub_card import hub_card, metadata, results
from bertport.runtime.bundle.packing import pack
from bertport.runtime.bundle.push import push
from bertport.runtime.errors import BundleError, MissingDependencyError, PathError, UsageError
from tests.hub_stand_in import TOKEN, Repository

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub 2.4, of its own


def run(*arguments):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)


def test_a_pushed_bundle_is_read_back_by_its_id(hub, tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / "notes.txt").write_text("mine")
    done = run("push", bundle, "acme/tiny", "--message", "First", "--json")
    assert done.exit_code == 0, done.output
    assert "warning: notes.txt is not part of the bundle, and stays here" in done.stderr
    told = json.loads(done.stdout)
    listed = Bundle.open(bundle).manifest.files
    repository = hub.repositories["acme/tiny"]
    assert set(repository.files) == {".gitattributes", "README.md", "manifest.json", *listed}
    assert [entry["summary"] for entry in repository.log] == ["initial commit", "First"]
    assert told["created"]
    assert told["commit"] == repository.branches["main"]
    assert set(told["sent"]) == {"README.md", "manifest.json", *listed}
    # By way of the cache of huggingface_hub, and as the card says: pinned by the digest.
    digest = Bundle.open(bundle).digest
    assert f'load("acme/tiny", digest="{digest}")' in repository.files["README.md"].decode()
    answers = [load(place, digest=digest).fill_mask("a [MASK]") for place in ("acme/tiny", bundle)]
    assert answers[0] == answers[1]


def test_of_many_files_that_stay_here_some_are_named(hub, edited):
    bundle = edited()
    (bundle / ".git").mkdir()
    for number in range(1234):
        (bundle / ".git" / f"{number:04}").touch()
    done = run("push", bundle, "acme/tiny")
    warnings = [line for line in done.stderr.splitlines() if line.startswith("bertport: warning:")]
    assert warnings[0] == "bertport: warning: .git/0000 is not part of the bundle, and stays here"
    assert warnings[10:] == ["bertport: warning: 1,224 more files are not part of the bundle, and stay here"]
    assert not any(name.startswith(".git/") for name in hub.repositories["acme/tiny"].files)


def test_the_name_of_a_bundle_ends_no_line_of_the_commit(hub, edited):
    bundle = edited(lambda manifest: manifest.update(name="tiny\n\nSigned-off-by: me"))
    push(bundle, "acme/tiny")
    assert hub.repositories["acme/tiny"].log[-1]["summary"].startswith("Push tiny Signed-off-by: me, sha256:")
    assert not hub.repositories["acme/tiny"].log[-1].get("description")


def test_what_is_there_is_not_sent_again(hub, tiny_bundle, tmp_path):
    first = push(tiny_bundle, "acme/tiny", revision="next")
    assert set(hub.repositories["acme/tiny"].branches) == {"main", "next"}
    hub.sent.clear()
    again = push(tiny_bundle, "acme/tiny", revision="next")
    assert (again.sent, again.removed, hub.sent) == ((), (), [])
    assert again.commit == first.commit
    # Of a bundle of fewer variants what changed is sent, and what it lacks is removed; what others put there is kept.
    hub.repositories["acme/tiny"].commit({**hub.repositories["acme/tiny"].at("next")[1], "photo.png": b"x"}, "next")
    smaller = pack(tiny_bundle, tmp_path / "smaller", ["portable"])
    done = run("push", tmp_path / "smaller", "acme/tiny", "--revision", "next")
    assert done.exit_code == 0, done.output
    assert set(hub.sent) == {"README.md", "golden.json", "manifest.json"}
    left = set(hub.repositories["acme/tiny"].at("next")[1])
    assert left == {".gitattributes", "photo.png", "README.md", "manifest.json", *smaller.manifest.files}
    assert f"{len(hub.sent)} of {len(smaller.manifest.files) + 2} files sent" in done.stdout
    assert smaller.digest in done.stdout
    assert "main" in hub.repositories["acme/tiny"].branches


def edited_there(hub, change):
    """Edit the card of acme/tiny on the Hub, as its page lets people do."""
    repository = hub.repositories["acme/tiny"]
    card = repository.files["README.md"].decode()
    repository.commit({**repository.files, "README.md": change(card).encode()})
    return repository


def test_a_card_that_was_edited_there_is_not_replaced_unasked(hub, tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    push(bundle, "acme/tiny")
    repository = edited_there(hub, lambda card: card.replace("# ", "# Our ", 1))
    there = dict(repository.files)
    refused = run("push", bundle, "acme/tiny")
    assert refused.exit_code == 2
    assert "the README.md of acme/tiny was written or edited there, and would be replaced: " in refused.stderr
    assert f"copy what is to be kept into {bundle / 'README.md'}, and push with --overwrite" in refused.stderr
    assert repository.files == there
    # Where the bundle's card says the same by now, nothing is lost.
    (bundle / "README.md").write_bytes(repository.files["README.md"])
    assert push(bundle, "acme/tiny").sent == ("README.md",)
    assert b"# Our " in repository.files["README.md"]
    shutil.copy(tiny_bundle / "README.md", bundle / "README.md")
    assert push(bundle, "acme/tiny").sent == ("README.md",)  # edited here since the last push, and not there
    edited_there(hub, lambda card: card + "More.\n")
    assert push(bundle, "acme/tiny", overwrite=True).sent == ("README.md",)
    assert b"More." not in repository.files["README.md"]


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "---\nlicense: mit\n---\n# Ours\n\nWritten anew.\n",
        lambda card: card.replace("---\n", "---\na: b: c\n", 1),
    ],
    ids=["written anew", "metadata that cannot be read"],
)
def test_a_card_that_became_another_altogether_is_not_replaced_unasked(hub, tiny_bundle, change):
    push(tiny_bundle, "acme/tiny")
    there = dict(edited_there(hub, change).files)
    with pytest.raises(PathError, match=r"the README\.md of acme/tiny was written or edited there, and would be"):
        push(tiny_bundle, "acme/tiny")
    assert hub.repositories["acme/tiny"].files == there
    assert push(tiny_bundle, "acme/tiny", overwrite=True).sent == ("README.md",)


def test_a_card_that_was_written_there_first_is_not_replaced_unasked(hub, tiny_bundle):
    hub.repositories["acme/tiny"] = repository = Repository()
    repository.commit({"README.md": b"---\nlicense: mit\n---\n# Ours\n"})
    with pytest.raises(PathError, match=r"the README\.md of acme/tiny was written or edited there, and would be"):
        push(tiny_bundle, "acme/tiny")


@pytest.mark.parametrize(
    ("metadata", "lost"),
    [
        ("license: mit", True),  # as the Hub makes it of the choice of a licence
        ("language: en\nextra_gated_prompt: You agree", True),
        ("license: apache-2.0\n# we asked the authors", True),
        ("license: a: b", True),
        ("tags: [onnx, ours]", True),
        ("license: apache-2.0", False),
        ("license: [apache-2.0]\ntags: [onnx]", False),
    ],
)
def test_metadata_alone_that_was_written_there_first_is_not_lost(hub, edited, metadata, lost):
    bundle = edited(lambda manifest: manifest.update(licence="apache-2.0"))
    hub.repositories["acme/tiny"] = repository = Repository()
    repository.commit({"README.md": f"---\n{metadata}\n---\n".encode()})
    if lost:
        with pytest.raises(PathError, match=r"the README\.md of acme/tiny was written or edited there, and would be"):
            push(bundle, "acme/tiny")
    assert "README.md" in push(bundle, "acme/tiny", overwrite=lost).sent


def test_an_empty_card_is_replaced(hub, tiny_bundle):
    hub.repositories["acme/tiny"] = repository = Repository()
    repository.commit({"README.md": b"\n"})
    assert "README.md" in push(tiny_bundle, "acme/tiny").sent


def test_a_card_without_a_mark_is_replaced_as_it_always_was(hub, tiny_bundle):
    push(tiny_bundle, "acme/tiny")
    mark = re.compile(r"\n*<!-- as pushed: sha256:[0-9a-f]{64} -->")
    repository = edited_there(hub, lambda card: mark.sub("", card))
    assert push(tiny_bundle, "acme/tiny").sent == ("README.md",)
    assert mark.search(repository.files["README.md"].decode())


def test_large_files_are_sent_by_their_hash(hub, tiny_bundle):
    push(tiny_bundle, "acme/tiny", private=True)
    graph = Bundle.open(tiny_bundle).manifest.variants["portable"].file
    assert hashlib.sha256((tiny_bundle / graph).read_bytes()).hexdigest() in hub.stored
    assert hub.repositories["acme/tiny"].private
    # The same files in another repository are known to the Hub already.
    hub.sent.clear()
    push(tiny_bundle, "acme/other")
    assert not any(name in hub.stored for name in hub.sent)


def test_a_damaged_bundle_reaches_no_hub(hub, edited):
    bundle = edited()
    (bundle / "tokenizer.json").write_bytes(b"{}")
    done = run("push", bundle, "acme/tiny")
    assert done.exit_code == 1
    assert "tokenizer.json is not the file that was exported" in done.stderr
    assert (hub.asked, hub.repositories) == ([], {})


@pytest.mark.parametrize("name", ["README.md", "manifest.json"])
def test_a_link_that_leaves_the_bundle_is_not_pushed(hub, edited, tmp_path, name):
    """Whoever made the bundle chose where the link leads, and what is there would be public."""
    bundle = edited()
    (tmp_path / "private").write_bytes((bundle / name).read_bytes())
    (bundle / name).unlink()
    (bundle / name).symlink_to(tmp_path / "private")
    with pytest.raises(BundleError, match=f"{name} is a link that leaves the bundle"):
        push(bundle, "acme/tiny")
    assert hub.repositories == {}


def holding(*files, private=False):
    repository = Repository(private=private)
    repository.commit(dict.fromkeys((".gitattributes", *files), b"x"))
    return repository


@pytest.mark.parametrize(
    ("files", "options", "error", "said"),
    [
        (["config.json", "model.safetensors"], {}, PathError, "acme/tiny holds config.json and 1 other files, and no"),
        (
            ["manifest.json"],
            {},
            PathError,
            "acme/tiny holds manifest.json, and no bundle: choose another name",
        ),
        ([".gitignore"], {"overwrite": True}, PathError, "acme/tiny has a .gitignore, which makes the Hub leave files"),
        (["README.md"], {"private": True}, UsageError, "acme/tiny is there already and public: make it private on"),
        ([], {"token": "hf_wrong"}, PathError, "Invalid username or password: give a token that may write there"),
        ([], {"digest": "sha256:" + "0" * 64}, BundleError, "has the digest"),
    ],
)
def test_what_is_refused(hub, tiny_bundle, files, options, error, said):  # noqa: PLR0913, PLR0917 — a row
    hub.repositories["acme/tiny"] = repository = holding(*files)
    before = dict(repository.branches)
    with pytest.raises(error) as raised:
        push(tiny_bundle, "acme/tiny", **options)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert repository.branches == before


def test_a_repository_of_other_files_takes_one_when_told(hub, tiny_bundle):
    hub.repositories["acme/tiny"] = holding("model.safetensors")
    assert push(tiny_bundle, "acme/tiny", overwrite=True).removed == ()
    assert hub.repositories["acme/tiny"].files["model.safetensors"] == b"x"


def test_the_command_takes_a_token_a_private_repository_and_one_of_other_files(hub, tiny_bundle, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    done = run("push", tiny_bundle, "acme/tiny", "--private", "--token", TOKEN)
    assert done.exit_code == 0, done.output
    assert hub.repositories["acme/tiny"].private
    assert TOKEN not in done.output
    hub.repositories["acme/other"] = holding("model.safetensors")
    refused = run("push", tiny_bundle, "acme/other", "--token", TOKEN)
    assert refused.exit_code == 2
    assert "acme/other holds model.safetensors, and no bundle: choose another name, or --overwrite" in refused.stderr
    done = run("push", tiny_bundle, "acme/other", "--token", TOKEN, "--overwrite")
    assert done.exit_code == 0, done.output
    assert {"manifest.json", "model.safetensors"} <= set(hub.repositories["acme/other"].files)
    assert not hub.repositories["acme/other"].private


@pytest.mark.parametrize("text", ["tiny", "a/b/c", "../x", "acme/", "https://huggingface.co/acme/tiny"])
def test_what_is_no_repository(text, tiny_bundle):
    with pytest.raises(UsageError, match="is not a repository of the Hub: write it as owner/name"):
        push(tiny_bundle, text)


def test_an_empty_revision_is_not_the_main_branch(hub, tiny_bundle):
    with pytest.raises(UsageError, match="the revision is empty"):
        push(tiny_bundle, "acme/tiny", revision="")
    assert not hub.repositories


@pytest.mark.parametrize("token", ["", f"{TOKEN}\n"])
def test_what_is_no_token_is_said_without_it(hub, tiny_bundle, token):
    with pytest.raises(UsageError, match="the token is empty, or has a space, a line break or another") as raised:
        push(tiny_bundle, "acme/tiny", token=token)
    assert TOKEN not in str(raised.value)
    assert not hub.asked


def test_another_commit_that_came_first_is_not_undone(hub, tiny_bundle):
    hub.before_commit = lambda repository: repository.commit({"theirs.txt": b"x"})
    with pytest.raises(PathError, match=r"A commit has happened since.*somebody else has changed it meanwhile: push"):
        push(tiny_bundle, "acme/tiny")
    assert set(hub.repositories["acme/tiny"].files) == {"theirs.txt"}


def test_a_commit_that_is_not_the_bundle_is_seen(hub, tiny_bundle):
    hub.left_out = frozenset({"tokenizer.json"})
    with pytest.raises(BundleError, match=r"acme/tiny has no tokenizer.json after the commit \w+, unlike the"):
        push(tiny_bundle, "acme/tiny")


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({"/lfs/": (403, "storage is full")}, "cannot push to acme/tiny: the Hub answered:"),
        ({"/commit/": (413, "too large")}, "the Hub answered:"),
        ({"validate-yaml": (400, "no")}, "cannot push to acme/tiny:"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub, tiny_bundle, refused, said):
    hub.refused = refused
    done = run("push", tiny_bundle, "acme/tiny")
    assert done.exit_code == 2
    [error] = [line for line in done.stderr.splitlines() if line.startswith("bertport: error")]
    assert said in error
    assert "manifest.json" not in hub.repositories["acme/tiny"].files


def test_no_hub_and_none_to_be_asked(tiny_bundle, monkeypatch):
    assert constants.HF_HUB_OFFLINE, "tests/conftest.py sets it"
    with pytest.raises(PathError, match="cannot push to acme/tiny while offline mode is on: unset HF_HUB_OFFLINE"):
        push(tiny_bundle, "acme/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PathError, match=r"cannot push to acme/tiny: the Hub cannot be reached .*: try again"):
        push(tiny_bundle, "acme/tiny")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="push needs the package huggingface_hub, which is not installed"):
        push(tiny_bundle, "acme/tiny")


@pytest.mark.parametrize(("call", "revision"), [("create_repo", None), ("create_branch", "next")])
def test_of_an_error_after_what_was_not_there_its_own_reason_is_told(hub, tiny_bundle, monkeypatch, call, revision):
    def broken(*_, **__):
        raise ConnectionError("the line is down")

    monkeypatch.setattr(HfApi, call, broken)
    with pytest.raises(PathError, match=r"the Hub cannot be reached \(the line is down\): try again"):
        push(tiny_bundle, "acme/tiny", revision=revision)
    assert set(hub.repositories) == (set() if revision is None else {"acme/tiny"})


def labelled(manifest):
    manifest["source"] |= {"name": "google-bert/bert-tiny", "revision": "0" * 40}
    figures = {"reference": {"value": 0.9}, "candidate": {"value": 0.89}, "difference": None}
    record = {"task": "text-classification", "examples": 872, "metrics": {"accuracy": figures, "bad": 3}}
    manifest["variants"]["portable"]["task_metrics"] = {"sst2.jsonl": record, "odd": "text"}
    accuracy = {"mlm": {"top1_agreement": {"value": 0.98}, "nll_candidate": {"value": 10**400}, "kl": {"value": None}}}
    accuracy["mlm"] |= {"accuracy_reference": {"value": 0.4}, "accuracy_candidate": {"value": 0.39}}
    manifest["variants"]["portable"]["fidelity"] = {"text": {"name": "held-out.txt"}, "accuracy": accuracy}


def test_the_card_says_to_the_hub_what_the_manifest_says(edited):
    bundle = Bundle.open(edited(labelled))
    card = ModelCard(hub_card(bundle, (bundle.path / "README.md").read_text(), "acme/tiny"))
    data = card.data.to_dict()
    assert {key: data[key] for key in ("language", "license", "library_name", "pipeline_tag")} == {
        "language": ["en"],
        "license": "apache-2.0",
        "library_name": "bertport",
        "pipeline_tag": "fill-mask",
    }
    assert (data["base_model"], data["base_model_relation"]) == ("google-bert/bert-tiny", "quantized")
    assert data["tags"] == ["bert", "onnx", "bertport"]
    measured = {
        (result["task"]["type"], result["dataset"]["name"], metric["name"]): metric["value"]
        for result in data["model-index"][0]["results"]
        for metric in result["metrics"]
    }
    assert measured == {
        ("text-classification", "sst2.jsonl", "accuracy, fp32"): 0.9,
        ("text-classification", "sst2.jsonl", "accuracy, portable"): 0.89,
        ("fill-mask", "held-out.txt", "top1 agreement, portable against fp32"): 0.98,
        ("fill-mask", "held-out.txt", "accuracy, fp32"): 0.4,
        ("fill-mask", "held-out.txt", "accuracy, portable"): 0.39,
    }
    assert f"-m acme/tiny --digest {bundle.digest}" in card.text
    # A card that came back from the Hub is completed in its place, and says nothing twice.
    assert hub_card(bundle, str(card), "acme/tiny") == str(card)


def test_what_people_wrote_into_a_card_is_kept(edited):
    bundle = Bundle.open(edited(labelled))
    text = (
        "---\nlicense: mit\nbase_model: acme/mine\ntags: [legal]\ndatasets: [imdb]\npipeline_tag: text-ranking\n"
        "model-index:\n- name: mine\n  results:\n  - task: {type: fill-mask}\n    dataset: {name: x, type: x}\n"
        "    metrics: [{type: accuracy, value: 1, name: by hand}]\n---\n# Mine\n\nMy words.\n"
    )
    card = ModelCard(hub_card(bundle, text, "acme/tiny", revision="v1"))
    data = card.data.to_dict()
    assert (data["license"], data["base_model"], data["datasets"]) == ("mit", "acme/mine", ["imdb"])
    assert data["pipeline_tag"] == "text-ranking"
    assert "base_model_relation" not in data
    assert data["tags"] == ["legal", "onnx", "bertport"]
    assert data["model-index"][0]["name"] == "mine"
    assert len(data["model-index"][0]["results"]) == 3
    assert card.text.startswith("\n# Mine\n\nMy words.\n") or card.text.startswith("# Mine\n\nMy words.\n")
    assert 'load("acme/tiny", revision="v1", digest=' in card.text


@pytest.mark.parametrize(
    "text",
    ["---\n[a]\n---\n# x", "---\na: b: c\n---\n# x", "---\nmodel-index: [3]\n---\n"],
)
def test_metadata_that_is_none_is_refused(tiny_bundle, text):
    with pytest.raises(BundleError, match="has metadata that cannot be read"):
        hub_card(Bundle.open(tiny_bundle), text, "acme/tiny")


@pytest.mark.parametrize("text", ["---\n\nA line above.\n", "---\nlicense: mit\n"])
def test_a_card_that_begins_with_a_line_has_no_metadata(tiny_bundle, caplog, text):
    card = ModelCard(hub_card(Bundle.open(tiny_bundle), text, "acme/tiny"))
    assert card.data.library_name == "bertport"
    assert card.data.license == "apache-2.0"
    assert text.strip() in card.text
    assert not caplog.records


def test_a_bundle_without_a_card_gets_one(tiny_bundle):
    card = ModelCard(hub_card(Bundle.open(tiny_bundle), None, "acme/tiny"))
    assert card.data.library_name == "bertport"
    assert "## From the Hub" in card.text


def test_the_name_of_a_bundle_is_no_markup_in_its_card(edited):
    bundle = Bundle.open(edited(lambda manifest: manifest.update(name="a\n\n# b <img>")))
    assert "# a  # b \\<img>\n" in hub_card(bundle, None, "acme/tiny")


def test_of_heads_from_several_checkpoints_all_are_named(edited):
    def several(manifest):
        labelled(manifest)
        manifest["heads"]["nsp"]["source"] = {"name": "acme/pairs", "revision": "1" * 40, "weights_sha256": {}}

    manifest = Bundle.open(edited(several)).manifest
    assert metadata(manifest)["base_model"] == ["google-bert/bert-tiny", "acme/pairs"]
    assert results(manifest)
