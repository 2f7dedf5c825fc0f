"""Checkpoints: located, checked and read."""
