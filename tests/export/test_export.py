"""The export as a whole, on the tiny checkpoint."""

from __future__ import annotations

from bertport.runtime.bundle import Bundle


def test_the_bundle_is_complete(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    assert bundle.verify() == ()
    assert bundle.manifest.heads == ("mlm", "nsp", "pooler")
