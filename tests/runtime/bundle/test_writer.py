"""Writing bundles: several at once, killed at any step, readers meanwhile, odd places, and systems without locks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertport.runtime import load
from bertport.runtime.bundle.changes import (
    Workspace,
    add_files,
    add_variant,
    change_manifest,
    replace_figures,
    rewrite_card,
    tidy,
)
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.writer import describe_files, new_bundle, write_manifest
from bertport.runtime.errors import BundleError, PathError, UsageError
from tests.runtime.bundle.killing import model, put
from tests.unwritable import unwritable

KILLING = Path(__file__).with_name("killing.py")


@pytest.fixture(scope="module")
def small(tiny_bundle, tmp_path_factory):
    """A bundle of a few bytes that verifies and cannot be asked."""
    path = tmp_path_factory.mktemp("small") / "small"
    manifest = Bundle.open(tiny_bundle).manifest
    for name in ("tokenizer.json", *(variant.file for variant in manifest.variants.values())):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(model(name.encode()))
    (path / "README.md").write_text("# small\n")
    shutil.copy(tiny_bundle / "golden.json", path)
    variants = {name: dataclasses.replace(variant, external_data=()) for name, variant in manifest.variants.items()}
    write_manifest(path, dataclasses.replace(manifest, files=describe_files(path), variants=variants))
    return path


@pytest.fixture
def bundle(small, tmp_path):
    """A copy of it."""
    return shutil.copytree(small, tmp_path / "bundle")


def left(bundle):
    """Name what is beside a bundle, and what it does not list."""
    return [*Bundle.open(bundle).verify(), *(path.name for path in bundle.parent.iterdir() if path != bundle)]


def python(program, *arguments):
    """Start a program that knows `bundle`, its first argument, and what killing.py can do."""
    head = (
        "import sys, dataclasses\nfrom pathlib import Path\nbundle = Path(sys.argv[1])\n"
        f"sys.path.insert(0, {str(KILLING.parent)!r})\nfrom killing import hide, put\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_of_several_writers_none_is_lost(bundle):
    program = "for n in range(8): put(bundle, f'{sys.argv[2]}{n}', stem='same')"
    for process in [python(program, bundle, name) for name in "abc"]:
        output(process)
    manifest = Bundle.open(bundle).manifest
    assert {f"{name}{n}" for name in "abc" for n in range(8)} < set(manifest.variants)
    files = [variant.file for variant in manifest.variants.values()]
    assert len(set(files)) == len(files)
    assert left(bundle) == []


def test_of_several_that_make_the_same_variant_again_one_stays_whole(bundle):
    program = "for n in range(8): put(bundle, 'same', overwrite=True, content=sys.argv[2].encode())"
    for process in [python(program, bundle, name) for name in "abc"]:
        output(process)
    opened = Bundle.open(bundle)
    variant = opened.manifest.variants["same"]
    assert (bundle / variant.file).read_bytes() == model((bundle / variant.external_data[0]).read_bytes())
    assert variant.external_data == (f"{variant.file}_data",)
    assert left(bundle) == []


def test_of_two_that_make_the_same_variant_the_second_is_refused(bundle):
    opened = Bundle.open(bundle)
    with Workspace.beside(opened) as first, Workspace.beside(opened) as second:
        names = [workspace.reserve("onnx/more.onnx") for workspace in (first, second)]
        assert names == ["onnx/more.onnx", "onnx/more-2.onnx"]
        for work, name in zip((first, second), names, strict=True):
            (work.directory / "graph").write_bytes(model(name.encode()))
        fp32 = opened.manifest.variants["fp32"]
        committed = add_variant(
            first, "more", dataclasses.replace(fp32, file=names[0]), {names[0]: first.directory / "graph"}
        )
        with pytest.raises(UsageError, match=r"has added the variant 'more' to the bundle .* meanwhile: pass --overw"):
            add_variant(
                second, "more", dataclasses.replace(fp32, file=names[1]), {names[1]: second.directory / "graph"}
            )
    assert Bundle.open(bundle) == committed
    assert left(bundle) == []


def replaced(bundle, text="another"):
    """Replace a bundle by another model."""
    with new_bundle(bundle, overwrite=True) as building:
        shutil.copytree(bundle, building, dirs_exist_ok=True)
        (building / "tokenizer.json").write_text(text)
        manifest = Bundle.open(building).manifest
        write_manifest(building, dataclasses.replace(manifest, files=describe_files(building)))


@pytest.mark.parametrize("change", ["variant", "figures", "table"])
def test_a_bundle_that_was_replaced_meanwhile_is_not_changed(bundle, change):
    opened = Bundle.open(bundle)
    fp32 = opened.manifest.variants["fp32"]
    with Workspace.beside(opened) as work:
        (work.directory / "graph").write_text("graph")
        replaced(bundle)
        changes = {
            "variant": lambda: add_variant(work, "more", fp32, {"onnx/more.onnx": work.directory / "graph"}),
            "figures": lambda: replace_figures(opened, "fp32", fp32, default=lambda _: "fp32"),
            "table": lambda: add_files(opened, lambda _: {"quantization/fp32.json": work.directory / "graph"}),
        }
        with pytest.raises(BundleError, match=r"another process has put another model at .* meanwhile: start again"):
            changes[change]()
    assert left(bundle) == []


def test_figures_of_a_variant_that_was_made_again_are_refused(bundle):
    put(bundle, "more")
    opened = Bundle.open(bundle)
    put(bundle, "more", overwrite=True, content=b"other")
    with pytest.raises(BundleError, match=r"has replaced the variant 'more' .* during the measurement: measure"):
        replace_figures(opened, "more", opened.manifest.variants["more"], default=lambda _: "fp32")


def test_figures_on_labelled_data_of_another_process_stay(bundle):
    put(bundle, "more")
    opened = Bundle.open(bundle)
    more = opened.manifest.variants["more"]
    for data in ("first.jsonl", "second.jsonl"):  # both measured since the bundle was opened
        figures = dataclasses.replace(more, task_metrics={data: {"examples": 9}})
        replace_figures(opened, "more", figures, default=lambda _: "fp32")
    assert set(Bundle.open(bundle).manifest.variants["more"].task_metrics) == {"first.jsonl", "second.jsonl"}


def test_a_change_of_the_manifest_is_made_to_what_is_there(bundle):
    program = (
        "from bertport.runtime.bundle.changes import change_manifest\n"
        "for _ in range(20): change_manifest(bundle, lambda now: dataclasses.replace(now.manifest, "
        "name=now.manifest.name + 'x'))"
    )
    for process in [python(program, bundle) for _ in range(2)]:
        output(process)
    assert Bundle.open(bundle).manifest.name.endswith("x" * 40)
    assert left(bundle) == []


def test_of_two_new_bundles_the_second_is_refused(small, tmp_path):
    late = new_bundle(tmp_path / "new", overwrite=False)
    shutil.copytree(small, late.__enter__(), dirs_exist_ok=True)
    output(
        python(
            "from bertport.runtime.bundle.writer import new_bundle\n"
            "import shutil\n"
            "with new_bundle(bundle, overwrite=False) as new: shutil.copytree(sys.argv[2], new, dirs_exist_ok=True)",
            *(tmp_path / "new", small),
        )
    )
    with pytest.raises(PathError, match="pass --overwrite"):
        late.__exit__(None, None, None)
    assert left(tmp_path / "new") == []


@pytest.mark.parametrize(
    ("change", "options"),
    [
        *(pytest.param(change, [], marks=pytest.mark.slow) for change in ("replace", "again", "add", "new")),
        pytest.param("replace", ["--portable"], marks=pytest.mark.slow),
        *(pytest.param(change, [], marks=(pytest.mark.slow, pytest.mark.long)) for change in ("figures", "table")),
        pytest.param("again", ["--portable"], marks=(pytest.mark.slow, pytest.mark.long)),
    ],
)
def test_killed_at_any_step(small, tmp_path, change, options):
    """Nothing stays, a retry works, and the bundle is the old or the new one: see the program."""
    command = [sys.executable, KILLING, small, tmp_path, change, *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


def test_what_belongs_to_a_live_process_is_left_alone(bundle, caplog):
    program = (
        "from bertport.runtime.bundle.directory import Bundle\n"
        "from bertport.runtime.bundle.workspace import Workspace\n"
        "with Workspace.beside(Bundle.open(bundle)) as work:\n"
        "    (work.directory / 'graph').write_text('graph')\n"
        "    print(work.reserve('onnx/more.onnx'), flush=True)\n"
        "    import time; time.sleep(100)"
    )
    process = python(program, bundle)
    assert process.stdout.readline() == "onnx/more.onnx\n"
    put(bundle, "other", stem="more")
    assert Bundle.open(bundle).manifest.variants["other"].file == "onnx/more-2.onnx"
    [name] = left(bundle)
    assert (bundle.parent / name / "new" / "graph").exists()
    assert not caplog.text
    process.kill()
    process.communicate()
    with caplog.at_level(logging.WARNING):
        tidy(bundle)
    assert f"removed what a stopped process had left of its work on {bundle}" in caplog.text
    assert left(bundle) == []


def test_what_others_have_named_alike_is_left_alone(bundle):
    beside = {
        ".bundle.abcdefgh.tmp/model": "of another program",
        ".bundle.bertport-abcdefgh.tmp/model": "without an owner",
        ".bundle.bertport-abcdefgh.tmp.bertport-abcdefgh.tmp/owner": "of a bundle of that name",
        ".bundle.bertport-abcdefg.tmp/owner": "too short",
        ".other.bertport-abcdefgh.tmp/owner": "of another bundle",
        "bundle/.manifest.json.tmp": "in it",
        "bundle/onnx/more.onnx": "not listed",
    }
    for name, content in beside.items():
        (bundle.parent / name).parent.mkdir(exist_ok=True)
        (bundle.parent / name).write_text(content)
    put(bundle, "more")
    assert Bundle.open(bundle).manifest.variants["more"].file == "onnx/more-2.onnx"
    for name, content in beside.items():
        assert (bundle.parent / name).read_text() == content


@pytest.mark.slow
def test_a_reader_gets_a_whole_model_or_is_told_that_it_changes(tiny_bundle, tmp_path):
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    program = (
        "from bertport.runtime.bundle.writer import new_bundle\n"
        "import shutil, time\n"
        "content = (bundle / 'onnx' / 'model.onnx').read_bytes()\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for _ in range(5): put(bundle, 'same', overwrite=True, content=content)\n"
        "    with new_bundle(bundle, overwrite=True) as building:\n"
        "        shutil.copytree(sys.argv[2], building, dirs_exist_ok=True)\n"
        "    time.sleep(0.5)\n"
    )
    answer = load(path, provider="cpu").fill_mask("the [MASK] is small .", top_k=1)
    process = python(program, path, tiny_bundle)
    process.stdout.readline()
    loaded, told = 0, []
    try:
        for _ in range(15):
            try:
                model = load(path, provider="cpu")
            except BundleError as error:  # a writer that never rests lets no reader see the same bundle twice
                told.append(error.message)
            else:
                assert model.fill_mask("the [MASK] is small .", top_k=1) == answer
                loaded += 1
        assert loaded
        assert all("was changed while" in line for line in told)
    finally:
        process.kill()
        process.communicate()


def test_a_reader_takes_what_a_writer_has_put_in_the_place_of_what_it_began_to_read(tiny_bundle, tmp_path, monkeypatch):
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    check, times = Bundle.check_variant, []

    def meanwhile(self, name):
        if not times:
            (path / "vocab.txt").unlink(missing_ok=True)
            change_manifest(path, lambda now: dataclasses.replace(now.manifest, name="second"))
            shutil.copytree(tiny_bundle, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
            times.append(1)
            raise BundleError("a file is gone")
        return check(self, name)

    monkeypatch.setattr(Bundle, "check_variant", meanwhile)
    assert load(path, provider="cpu").bundle.manifest.name == "second"


@pytest.mark.parametrize(
    "name",
    [" a b\n", "...", ".hidden", "é" * 127, "x" * 255, "-rf", "a.bertport-abcdefgh.tmp", os.fsdecode(b"\xff\xfe")],
    ids=ascii,
)
def test_names(small, tmp_path, name):
    path = tmp_path / "folder" / name
    for _ in range(2):
        with new_bundle(path, overwrite=True) as building:
            shutil.copytree(small, building, dirs_exist_ok=True)
    put(path, "more")
    assert left(path) == []


def test_a_name_that_is_too_long_is_one_sentence(tmp_path):
    with (
        pytest.raises(PathError, match=r"cannot write .* \(File name too long\)"),
        new_bundle(tmp_path / ("x" * 256), overwrite=True),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_bundle_by_way_of_a_link_and_by_relative_paths(bundle, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(bundle)
    put(link, "linked")
    monkeypatch.chdir(bundle)
    put(Path(), "dot")
    monkeypatch.chdir(bundle / "onnx")
    put(Path(".."), "above")
    with (
        pytest.raises(PathError, match="is or holds the current directory"),
        new_bundle(Path(".."), overwrite=True),
    ):
        pass
    monkeypatch.chdir(tmp_path)
    with new_bundle(Path("bundle"), overwrite=True) as building:
        shutil.copytree(bundle, building, dirs_exist_ok=True)
    with pytest.raises(PathError, match="exists and is not a directory"), new_bundle(link, overwrite=True):
        pass
    assert {"linked", "dot", "above"} < set(Bundle.open(link).manifest.variants)
    assert left(bundle) == ["link"]


def test_a_lock_that_is_kept_is_told_of(bundle, monkeypatch):
    from bertport.runtime.bundle import locks

    exclusive = locks.exclusive.__wrapped__.__defaults__
    monkeypatch.setattr(locks.exclusive.__wrapped__, "__defaults__", (0.05,))
    lock = locks.try_lock(bundle.parent / ".bundle.bertport.lock")
    try:
        with pytest.raises(PathError, match=r"has held its lock .*\.bundle\.bertport\.lock for 0 s; .* nothing was"):
            tidy(bundle)
    finally:
        lock.release()
    assert exclusive == (60.0,)
    tidy(bundle)
    assert left(bundle) == []


def test_a_stopped_process_keeps_its_lock_and_a_killed_one_does_not(bundle):
    program = (
        "import os, signal\n"
        "from bertport.runtime.bundle.recovery import writing\n"
        "with writing(bundle.resolve()):\n"
        "    print('held', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)"
    )
    process = python(program, bundle)
    assert process.stdout.readline() == "held\n"
    waiting = python("put(bundle, 'more')", bundle)
    time.sleep(0.5)
    assert "more" not in Bundle.open(bundle).manifest.variants
    process.send_signal(signal.SIGKILL)
    process.communicate()
    output(waiting)
    assert "more" in Bundle.open(bundle).manifest.variants
    assert left(bundle) == []


@pytest.fixture
def immutable(bundle):
    with unwritable(bundle) as path:
        yield path


def test_a_bundle_that_may_not_be_written_is_told_before_the_work(immutable):
    with pytest.raises(PathError, match=r"cannot write .*: work on a copy of the bundle .*; nothing was changed"):
        tidy(immutable)
    assert left(immutable) == []


def test_no_room_for_a_variant_is_one_sentence(bundle):
    import resource

    before = Bundle.open(bundle)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(PathError, match=r"cannot write .*File too large.*; nothing was changed"):
            put(bundle, "more", content=b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Bundle.open(bundle) == before
    assert left(bundle) == []


WITHOUT = "hide()\n"
"""Beginning of a program: hides what Windows and other systems lack from everything that is imported after it."""


def test_without_locks_of_the_system_and_exchange(tiny_bundle, tmp_path):
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    program = WITHOUT + (
        "from bertport.runtime import load\n"
        "from bertport.runtime.bundle.directory import Bundle\n"
        "from bertport.runtime.bundle.writer import new_bundle\n"
        "import bertport.export, bertport.export.cli, bertport.export.exporter, bertport.quantize.cli, shutil\n"
        "put(bundle, 'more')\n"
        "put(bundle, 'more', overwrite=True)\n"
        "assert not Bundle.open(bundle).verify()\n"
        "with new_bundle(bundle, overwrite=True) as place: shutil.copytree(bundle, place, dirs_exist_ok=True)\n"
        "assert not Bundle.open(bundle).verify()\n"
        "print(load(bundle, variant='fp32', provider='cpu', memory='2G').fill_mask('the [MASK] .', top_k=1))"
    )
    assert output(python(program, path)).strip()
    assert "more" in Bundle.open(path).manifest.variants
    assert left(path) == []


def test_several_writers_without_locks_of_the_system(bundle):
    program = WITHOUT + "for n in range(5): put(bundle, f'{sys.argv[2]}{n}', stem='same')"
    for process in [python(program, bundle, name) for name in "ab"]:
        output(process)
    assert {f"{name}{n}" for name in "ab" for n in range(5)} < set(Bundle.open(bundle).manifest.variants)
    assert left(bundle) == []


@pytest.fixture
def planted(bundle, tmp_path):
    """A workspace beside the bundle that came with it, and files of another user."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    for name in ("owner", "notes", "photos/one"):
        (home / name).write_text("x")
    return tmp_path / f".{bundle.name}.bertport-abcdefgh.tmp", home


