"""The pictures of the documentation are small, and made smaller by a palette that keeps what they show."""

import os

import numpy as np
import pytest

from bench.checkout import ROOT
from bench.pictures.smaller import MOST_BYTES, make_smaller


def test_every_picture_of_the_documentation_is_small():
    pictures = sorted((ROOT / "docs").rglob("*.png"))
    assert 0 < len(pictures) <= 6
    assert {picture.name: picture.stat().st_size for picture in pictures if picture.stat().st_size > MOST_BYTES} == {}


def test_a_screenshot_becomes_smaller_and_keeps_its_colours(tmp_path):
    image = pytest.importorskip("PIL.Image")
    page = np.full((400, 600, 3), 255, np.uint8)
    page[50:90, 40:500] = (15, 90, 170)
    picture = tmp_path / "page.png"
    image.fromarray(page).save(picture, compress_level=0)
    before = picture.stat().st_size
    assert make_smaller(picture) == picture.stat().st_size < before / 10
    with image.open(picture) as smaller:
        np.testing.assert_array_equal(np.asarray(smaller.convert("RGB")), page)


def test_what_stays_large_is_refused(tmp_path):
    image = pytest.importorskip("PIL.Image")
    noise = np.frombuffer(os.urandom(500 * 500 * 3), np.uint8).reshape(500, 500, 3)
    picture = tmp_path / "noise.png"
    image.fromarray(noise).save(picture)
    with pytest.raises(ValueError, match=rf"noise\.png has [\d,]+ bytes, and {MOST_BYTES:,} is the most"):
        make_smaller(picture)
