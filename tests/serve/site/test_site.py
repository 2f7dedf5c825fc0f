"""`bertport site`: what it writes, where the runtime comes from, and what it refuses."""

import base64
import dataclasses
import hashlib
import json
import os
import re
import shutil
import tarfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread

import click
import pytest
from click.testing import CliRunner

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import EmbeddingModule
from bertport.runtime.bundle.writer import write_manifest
from bertport.runtime.errors import BundleError, PathError, ProviderError, UsageError
from bertport.runtime.heads import EMBEDDING, TOKEN_CLASSIFICATION
from bertport.serve.site import web_runtime, writer
from bertport.serve.site.cli import site
from tests.heads import head_bundle

BANNER = b"/*!\n * ONNX Runtime Web v1.30.0\n */\n"
PAGE = files("bertport.serve.site") / "files"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """A directory with the names of onnxruntime-web's files; the browser's tests take the real ones."""
    place = tmp_path_factory.mktemp("package") / "dist"
    place.mkdir()
    for name in web_runtime.names(gpu=True):
        (place / name).write_bytes(b"\0asm" if name.endswith(".wasm") else BANNER + name.encode())
    return place.parent


def run(*arguments, given=""):
    return CliRunner().invoke(site, [*map(str, arguments)], input=given)


def said(result):
    return getattr(result.exception, "message", result.stderr)


def test_what_is_written(tiny_bundle, runtime, tmp_path):
    output = tmp_path / "some" / "site"
    variants = ("--variant", "portable", "--variant", "fp32")
    done = run(tiny_bundle, "--output", output, "--runtime", runtime, *variants, "--title", "<A> & B", "--json")
    assert done.exit_code == 0, said(done)
    listing = json.loads((output / "site.json").read_text())
    assert json.loads(done.stdout)["digest"] == listing["digest"] == Bundle.open(output / "bundle").digest
    Bundle.open(output / "bundle").verify()
    assert [variant["name"] for variant in listing["variants"]] == ["portable", "fp32"]
    assert all(variant["webgpu"] for variant in listing["variants"])
    assert {"fill-mask", "next-sentence", "sentence-similarity"} <= set(listing["tasks"])
    assert listing["mask_token"] == "[MASK]"  # noqa: S105 — no password
    held = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert held - set(listing["files"]) == {"site.json", "service-worker.js", "_headers", ".nojekyll"}
    for name, entry in listing["files"].items():
        content = (output / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["size"], entry["sha256"]), name
    read = ("onnx/model.onnx", "tokenizer.json", "tokenizer_config.json", "manifest.json")
    assert listing["variants"][0]["bytes"] == sum(listing["files"][f"bundle/{name}"]["size"] for name in read)
    assert "<title>&lt;A&gt; &amp; B</title>" in (output / "index.html").read_text()
    assert f'"{listing["version"]}"' in (output / "service-worker.js").read_text()
    assert listing["version"].startswith(listing["digest"].removeprefix("sha256:")[:16])
    assert not [name for name in held if name.endswith(".mjs")]
    assert "MIT License" in (output / "runtime" / "LICENSE.txt").read_text()


def test_no_file_of_the_bundle_is_held_whole(tiny_bundle, runtime, tmp_path, monkeypatch):
    read, held = Path.read_bytes, []

    def read_bytes(path):
        held.append(path.name)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert run(tiny_bundle, "--output", tmp_path / "site", "--runtime", runtime).exit_code == 0
    assert "ort.wasm.min.mjs" in held
    assert [name for name in held if name.endswith(".onnx")] == []


def test_the_command_that_serves_it_can_be_pasted(tiny_bundle, runtime, tmp_path):
    output = tmp_path / "my site"
    done = run(tiny_bundle, "--output", output, "--runtime", runtime)
    assert done.exit_code == 0, said(done)
    assert done.stdout.splitlines()[-1] == f"try it: python -m http.server --directory '{output}'"


def test_a_task_that_javascript_does_not_answer_is_left_out_and_named(runtime, tmp_path, tmp_path_factory):
    """For places of tokens the package takes WordPiece alone, and RoBERTa has bytes."""
    for family, left in (("bert", False), ("roberta", True)):
        _, bundle = head_bundle(tmp_path_factory, family, TOKEN_CLASSIFICATION)
        done = run(bundle, "--output", tmp_path / family, "--runtime", runtime)
        assert done.exit_code == 0, said(done)
        tasks = json.loads((tmp_path / family / "site.json").read_text())["tasks"]
        assert ("token-classification" not in tasks) == left
        assert ("the page leaves out token-classification, which" in done.stderr) == left
        assert {"features", "sentence-similarity"} <= set(tasks)


