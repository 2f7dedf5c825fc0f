"""Scoring the default model on held-out text, and its model card."""