def files(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("place", ["home", ".", "bundle"])
def test_a_workspace_that_is_a_link_is_nobodys(bundle, planted, place):
    workspace, home = planted
    (bundle / "owner").write_text("x")
    (bundle.parent / "owner").write_text("x")
    workspace.symlink_to(place)
    before = files(home), files(bundle)
    tidy(bundle)
    assert (files(home), files(bundle)) == before
    assert workspace.is_symlink()


@pytest.mark.parametrize("name", ["../home/notes", "absolute", "onnx/../../home/notes", "out/notes", "vocab.txt", "\0"])
def test_a_note_that_came_with_a_workspace_removes_nothing_else(bundle, planted, name):
    workspace, home = planted
    workspace.mkdir()
    (workspace / "owner").write_text("")
    (bundle / "vocab.txt").write_text("x")
    (bundle / "onnx" / "out").symlink_to(home)
    name = {"absolute": str(home / "notes"), "out/notes": "onnx/out/notes"}.get(name, name)
    note = {name: {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}
    (workspace / "placing.json").write_text(json.dumps(note))
    before = files(home)
    tidy(bundle)
    assert files(home) == before
    assert (bundle / "vocab.txt").exists()
    assert not workspace.exists()


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '["a\\u0000b"]', '{"onnx/a": 1}', '{"onnx/a": {"size": "x"}}', "\0"]
)
def test_notes_that_are_none_block_nobody(bundle, planted, content):
    workspace, _ = planted
    workspace.mkdir()
    for name in ("owner", "placing.json", "names.json"):
        (workspace / name).write_text(content)
    tidy(bundle)
    put(bundle, "more")
    assert left(bundle) == ["home"]


