"""Measure models: quality against a reference, speed, and how sure the figures are."""
