"""Packing: a bundle of some variants alone answers as the whole one does, and is refused where it cannot be made."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.golden import read_golden
from bertport.runtime.bundle.packing import pack
from bertport.runtime.cli import app
from bertport.runtime.errors import BundleError, PathError, UnknownNameError
from bertport.runtime.golden import verify_golden
from tests.conftest import contents

TEXT = "the [MASK] sat on the mat"


@pytest.fixture(scope="module")
def packed(tiny_bundle, tmp_path_factory):
    """The portable variant of the tiny bundle, packed; not to be changed."""
    return pack(tiny_bundle, tmp_path_factory.mktemp("packed") / "a" / "packed", ["portable"])


def test_it_holds_the_variant_and_what_it_needs(packed, tiny_bundle):
    whole = Bundle.open(tiny_bundle)
    portable = whole.manifest.variants["portable"]
    files = {path.relative_to(packed.path).as_posix() for path in packed.path.rglob("*") if path.is_file()}
    beside = {path for path in whole.manifest.files if "/" not in path}
    assert files == {"manifest.json", "README.md", portable.file, *portable.external_data, *beside}
    assert packed.verify() == ()
    assert packed.manifest.default_variant == "portable"
    assert packed.manifest.variants == {"portable": portable}
    assert packed.digest != whole.digest
    golden = read_golden(packed)
    assert golden == read_golden(whole).of({"portable"})
    assert verify_golden(packed.path).failures == ()


def test_it_answers_like_any_bundle(packed, tiny_bundle):
    assert load(packed.path).fill_mask(TEXT) == load(tiny_bundle, variant="portable").fill_mask(TEXT)
    assert load(packed.path).variant == "portable"


def test_several_and_the_default(tiny_bundle, tmp_path):
    both = pack(tiny_bundle, tmp_path / "both", ["portable", "fp32"])
    assert both.manifest.default_variant == "fp32"
    assert both.digest == Bundle.open(tiny_bundle).digest  # nothing was left out
    assert list(pack(tiny_bundle, tmp_path / "one").manifest.variants) == ["fp32"]
    again = pack(both.path, tmp_path / "again", ["portable"])
    assert contents(again.path).keys() == contents(pack(tiny_bundle, tmp_path / "direct", ["portable"]).path).keys()


def test_tables_of_the_variant_come_along(tiny_bundle, tmp_path):
    from bertport.runtime.bundle.changes import add_files

    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")

    def write(directory):
        for name in ("fp32", "portable"):
            (directory / name).write_text("{}")
        return {f"quantization/{name}.json": directory / name for name in ("fp32", "portable")}

    add_files(Bundle.open(path), write)
    names = pack(path, tmp_path / "packed", ["fp32"]).manifest.files
    assert [name for name in names if name.startswith("quantization/")] == ["quantization/fp32.json"]


def test_a_bundle_without_golden_vectors(old, tmp_path):
    packed = pack(old, tmp_path / "packed", ["fp32"])
    assert packed.manifest.golden_vectors is None
    assert packed.format_version == 2
    assert packed.verify() == ()


def test_what_cannot_be_packed(tiny_bundle, tmp_path):
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    before = contents(path)
    with pytest.raises(UnknownNameError, match=r"unknown variant 'int8' \(available: portable, fp32\)"):
        pack(path, tmp_path / "out", ["int8"])
    for place in (path, path / "out", path / "onnx" / ".." / "x"):
        with pytest.raises(PathError, match="is inside the bundle that is packed: choose a place outside of"):
            pack(path, place, overwrite=True)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(PathError, match="is inside the bundle that is packed"):
        pack(path, tmp_path / "link" / "out")
    around = shutil.copytree(tiny_bundle, tmp_path / "around")
    within = shutil.copytree(tiny_bundle, around / "within")
    with pytest.raises(PathError, match="is read, and replacing it would remove that: choose another output"):
        pack(within, around, overwrite=True)
    Bundle.open(within).verify()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(PathError, match="exists and is not a bundle"):
        pack(path, tmp_path / "other", overwrite=True)
    pack(path, tmp_path / "out", ["portable"])
    with pytest.raises(PathError, match="exists: pass --overwrite"):
        pack(path, tmp_path / "out")
    assert list(pack(path, tmp_path / "out", overwrite=True).manifest.variants) == ["fp32"]
    with pytest.raises(BundleError, match="and sha256:0000"):
        pack(path, tmp_path / "none", digest="0" * 64)
    assert contents(path) == before


@pytest.mark.parametrize("name", ["tokenizer.json", "golden.json", "onnx/model.onnx"])
def test_a_changed_byte_leaves_nothing(tiny_bundle, tmp_path, name):
    path = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(BundleError, match="is not the file that was exported"):
        pack(path, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_a_card_that_a_link_leads_out_of_the_bundle_is_not_copied(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "private").write_text("mine")
    (bundle / "README.md").unlink()
    (bundle / "README.md").symlink_to(tmp_path / "private")
    with pytest.raises(BundleError, match=r"README\.md is a link that leaves the bundle"):
        pack(bundle, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "private"]


def test_the_command(tiny_bundle, tmp_path):
    run = CliRunner().invoke
    done = run(app, ["pack", str(tiny_bundle), str(tmp_path / "out"), "--variant", "portable"])
    assert done.exit_code == 0
    assert f"{tmp_path / 'out'}: portable in " in done.output
    done = run(app, ["pack", str(tiny_bundle), str(tmp_path / "out"), "--overwrite", "--json"])
    summary = json.loads(done.output)
    assert summary["variants"] == ["fp32"] == [summary["default_variant"]]
    done = run(app, ["pack", str(tiny_bundle), str(tmp_path / "out"), "--variant", "x"])
    assert done.exit_code == 2
    assert done.stderr.startswith("bertport: error: unknown variant 'x'")