def test_nothing_is_written_through_a_link_out_of_the_bundle(bundle, planted):
    _, home = planted
    (bundle / "quantization").symlink_to(home)
    before = files(home)
    with pytest.raises(BundleError, match="is a link that leaves the bundle, and nothing is written through it"):
        put(bundle, "more")
    assert files(home) == before


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["link", "fifo", "endless"])
def test_a_card_that_is_no_file_of_the_bundle_is_left_alone(bundle, planted, kind):
    _, home = planted
    card = bundle / "README.md"
    card.unlink()
    if kind == "fifo":
        os.mkfifo(card)
    else:
        card.symlink_to(home / "notes" if kind == "link" else "/dev/zero")
    rewrite_card(bundle, lambda old, _: f"{old}!")
    assert card.is_symlink() or card.is_fifo()
    assert (home / "notes").read_text() == "x"


def test_a_lock_that_is_a_link_makes_no_file(bundle, planted):
    _, home = planted
    (bundle.parent / f".{bundle.name}.bertport.lock").symlink_to(home / "made")
    with pytest.raises(PathError, match="cannot write"):
        put(bundle, "more")
    assert not (home / "made").exists()


@pytest.mark.parametrize("name", ["onnx//model.onnx", "onnx/./model.onnx", "onnx/again/tokenizer.json", "."])
def test_a_note_that_came_with_a_workspace_removes_no_listed_file_by_another_name(bundle, planted, name):
    workspace, _ = planted
    workspace.mkdir()
    (workspace / "owner").write_text("")
    (bundle / "onnx" / "again").symlink_to("..")
    content = (bundle / name).read_bytes() if name != "." else b""
    note = {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    (workspace / "placing.json").write_text(json.dumps(note))
    tidy(bundle)
    assert left(bundle) == ["home"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["fifo", "endless", "number", "digit"])
def test_a_signature_that_is_none_blocks_nobody(bundle, planted, kind):
    workspace, _ = planted
    workspace.mkdir()
    named = workspace / "owner.pid"
    if kind == "fifo":
        os.mkfifo(named)
    elif kind == "endless":
        with named.open("wb") as file:
            file.truncate(1 << 40)
    else:
        named.write_text(f"{'9' * 5000 if kind == 'number' else chr(0xB2)} token {platform.node()}")
    tidy(bundle)
    put(bundle, "more")
    assert workspace.exists()


@pytest.mark.timeout(30)
def test_many_names_that_came_with_a_workspace_take_no_time(bundle, planted):
    workspace, _ = planted
    workspace.mkdir()
    (workspace / "owner.pid").write_text("1 token of another machine")
    names = ["onnx/more.onnx", *(f"onnx/more-{n}.onnx" for n in range(2, 40_000))]
    (workspace / "names.json").write_text(json.dumps(names))
    put(bundle, "more")
    assert Bundle.open(bundle).manifest.variants["more"].file == "onnx/more-40000.onnx"


def test_a_bundle_comes_back_whatever_came_beside_it(bundle, planted):
    workspace, _ = planted
    real = workspace.with_name(f".{bundle.name}.bertport-zzzzzzzz.tmp")
    for directory in (workspace, real):
        (directory / "new").mkdir(parents=True)
    (workspace / "old").mkdir()
    (workspace / "owner.pid").write_text("1 token of another machine")
    (real / "owner").write_text("")
    before = Bundle.open(bundle)
    bundle.rename(real / "old")
    tidy(bundle)
    assert Bundle.open(bundle) == before


def test_a_link_out_of_the_bundle_is_told_before_the_work(bundle, planted):
    (bundle / "quantization").symlink_to(planted[1])
    with pytest.raises(BundleError, match="is a link that leaves the bundle"):
        tidy(bundle)
    tidy(bundle, write=False)


def test_a_manifest_is_written_through_no_link(bundle, planted):
    _, home = planted
    (bundle / ".manifest.json.bertport.tmp").symlink_to(home / "notes")
    write_manifest(bundle, Bundle.open(bundle).manifest)
    assert (home / "notes").read_text() == "x"
    assert left(bundle) == ["home"]