@pytest.mark.parametrize(
    ("include_prompt", "prompt", "reason"),
    [
        (None, "x" * 4097, "the prompt has 4,097 characters and may have 4,096"),
        (False, "query: ", "makes vectors without the tokens of a prompt (include_prompt)"),
        (None, "😀" * 4096, None),
        (False, "", None),
    ],
)
def test_similarity_is_offered_where_the_models_prompt_is_taken(  # noqa: PLR0913, PLR0917 — a row
    sentence_bundle, runtime, tmp_path, include_prompt, prompt, reason
):
    """The page asks for no prompt, so one that is refused leaves nothing that it could answer."""
    bundle = shutil.copytree(sentence_bundle, tmp_path / "bundle")
    manifest = Bundle.open(bundle).manifest
    entry = manifest.heads[EMBEDDING]
    pooling = EmbeddingModule(kind="pooling", modes=("mean",), include_prompt=include_prompt)
    facts = dataclasses.replace(entry.embedding, modules=(pooling,), prompts={"q": prompt}, default_prompt="q")
    heads = manifest.heads | {EMBEDDING: dataclasses.replace(entry, embedding=facts)}
    write_manifest(bundle, dataclasses.replace(manifest, heads=heads))
    done = run(bundle, "--output", tmp_path / "site", "--runtime", runtime)
    assert done.exit_code == 0, said(done)
    tasks = json.loads((tmp_path / "site" / "site.json").read_text())["tasks"]
    of_prompts = {"embeddings", "sentence-similarity"}
    assert of_prompts & set(tasks) == (set() if reason else of_prompts)
    assert "features" in tasks
    warned = "the page leaves out sentence-similarity, whose texts begin with the model's prompt, and "
    assert (warned in done.stderr) == bool(reason)
    assert (reason or "") in done.stderr


def test_the_version_is_of_all_that_the_site_holds(tiny_bundle, runtime, tmp_path):
    def version(name, *options):
        run(tiny_bundle, "--output", tmp_path / name, "--runtime", runtime, *options)
        return json.loads((tmp_path / name / "site.json").read_text())["version"]

    same, again, other = version("a"), version("b"), version("c", "--title", "another")
    assert same == again
    assert same[:16] == other[:16]  # the bundle's digest
    assert same != other


def test_a_site_without_a_variant_for_gpus_holds_no_runtime_for_them(tiny_bundle):
    manifest = Bundle.open(tiny_bundle).manifest
    int8 = dataclasses.replace(
        manifest.variants["portable"],
        requires=dataclasses.replace(manifest.variants["portable"].requires, precision="int8-dynamic"),
    )
    assert not writer.needs_gpu(dataclasses.replace(manifest, variants={"int8-dynamic": int8}), ["int8-dynamic"])
    assert writer.needs_gpu(manifest, ["portable"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"isa": None}, "int8-dynamic"),
        ({"isa": "avx2"}, "int8-dynamic"),
        ({"isa": "avx512_vnni"}, "portable"),  # products of its weights may overflow elsewhere
        ({"isa": None, "operator_domains": {"ai.onnx": 17, "com.nvidia": 1}}, "portable"),
    ],
)
def test_the_variant_that_is_chosen(tiny_bundle, changes, expected):
    manifest = Bundle.open(tiny_bundle).manifest
    portable = manifest.variants["portable"]
    requires = dataclasses.replace(portable.requires, precision="int8-dynamic", **changes)
    variants = manifest.variants | {"int8-dynamic": dataclasses.replace(portable, requires=requires)}
    assert writer.chosen(dataclasses.replace(manifest, variants=variants), ()) == [expected]


