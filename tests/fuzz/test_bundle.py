"""The reader of bundles on whatever manifest: what it does not take, it refuses in one sentence."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.runtime.bundle.digest import digest_of, sealed
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.bundle.reading import from_json
from bertport.runtime.errors import BertportError
from tests.fuzz import budget

pytestmark = pytest.mark.slow

STRANGE = ("..", "../a", "/etc/passwd", ".", "a" * 5000, "a\x00", "\ud83d", "C:a", "a/b")
NAMES = st.text(max_size=6) | st.sampled_from(STRANGE)
BYTES = {"deep": b"[" * 100_000, "long": b"9" * 6000, "huge": b"1e999", "nan": b"NaN", "mark": b"\xef\xbb\xbf"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.sampled_from([10**400, -1, 2**63]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
MOST = 2000
"""Characters of an error."""


def refused_or_taken(action):
    """Do something; any error but one of ours, in few words, is a finding."""
    try:
        return action()
    except BertportError as error:
        if not 0 < len(error.message) < MOST:
            raise AssertionError(error.message[:200]) from error
        return None


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    return json.loads((tiny_bundle / MANIFEST).read_text(encoding="utf-8"))


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    """A bundle of our own to damage."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def changed(draw, value):
    """Change one place of a value."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 4)) == 0:
        return draw(VALUES)
    copied = dict(value) if isinstance(value, dict) else list(value)
    key = draw(st.sampled_from(sorted(copied) if isinstance(copied, dict) else range(len(copied))))
    action = draw(st.integers(0, 5))
    if action == 0:
        del copied[key]
    elif action == 1 and isinstance(copied, dict):
        copied[draw(NAMES)] = copied.pop(key)
    elif action == 1:
        copied += copied
    else:
        copied[key] = changed(draw, copied[key])
    return copied


def every_step(directory):
    """Open a bundle, and do with it what reads files."""
    bundle = refused_or_taken(lambda: Bundle.open(directory))
    if bundle is not None:
        refused_or_taken(bundle.verify)
        for name in bundle.manifest.files:
            refused_or_taken(lambda name=name: bundle.file(name))


def test_any_value_is_a_manifest_or_refused():
    @given(VALUES | st.fixed_dictionaries({"format_version": st.sampled_from([1, 2]) | VALUES}))
    def read(value):
        refused_or_taken(lambda: from_json(value))

    budget.run(read, among=4)


def resealed(content, stated):
    """Write into a manifest's bytes the digest that they have to have, where they still state one."""
    return (
        content.replace(stated, digest_of(content, stated.decode()).encode()) if content.count(stated) == 1 else content
    )


def test_changed_manifests_are_read_or_refused(manifest, copy):
    @given(st.data())
    def read(data):
        value = manifest
        for _ in range(data.draw(st.integers(1, 3))):
            value = changed(data.draw, value)
        text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
        try:
            content = text.encode()
        except UnicodeEncodeError:  # half of a character, which no file in UTF-8 holds
            return
        with suppress(ValueError, KeyError, TypeError):  # what cannot be sealed is read as it is
            content = sealed(value)
        (copy / MANIFEST).write_bytes(content)
        every_step(copy)

    budget.run(read, among=4)


def replaced(content):
    """Bytes of a manifest, some of them replaced by others."""
    places = st.integers(0, len(content))
    new = st.binary(max_size=20) | st.sampled_from(sorted(BYTES))
    return st.builds(
        lambda at, length, new: content[:at] + BYTES.get(new, new) + content[at + length :],
        places,
        st.integers(0, 40),
        new,
    )


def test_changed_bytes_are_read_or_refused(manifest, copy):
    content = sealed(manifest)
    stated = json.loads(content)["digest"].encode()

    @given(replaced(content))
    def read(changed):
        (copy / MANIFEST).write_bytes(resealed(changed, stated))
        every_step(copy)

    budget.run(read, among=4)


def test_changed_bytes_without_another_digest_are_refused(manifest, copy):
    content = sealed(manifest)

    @given(replaced(content).filter(lambda changed: changed != content))
    def read(changed):
        (copy / MANIFEST).write_bytes(changed)
        assert refused_or_taken(lambda: Bundle.open(copy)) is None

    budget.run(read, among=4)
