"""Bundles on disk: the manifest, reading, writing, and choosing a variant."""