def test_a_variant_that_no_browser_runs_is_refused(tiny_bundle):
    manifest = Bundle.open(tiny_bundle).manifest
    half = dataclasses.replace(
        manifest.variants["portable"],
        requires=dataclasses.replace(manifest.variants["portable"].requires, precision="fp16"),
    )
    changed = dataclasses.replace(manifest, variants=manifest.variants | {"fp16": half})
    with pytest.raises(UsageError, match="is computed in fp16, which is for other devices: choose portable"):
        writer.chosen(changed, ["fp16"])
    with pytest.raises(UsageError, match="has no variant that browsers run"):
        writer.chosen(dataclasses.replace(manifest, variants={"fp16": half}), ())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--variant", "int9"), "unknown variant"),
        (("--title", " "), "--title is a line"),
        (("--title", "x" * 201), "--title is a line"),
        (("--digest", "0" * 64), "digest"),
    ],
)
def test_what_is_refused(tiny_bundle, runtime, tmp_path, options, sentence):
    done = run(tiny_bundle, "--output", tmp_path / "site", "--runtime", runtime, *options)
    assert done.exit_code != 0
    assert sentence in said(done)
    assert list(tmp_path.iterdir()) == []


def test_only_a_site_is_replaced(tiny_bundle, runtime, tmp_path):
    output = tmp_path / "site"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    arguments = (tiny_bundle, "--output", output, "--runtime", runtime)
    assert "is not a site" in said(run(*arguments, "--overwrite"))
    assert (output / "thesis.txt").read_text() == "mine"
    (output / "thesis.txt").unlink()
    assert run(*arguments).exit_code == 0
    assert "pass --overwrite" in said(run(*arguments))
    assert run(*arguments, "--overwrite", "--title", "again").exit_code == 0
    assert json.loads((output / "site.json").read_text())["title"] == "again"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_changed_byte_leaves_no_site(tiny_bundle, runtime, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    content = bytearray((bundle / "tokenizer.json").read_bytes())
    content[-3] ^= 1
    (bundle / "tokenizer.json").write_bytes(content)
    done = run(bundle, "--output", tmp_path / "site", "--runtime", runtime)
    assert isinstance(done.exception, BundleError)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    inside = run(tiny_bundle, "--output", tiny_bundle / "site", "--runtime", runtime)
    assert "is inside the bundle" in said(inside)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("ort.wasm.min.mjs", b"no banner", "is not onnxruntime-web's"),
        ("ort.wasm.min.mjs", BANNER.replace(b"1.30", b"1.9"), "1.24.3 is the oldest"),
        ("ort-wasm-simd-threaded.wasm", b"<html>", "is not WebAssembly"),
        ("ort-wasm-simd-threaded.mjs", None, "has no ort-wasm-simd-threaded.mjs"),
    ],
)
def test_a_directory_that_is_no_runtime(runtime, tmp_path, name, content, sentence):
    place = tmp_path / "dist"
    shutil.copytree(runtime / "dist", place)
    (place / name).unlink() if content is None else (place / name).write_bytes(content)
    with pytest.raises((ProviderError, PathError), match=re.escape(sentence)):
        web_runtime.from_directory(place, web_runtime.names(gpu=False))
    with pytest.raises(PathError, match="is not a directory"):
        web_runtime.from_directory(tmp_path / "none", web_runtime.names(gpu=False))


