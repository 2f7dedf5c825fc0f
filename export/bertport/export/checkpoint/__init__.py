"""Checkpoints: found, checked and read."""
