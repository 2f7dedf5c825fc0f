"""What was hashed is what is opened: regular files of the bundle or blobs of its repository, and none that changed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertport.runtime import load, loading
from bertport.runtime import session as runtime_graph
from bertport.runtime.bundle import files, stamps
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.cli import main
from bertport.runtime.errors import BundleError
from bertport.runtime.heads import HEADS, MLM
from bertport.runtime.loading import PAUSES
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import open_graph
from bertport.runtime.text.tokenizer import TOKENIZER, Tokens
from bertport.runtime.top_k import top_k_head
from tests.broken import copied
from tests.hub_cache import COMMIT, in_hub_cache, serving
from tests.runtime.parity import assert_same_fillings

SERVING, WEIGHTS = "onnx/model_serving.onnx", "onnx/model.onnx"
TEXT = "the king of [MASK] is old"


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def settle():
    """Wait until the file system's clock has moved on."""
    time.sleep(2 * stamps.TICK / 1e9)


# Regular files only.


def fifo(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


STRANGE = {
    "a FIFO": (fifo, "is a FIFO and should be a regular file"),
    "a link to a FIFO": (
        lambda path: (os.mkfifo(path.with_name("fifo")), path.symlink_to("fifo")),
        "is a FIFO and should be a regular file",
    ),
    "a socket": (listening, "is a socket and should be a regular file"),
    "a directory": (Path.mkdir, "is a directory and should be a regular file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "No such file or directory|it has no manifest.json"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is a link that leaves the bundle|is a device and should"),
}


@pytest.mark.parametrize(("make", "said"), STRANGE.values(), ids=STRANGE.keys())
@pytest.mark.parametrize("name", [MANIFEST, TOKENIZER, "tokenizer_config.json", SERVING, WEIGHTS])
@pytest.mark.timeout(30)
def test_only_regular_files_are_read(bundle, name, make, said):
    (bundle / name).unlink()
    make(bundle / name)
    actions = [lambda: load(bundle), lambda: Bundle.open(bundle).verify()]
    if name != MANIFEST:
        actions.append(lambda: Bundle.open(bundle).check([name]))
    for action in actions:
        with pytest.raises(BundleError, match=said) as raised:
            action()
        assert "\n" not in raised.value.message


@pytest.mark.timeout(30)
def test_a_listed_fifo_of_no_size(tiny_bundle, tmp_path, capsys):
    entry = {"size": 0, "sha256": hashlib.sha256().hexdigest()}
    bundle = copied(tiny_bundle, tmp_path / "listed", manifest=lambda value: value["files"].update(empty=entry))
    os.mkfifo(bundle / "empty")
    with pytest.raises(BundleError, match="is a FIFO and should be a regular file"):
        Bundle.open(bundle).verify()
    with pytest.raises(SystemExit, match="1"):
        main(["verify", str(bundle)])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_name_that_no_file_can_have(tiny_bundle):
    opened = Bundle.open(tiny_bundle)
    entry = opened.manifest.files[WEIGHTS]
    manifest = dataclasses.replace(opened.manifest, files={**opened.manifest.files, "\ud83d": entry})
    with pytest.raises(BundleError, match="which is not a valid file name here"):
        dataclasses.replace(opened, manifest=manifest).verify()


def test_a_device_in_the_place_of_a_file_is_not_even_opened(monkeypatch):
    """Opening /dev/watchdog starts it."""
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(BundleError, match="is a device and should be a regular file"):
        files.open_regular(Path("/dev/null"))


def test_a_file_that_becomes_a_fifo_meanwhile_does_not_block(bundle, monkeypatch):
    path = bundle / TOKENIZER
    status = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    with pytest.raises(BundleError, match="is a FIFO"):
        files.open_regular(path)


class Endless:
    """A file that grows for ever."""

    taken = 0

    def read(self, size):
        self.taken += size
        return b"\0" * size

    def readinto(self, buffer):
        self.taken += len(buffer)
        return len(buffer)


@pytest.mark.parametrize("most", [0, 1, 10, files.BLOCK, 3 * files.BLOCK + 5])
def test_a_file_that_grows_while_it_is_read(most):
    assert files.hashed(Endless(), most)[0] == most + 1
    assert len(files.read_bounded(Endless(), most)) == most + 1


@pytest.mark.parametrize("size", [0, 1, files.BLOCK - 1, files.BLOCK, files.BLOCK + 1])
def test_hashes_are_those_of_the_whole_file(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    expected = (size, hashlib.sha256(path.read_bytes()).hexdigest())
    with files.open_regular(path) as file:
        assert files.hashed(file, size) == expected
    with files.open_regular(path) as file:
        assert files.read_bounded(file, size) == path.read_bytes()


def test_a_manifest_without_end(bundle):
    with (bundle / MANIFEST).open("ab") as file:
        file.truncate(2**40)  # it takes no room
    with pytest.raises(BundleError, match=r"has more than 16,777,216 bytes"):
        Bundle.open(bundle)


def test_a_manifest_that_is_a_link_out_of_the_bundle(bundle, tmp_path):
    (bundle / MANIFEST).rename(tmp_path / "elsewhere.json")
    (bundle / MANIFEST).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match=r"manifest.json is a link that leaves the bundle"):
        Bundle.open(bundle)


def test_links_within_the_bundle_are_its_own(bundle):
    """Kubernetes mounts files so: links to a directory that is a link."""
    (bundle / "..2026").mkdir()
    for name in (MANIFEST, TOKENIZER):
        (bundle / name).rename(bundle / "..2026" / name)
        (bundle / name).symlink_to(f"..data/{name}")
    (bundle / "..data").symlink_to("..2026")
    assert load(bundle).fill_mask(TEXT)


def back_in(bundle, tmp_path):
    """A link outside that leads back into the bundle."""
    (tmp_path / "via").symlink_to(bundle / "inner")
    return tmp_path / "via" / "onnx"


def around(bundle, tmp_path):
    """A directory outside that is left again, as it may be a link by then."""
    (tmp_path / "other").mkdir()
    return Path("..") / "other" / ".." / bundle.name / "inner" / "onnx"


@pytest.mark.parametrize("target", [back_in, around], ids=lambda target: target.__name__)
def test_a_way_that_leaves_the_bundle_is_refused_though_it_ends_inside(bundle, tmp_path, target):
    (bundle / "inner").mkdir()
    (bundle / "onnx").rename(bundle / "inner" / "onnx")
    (bundle / "onnx").symlink_to(target(bundle, tmp_path))
    assert (bundle / WEIGHTS).is_file()
    for action in (lambda: load(bundle), Bundle.open(bundle).verify):
        with pytest.raises(BundleError, match="is a link that leaves the bundle"):
            action()


def test_a_bundle_beside_what_a_link_leads_to(bundle, tmp_path):
    """Where `link/..` is not the link's own directory."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "bundle").symlink_to(shutil.copytree(bundle, tmp_path / "far" / "real"))
    (tmp_path / "far" / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    place = tmp_path / "link" / ".." / "bundle"
    assert Bundle.open(place).verify() == ()
    (tmp_path / "far" / "real" / WEIGHTS).unlink()
    (tmp_path / "far" / "real" / WEIGHTS).symlink_to(bundle / WEIGHTS)
    with pytest.raises(BundleError, match="is a link that leaves the bundle"):
        Bundle.open(place).verify()


def led_away_and_back(link, target):
    for lead in ("elsewhere", target):
        link.unlink()
        link.symlink_to(lead)


@pytest.mark.parametrize("by_link", [False, True], ids=["as it is", "by a link to it"])
@pytest.mark.parametrize("target", ["inner/onnx", "../bundle/inner/onnx", "x/d/../onnx", "/"])
def test_links_that_stay_in_the_bundle_are_followed_and_watched(bundle, tmp_path, by_link, target):
    (bundle / "inner" / "deep").mkdir(parents=True)
    (bundle / "onnx").rename(bundle / "inner" / "onnx")
    (bundle / "x").mkdir()
    (bundle / "x" / "d").symlink_to("../inner/deep")  # so that x/d/.. is inner, and not x
    (tmp_path / "link").symlink_to(bundle)
    place = tmp_path / "link" if by_link else bundle
    (bundle / "onnx").symlink_to(place / "inner" / "onnx" if target == "/" else target)
    with Bundle.open(place).opening("fp32") as path:
        assert path.is_file()
    if target.startswith("x"):
        with pytest.raises(BundleError, match="was changed while"), Bundle.open(place).opening("fp32"):
            led_away_and_back(bundle / "x" / "d", "../inner/deep")


def test_links_in_a_circle(bundle):
    (bundle / WEIGHTS).unlink()
    (bundle / WEIGHTS).symlink_to("other")
    (bundle / "onnx" / "other").symlink_to("model.onnx")
    with pytest.raises(BundleError, match=r"lacks onnx/model.onnx \(Too many levels"):
        load(bundle)


# Nothing changes between hashing and opening.


def overwrite(bundle):
    """Change a byte in place, and say that it was never done as well as one can."""
    path = bundle / WEIGHTS
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\xff")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(bundle, name=WEIGHTS):
    path = bundle / name
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    (bundle / "new").write_bytes(content)
    shutil.copystat(path, bundle / "new")
    (bundle / "new").rename(path)


def there_and_back(bundle, path=WEIGHTS):
    """Replace it by another for a while."""
    path = bundle / path
    aside = bundle.parent / "aside"
    path.rename(aside)
    if aside.is_dir():
        shutil.copytree(aside, path)
        shutil.rmtree(path)
    else:
        shutil.copy(aside, path)
    aside.rename(path)


def by_a_link(bundle):
    path = bundle / WEIGHTS
    path.rename(bundle / "onnx" / "moved")
    path.symlink_to("moved")


def as_the_same(bundle):
    """The very bytes in another file."""
    path = bundle / WEIGHTS
    shutil.copy2(path, bundle / "onnx" / "copy")
    (bundle / "onnx" / "copy").rename(path)


CHANGES = {
    "written in place": overwrite,
    "replaced": replace,
    "the graph replaced": lambda bundle: replace(bundle, SERVING),
    "replaced by the same": as_the_same,
    "moved there and back": there_and_back,
    "made a link": by_a_link,
    "removed": lambda bundle: (bundle / WEIGHTS).unlink(),
    "cut": lambda bundle: os.truncate(bundle / WEIGHTS, 1000),
    "grown": lambda bundle: os.truncate(bundle / WEIGHTS, (bundle / WEIGHTS).stat().st_size + 1),
}


def before(monkeypatch, place, name, action):
    """Run something just before a function is called for the first time."""
    inner, done = getattr(place, name), []

    def outer(*arguments, **named):
        if not done:
            done.append(True)
            action()
        return inner(*arguments, **named)

    monkeypatch.setattr(place, name, outer)
    return done


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("aged", [True, False], ids=["old files", "files made just now"])
def test_what_is_changed_between_hashing_and_opening_is_not_loaded(bundle, monkeypatch, change, aged):
    if aged:
        settle()
    done = before(monkeypatch, runtime_graph, "_session", lambda: change(bundle))
    with pytest.raises(BundleError, match=r"was changed while .*onnx was opened: load the bundle again"):
        load(bundle)
    assert done


@pytest.mark.parametrize("directory", [".", "onnx"])
def test_a_directory_that_is_moved_away_and_back_is_opened_anew(bundle, monkeypatch, directory):
    sessions = []

    def then(*arguments):
        sessions.append(True)
        if len(sessions) <= times:
            there_and_back(bundle, directory)
        return inner(*arguments)

    inner = runtime_graph._session
    monkeypatch.setattr(runtime_graph, "_session", then)
    monkeypatch.setattr(loading, "PAUSES", (0.0,) * len(PAUSES))
    times = 1
    assert load(bundle).fill_mask(TEXT)
    assert len(sessions) == 2
    times = 100
    with pytest.raises(BundleError, match="was changed while"):
        load(bundle)
    assert len(sessions) == 2 + len(PAUSES) + 1


def test_a_file_that_is_added_meanwhile_is_no_reason_to_refuse(bundle, monkeypatch):
    """Quantizing adds files so."""
    done = before(monkeypatch, runtime_graph, "_session", lambda: (bundle / "onnx" / "new").write_bytes(b"new"))
    assert load(bundle).fill_mask(TEXT)
    assert done


@pytest.mark.parametrize("change", [CHANGES["written in place"], CHANGES["replaced"], CHANGES["moved there and back"]])
def test_what_is_changed_before_a_second_session_is_opened_is_not_loaded(bundle, monkeypatch, change):
    """With streams there are two, each of which opens the files."""
    sessions = []

    def then(*arguments):
        sessions.append(True)
        if len(sessions) == 2:
            change(bundle)
        return inner(*arguments)

    inner = runtime_graph._session
    monkeypatch.setattr(runtime_graph, "_session", then)
    with pytest.raises(BundleError, match="was changed while"):
        load(bundle, threads=2, streams=2)
    assert len(sessions) == 2


@pytest.mark.parametrize("change", [CHANGES["written in place"], CHANGES["moved there and back"]])
def test_what_is_changed_while_it_is_hashed_is_not_loaded(bundle, monkeypatch, change):
    opened = Bundle.open(bundle)
    before(monkeypatch, files.hashlib, "sha256", lambda: change(bundle))
    with pytest.raises(BundleError, match=r"was changed while|is not the file that was exported"):
        opened.check_variant("fp32")


def test_a_tokenizer_is_parsed_from_the_bytes_that_were_hashed(bundle, monkeypatch):
    """A replacement after they were read changes nothing, and one before is seen."""
    opened = Bundle.open(bundle)
    expected = Tokens.read(opened).encode([TEXT])
    (bundle / "other").write_bytes((bundle / TOKENIZER).read_bytes().replace(b'"king"', b'"kinh"'))
    before(monkeypatch, Tokens, "__init__", lambda: (bundle / "other").rename(bundle / TOKENIZER))
    assert Tokens.read(opened).encode([TEXT])[0].ids.tolist() == expected[0].ids.tolist()
    with pytest.raises(BundleError, match=r"tokenizer.json is not the file that was exported"):
        Tokens.read(opened)


def test_a_bundle_that_nobody_changes_is_loaded_though_it_was_made_just_now(tiny_bundle, tmp_path):
    for number in range(3):
        bundle = shutil.copytree(tiny_bundle, tmp_path / str(number))
        assert load(bundle).fill_mask(TEXT)


def test_reading_and_looking_change_nothing(bundle):
    """Another load, an inspection or a backup beside one of ours is no change."""
    with Bundle.open(bundle).opening("fp32"):
        load(bundle)
        Bundle.open(bundle).verify()
        shutil.copytree(bundle, bundle.with_name("backup"))


def test_a_file_that_is_always_written_to_is_given_up(bundle, monkeypatch):
    monkeypatch.setattr("bertport.runtime.bundle.stamps._settled", lambda _: False)
    monkeypatch.setattr("bertport.runtime.bundle.stamps.STEP", 0.0)
    with pytest.raises(BundleError, match="is being written to: load the bundle again when that is done"):
        load(bundle)


def test_an_error_of_opening_is_told_as_it_is(bundle):
    opened = Bundle.open(bundle)
    with pytest.raises(ZeroDivisionError), opened.opening("fp32"):
        raise ZeroDivisionError


# The cache of the Hub.


@pytest.mark.parametrize("below", ["", "deep/er"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_a_bundle_in_the_hubs_cache(tiny_bundle, tmp_path, model, links, below):
    bundle = in_hub_cache(tiny_bundle, tmp_path, links=links, below=below)
    assert (bundle / WEIGHTS).is_symlink() == links
    for variant in ("fp32", "portable"):
        assert_same_fillings(model.fill_mask(TEXT), load(bundle, variant=variant).fill_mask(TEXT))
    assert Bundle.open(bundle).verify() == ()
    with pytest.raises(SystemExit, match="0"):
        main(["verify", str(bundle)])
    (tmp_path / "current").symlink_to(bundle)
    assert load(tmp_path / "current").fill_mask(TEXT)


def test_a_bundle_in_the_hubs_cache_from_within(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(in_hub_cache(tiny_bundle, tmp_path))
    assert load(".").fill_mask(TEXT)


def outside(bundle, tmp_path):
    target = tmp_path / "elsewhere"
    shutil.copy(bundle / WEIGHTS, target)
    return target


def other_repository(bundle, tmp_path):
    other = tmp_path / "models--acme--other" / "blobs"
    other.mkdir(parents=True)
    return shutil.copy(bundle / WEIGHTS, other / "hash")


def through_a_blob(bundle, tmp_path):
    blob = tmp_path / "models--acme--tiny" / "blobs" / "link"
    blob.symlink_to(outside(bundle, tmp_path))
    return blob


def below_the_blobs(bundle, tmp_path):
    below = tmp_path / "models--acme--tiny" / "blobs" / "below"
    below.mkdir()
    return shutil.copy(bundle / WEIGHTS, below / "hash")


def of_the_repository(bundle, tmp_path):
    return shutil.copy(bundle / WEIGHTS, tmp_path / "models--acme--tiny" / "refs" / "hash")


def another_snapshot(bundle, _):
    other = bundle.parent / "another"
    other.mkdir()
    return shutil.copy(bundle / WEIGHTS, other / "hash")


@pytest.mark.parametrize(
    "target",
    [outside, other_repository, through_a_blob, below_the_blobs, of_the_repository, another_snapshot],
    ids=lambda change: change.__name__,
)
def test_only_blobs_of_the_same_repository_are_the_bundles(tiny_bundle, tmp_path, target):
    bundle = in_hub_cache(tiny_bundle, tmp_path)
    path = target(bundle, tmp_path)
    (bundle / WEIGHTS).unlink()
    (bundle / WEIGHTS).symlink_to(path)
    for action in (lambda: load(bundle), Bundle.open(bundle).verify):
        with pytest.raises(BundleError, match="is a link that leaves the bundle"):
            action()


def test_a_directory_of_blobs_that_is_a_link(tiny_bundle, tmp_path):
    bundle = in_hub_cache(tiny_bundle, tmp_path)
    blobs = tmp_path / "models--acme--tiny" / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link that leaves the bundle"):
        Bundle.open(bundle)


def test_a_directory_that_is_only_called_blobs(tiny_bundle, tmp_path):
    """Without the Hub's names around it, a directory beside a bundle is no part of it."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "snapshots" / COMMIT)
    (tmp_path / "blobs").mkdir()
    (bundle / WEIGHTS).rename(tmp_path / "blobs" / "hash")
    (bundle / WEIGHTS).symlink_to("../../../blobs/hash")
    with pytest.raises(BundleError, match="is a link that leaves the bundle"):
        load(bundle)


def link_elsewhere(bundle):
    """Lead a link to another blob and back."""
    path = bundle / WEIGHTS
    target = path.readlink()
    for lead in ("../../../blobs/other", target):
        (bundle / "new").symlink_to(lead)
        (bundle / "new").rename(path)


@pytest.mark.parametrize(
    "change", [link_elsewhere, overwrite, CHANGES["replaced"], CHANGES["moved there and back"], CHANGES["removed"]]
)
def test_what_is_changed_in_the_hubs_cache_is_not_loaded(tiny_bundle, tmp_path, monkeypatch, change):
    bundle = in_hub_cache(tiny_bundle, tmp_path)
    before(monkeypatch, runtime_graph, "_session", lambda: change(bundle))
    with pytest.raises(BundleError, match="was changed while"):
        load(bundle)


def test_another_revision_that_is_fetched_meanwhile_is_no_change(tiny_bundle, tmp_path, monkeypatch):
    bundle = in_hub_cache(tiny_bundle, tmp_path)
    repository = tmp_path / "models--acme--tiny"

    def fetch():
        (repository / "blobs" / "another").write_bytes(b"blob")
        (repository / "snapshots" / "another").mkdir()
        (repository / "refs" / "main").write_text("another")

    before(monkeypatch, runtime_graph, "_session", fetch)
    assert load(bundle).fill_mask(TEXT)


@pytest.mark.parametrize("graph", [True, False], ids=["graph a link", "graph a file"])
@pytest.mark.parametrize("extra", [b"", top_k_head(HEADS[MLM].output)], ids=["from the file", "in memory"])
def test_weights_that_onnx_runtime_would_not_open_are_handed_over(tiny_bundle, tmp_path, graph, extra):
    """It wants them below the graph's directory, or beside the file that the graph is a link to."""
    bundle = in_hub_cache(tiny_bundle, tmp_path)
    if not graph:
        content = (bundle / SERVING).read_bytes()
        (bundle / SERVING).unlink()
        (bundle / SERVING).write_bytes(content)
    checked = Bundle.open(bundle).check_variant("fp32")
    assert checked.external_data == {"model.onnx"}
    with checked.opening() as path:
        opened = open_graph(path, PROVIDERS["cpu"], external_data=checked.external_data, appended=extra)
    import numpy as np

    ids = np.array([[13, 300, 14]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    feeds |= {"masked_positions": np.array([1])}
    plain = open_graph(tiny_bundle / SERVING, PROVIDERS["cpu"])
    np.testing.assert_array_equal(opened.run(feeds, ["logits"])["logits"], plain.run(feeds, ["logits"])["logits"])


def test_a_bundle_that_huggingface_hub_fetched(tiny_bundle, tmp_path):
    held = {path.relative_to(tiny_bundle).as_posix(): path.read_bytes() for path in tiny_bundle.rglob("*.*")}
    # In a process of its own: this one is offline, and huggingface_hub keeps the sessions that it made so.
    program = (
        "import huggingface_hub, sys\n"
        "print(huggingface_hub.snapshot_download('acme/tiny', cache_dir=sys.argv[1], endpoint=sys.argv[2]))"
    )
    with serving({"acme/tiny": held}) as (endpoint, _):
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path, endpoint],
            env={**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
    place = done.stdout.strip()
    assert (Path(place) / WEIGHTS).is_symlink()
    assert load(place).fill_mask(TEXT)
    assert Bundle.open(place).verify() == ()