@pytest.fixture
def registry(runtime, tmp_path, monkeypatch):
    """A server of this machine with a package, which stands for the registry's, and an empty cache."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with tarfile.open(folder / "ort.tgz", "w:gz") as archive:
        archive.add(runtime / "dist", "package/dist")
    content = (folder / "ort.tgz").read_bytes()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    package = web_runtime.Package(
        version="1.30.0",
        address=f"http://127.0.0.1:{server.server_port}/ort.tgz",
        size=len(content),
        sha512=base64.b64encode(hashlib.sha512(content).digest()).decode(),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(web_runtime, "PINNED", package)
    for function in (web_runtime.cached, web_runtime.download):
        monkeypatch.setattr(function, "__defaults__", (package, *function.__defaults__[1:]))
    yield asked, package, folder / "ort.tgz"
    server.shutdown()
    server.server_close()


def test_the_package_is_fetched_once_after_asking(tiny_bundle, registry, tmp_path):
    asked, _, _ = registry
    refused = run(tiny_bundle, "--output", tmp_path / "a", given="n\n")
    assert "pass --yes" in said(refused)
    assert "pass --yes" in said(run(tiny_bundle, "--output", tmp_path / "a"))  # nobody to ask
    assert asked == []
    assert run(tiny_bundle, "--output", tmp_path / "a", given="y\n").exit_code == 0
    assert run(tiny_bundle, "--output", tmp_path / "b").exit_code == 0  # from the cache
    assert asked == ["/ort.tgz"]
    assert (tmp_path / "a" / "runtime" / "ort.wasm.min.js").read_bytes().startswith(BANNER)


def test_ctrl_c_at_the_question_is_no_answer_to_it(tiny_bundle, registry, tmp_path, monkeypatch):
    """It ends the command, which does not go on to say what else to pass."""
    asked, _, _ = registry

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("click.termui.visible_prompt_func", interrupted)
    with pytest.raises(click.Abort):
        site.main([str(tiny_bundle), "--output", str(tmp_path / "a")], standalone_mode=False)
    assert asked == []


def test_what_is_refused_is_refused_before_anything_is_fetched(tiny_bundle, registry, tmp_path):
    asked, _, _ = registry
    [held, named] = [shutil.copytree(tiny_bundle, tmp_path / name) for name in ("site/bundle", "named")]
    for mark in ("site.json", "service-worker.js"):
        (tmp_path / "site" / mark).touch()
    write_manifest(named, dataclasses.replace(Bundle.open(named).manifest, name="x" * 201))
    out = tmp_path / "out"
    for arguments, sentence in (
        ((tiny_bundle, "--output", out, "--title", ""), "--title is a line of 1 to 200 characters, not ''"),
        ((named, "--output", out), "is no heading of a page, which is a line of 1 to 200 characters: give on"),
        ((tiny_bundle, "--output", tiny_bundle / "site"), "is inside the bundle"),
        ((held, "--output", tmp_path / "site", "--overwrite"), "is read, and replacing it would remove that: choose"),
    ):
        done = run(*arguments, "--yes")
        assert done.exit_code != 0
        assert sentence in said(done)
    assert asked == []
    Bundle.open(held).verify()
    assert run(named, "--output", out, "--title", "short", "--yes").exit_code == 0


def test_a_package_with_another_hash_is_not_kept(registry, tmp_path):
    asked, package, tarball = registry
    whole = tarball.read_bytes()
    for content in (whole[:-1] + bytes([whole[-1] ^ 1]), whole + b"more", whole[:100]):
        tarball.write_bytes(content)
        with pytest.raises(ProviderError, match="is not onnxruntime-web"):
            web_runtime.download(package)
    tarball.unlink()
    with pytest.raises(ProviderError, match="cannot be fetched"):
        web_runtime.download(package)
    assert len(asked) == 4 + 1  # the last is logged as an error too
    assert list((tmp_path / "cache" / "bertport").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_not_blamed_on_the_registry(registry, tmp_path, monkeypatch):
    _, package, tarball = registry
    content = tarball.read_bytes() + bytes(web_runtime.CHUNK)  # more than is kept back until the file is closed
    tarball.write_bytes(content)

    def full(**_):
        return os.open("/dev/full", os.O_WRONLY), str(tmp_path / "none")

    monkeypatch.setattr(web_runtime.tempfile, "mkstemp", full)
    with pytest.raises(PathError, match=r"cannot write .*onnxruntime-web-1\.30\.0\.tgz .*: free some space"):
        web_runtime.download(dataclasses.replace(package, size=len(content)))


def test_a_user_without_a_home_directory_is_told_what_to_set(tiny_bundle, tmp_path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    done = run(tiny_bundle, "--output", tmp_path / "site", "--yes")
    assert isinstance(done.exception, PathError)
    assert said(done).endswith("has no home directory: " + web_runtime.ADVICE)


def test_the_policies_are_one_and_the_same():
    page = (PAGE / "index.html").read_text()
    [meta] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    [sample] = re.findall(r"Content-Security-Policy: (.*)", (PAGE / "_headers").read_text())
    worker = (PAGE / "service-worker.js").read_text()
    [source] = re.findall(r'"content-security-policy": ("[^,]*),', worker)
    assert sample == meta + "; frame-ancestors 'none'"  # which a page cannot say of itself
    assert "".join(re.findall(r'"([^"]*)"', source)) == sample
    assert "default-src 'none'" in sample
    assert "unsafe-inline" not in sample
    assert "'unsafe-eval'" not in sample
    assert "*" not in sample
    assert "http" not in sample


def test_the_page_holds_nothing_inline_and_names_no_other_host():
    page = (PAGE / "index.html").read_text()
    assert not re.findall(r"style=|onclick=|<style|<script>", page)
    for path in PAGE.iterdir():
        if path.name.endswith((".js", ".html", ".css")):
            hosts = set(re.findall(r"https?://[^/\s\"'`]*", path.read_text()))
            assert hosts <= {"http://localhost:8000."}, path.name
